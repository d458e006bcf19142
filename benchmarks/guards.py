"""Are the guards quiet where nothing is wrong, and does telemetry cost a timed window anything?

Clean runs: `farm bench -l 8 --precision 5%` of one artifact, but of at most 16 launches, again and
again on this machine, until so many were clean. A run in which the recorded steal or load says that
something else used the machine isn't: it is listed with what was recorded, and another one is made.
In the clean ones every guard that fires on a rate is a false flag.
Cost: one launch of farm-runner under farm-helper's supervision, in which the sampler alone is
stopped and continued block by block, on off off on; neighbouring blocks are compared.
One thread, because on two cores the second is what the sampler and the system have. Prints a table
and, as its last line, one JSON document. Without --pte the artifact of configs/llama_q4.yaml is
taken.

    python benchmarks/guards.py [--pte FILE] [--runs 20] [--minutes 4]
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("LD_LIBRARY_PATH", "./lib")

from benchmarks.method.paired import (  # noqa: E402
    DECODE,
    PREFILL,
    Ratio,
    artifact,
    built_runner,
    median_ratio,
    runner_request,
)

#: Launches of a run, at least and at most: see farm.core.rules.stopping.
LAUNCHES, MOST_LAUNCHES, THREADS = 8, 16, 1
#: Half width at which a rate is known well enough.
PRECISION = 0.05
#: How long a window takes at least, and how long the sampler stays as it is, seconds.
WINDOW_S, BLOCK_S = 0.4, 3.0
#: Most flags that clean runs may raise, and how far a rate may move with telemetry on.
TARGETS = {"false_flags": 1, "telemetry_on_over_off": 0.01}
#: Guards that say that something else used the machine.
FOREIGN = frozenset({"load", "hidden_cap"})
TOLD = (
    "steal", "other_programs", "load1", "telemetry_cost", "memory_reads_us", "guard_load",
    "guard_hidden_cap",
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One run's flags, and what was recorded beside them."""

    flags: tuple[str, ...]
    conditions: dict[str, str]

    @property
    def clean(self) -> bool:
        """Whether nothing else is recorded to have used the machine."""
        return FOREIGN.isdisjoint(self.flags)


@dataclass(frozen=True)
class Block:
    """Time in which the sampler ran, or was stopped; nanoseconds of the monotonic clock."""

    on: bool
    start_ns: int
    end_ns: int


def run_once(pte: Path, number: int) -> Run:
    """`farm bench`, its line of the table, and its flags."""
    from farm.commands.bench import BenchRequest, bench
    from farm.core.spec import Workload
    from farm.paths import farm_home

    workload = Workload(
        prefill=(PREFILL,),
        decode=(DECODE,),
        launches=LAUNCHES,
        max_launches=MOST_LAUNCHES,
        precision=PRECISION,
    )
    request = BenchRequest(pte, None, "local", None, workload, (THREADS,))
    result = bench(request, farm_home(), lambda _event: None)
    rates = {p.metric: p for p in result.performance if p.unit == "tok/s"}
    fired = {
        f"{name}@{metric}" if name in ("window", "spread", "token_count") else name
        for metric, report in rates.items()
        for name, state in report.guards.items()
        if state == "flagged"
    }
    run = Run(
        tuple(sorted(fired)),
        {key: result.conditions[key] for key in TOLD if key in result.conditions},
    )
    print(
        f"{number:>4} {rates[f'pp{PREFILL}'].median or 0:>8.1f}"
        f" {rates[f'tg{DECODE}'].median or 0:>8.1f} {run.conditions.get('steal', '?'):>7}"
        f" {run.conditions.get('other_programs', '?'):>11}"
        f" {run.conditions.get('memory_reads_us', '?'):>9}"
        f"  {', '.join(run.flags) or '-'}",
        flush=True,
    )
    return run


def runs_until(pte: Path, clean: int) -> list[Run]:
    """Run until so many runs were clean, at most three times as often."""
    print(
        f"{'run':>4} {'pp128':>8} {'tg64':>8} {'steal':>7} {'others':>11} {'memory us':>9}  flags"
    )
    runs: list[Run] = []
    while sum(run.clean for run in runs) < clean and len(runs) < 3 * clean:
        runs.append(run_once(pte, len(runs) + 1))
    return runs


def launch(work: Path, helper: Path, runner: Path, pte: Path, windows: int) -> None:
    """Start farm-runner under farm-helper with telemetry, as farm does on a device."""
    request = runner_request(THREADS, windows, round(WINDOW_S * 1000))
    (work / "request.json").write_text(request)
    words = ["supervise", "--work", str(work), "--stale-s", "3600"]
    words += ["--max-output-bytes", "10000000", "--env", "--telemetry-s", "0.5"]
    words += ["--", str(runner), "--model", str(pte), "--request", "request.json", "--out", "."]
    env = f"LD_LIBRARY_PATH={runner.parent}/lib\0".encode()
    subprocess.run([str(helper), *words], input=env, stdout=subprocess.DEVNULL, check=True)


def find_sampler(work: Path, runner: Path) -> psutil.Process:
    """The process that samples: the supervisor's other child."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if str(work) not in words:
                continue
            children = process.children()
            jobs = [child for child in children if child.cmdline()[:1] == [str(runner)]]
            others = [child for child in children if child not in jobs]
            if jobs and len(others) == 1:
                return others[0]
        time.sleep(0.05)
    raise SystemExit("no sampler was found beside the runner")


def toggled(sampler: psutil.Process) -> list[Block]:
    """Stop and continue the sampler, on off off on, until it has ended with its job."""
    blocks: list[Block] = []
    for on in itertools.cycle((True, False, False, True)):
        try:
            (sampler.resume if on else sampler.suspend)()
        except psutil.NoSuchProcess:
            return blocks
        start = time.monotonic_ns()
        time.sleep(BLOCK_S)
        blocks.append(Block(on, start, time.monotonic_ns()))
    return blocks


def block_rates(work: Path, blocks: list[Block]) -> dict[str, list[tuple[bool, float]]]:
    """For each metric the rate of each block, over the windows that lie inside it."""
    found: dict[str, list[tuple[bool, float]]] = {"prefill": [], "decode": []}
    samples = [json.loads(line) for line in (work / "stdout").read_text().splitlines()]
    samples = [line for line in samples if line["type"] == "sample" and not line["warmup"]]
    for name, rates in found.items():
        for block in blocks:
            inside = [
                line
                for line in samples
                if line["metric"] == name
                and block.start_ns <= line["start_ns"]
                and line["end_ns"] <= block.end_ns
            ]
            if inside:
                spent_ns = sum(line["end_ns"] - line["start_ns"] for line in inside)
                rates.append((block.on, sum(line["tokens"] for line in inside) / spent_ns * 1e9))
    return found


def on_over_off(rates: list[tuple[bool, float]]) -> list[float]:
    """Ratios of neighbouring blocks with and without the sampler; each block is in one."""
    ratios = []
    left = iter(rates)
    before = next(left, None)
    for block in left:
        if before is None or before[0] == block[0]:
            before = block
            continue
        on, off = (before, block) if before[0] else (block, before)
        ratios.append(on[1] / off[1])
        before = None
    return ratios


def cost(pte: Path, minutes: float) -> dict[str, Ratio]:
    """Ratio of the rates with telemetry to those without, over neighbouring blocks of one launch.

    The machine drifts by more than what is looked for from one process to the next; within one
    the sampler alone is stopped and continued.
    """
    from farm.paths import farm_home, native_cache
    from runners.build.compiler import host_abi
    from runners.build.native import build_helper

    helper = build_helper(host_abi(), native_cache(farm_home())).file("farm-helper").path
    runner = built_runner()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        launch(work, helper, runner, pte, windows=round(minutes * 60 / 2 / WINDOW_S))
        blocks = toggled(find_sampler(work, runner))
        rates = block_rates(work, blocks)
    ratios = {}
    for name, found in rates.items():
        pairs = on_over_off(found)
        ratios[name] = median_ratio(pairs)
        low, high = ratios[name].low, ratios[name].high
        print(
            f"{name}: telemetry on / off {ratios[name].median:.4f}"
            f" (95 % interval {low:.4f} to {high:.4f}, {len(pairs)} pairs of blocks)"
        )
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pte", type=Path)
    parser.add_argument("--runs", type=int, default=20, help="clean runs")
    parser.add_argument("--minutes", type=float, default=4.0, help="for telemetry on and off")
    options = parser.parse_args()
    pte = options.pte or artifact(ROOT)
    runs = runs_until(pte, options.runs)
    clean = [run for run in runs if run.clean]
    false = [flag for run in clean for flag in run.flags]
    ratios = cost(pte, options.minutes)
    figures = {
        "runs": len(runs),
        "clean_runs": len(clean),
        "false_flags": false,
        "explained": [{"flags": run.flags, **run.conditions} for run in runs if not run.clean],
        "intervals": {name: [ratio.low, ratio.high] for name, ratio in ratios.items()},
    }
    document = {
        "benchmark": "guards",
        "figures": figures,
        "ratios": {f"telemetry_on_over_off.{name}": r.median for name, r in ratios.items()},
        "targets": TARGETS,
        "met": len(clean) >= options.runs
        and len(false) <= TARGETS["false_flags"]
        and all(abs(r.median - 1) <= TARGETS["telemetry_on_over_off"] for r in ratios.values()),
    }
    print(json.dumps(document))


if __name__ == "__main__":
    main()
