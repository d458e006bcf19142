"""What benchmarks against a peer share: launches A B B A, ratios with an interval, one last line.

A launch is one process of one side; its figures are medians of its repetitions. Wall-clock rates
are what counts; rates per second of CPU time stand beside them, because on a machine that computes
something else they are the ones to be believed.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

PREFILL, DECODE, REPETITIONS = 128, 64, 3

#: Figures of one launch: `prefill` and `decode` in tok/s, `prefill_cpu` and `decode_cpu` in tokens
#: per second of CPU time, `load` and `load_cpu` in seconds, `peak_rss` in bytes.
Figures = dict[str, float]
#: Starts one process with that .pte or model and so many threads.
Launch = Callable[[int], Figures]

#: Figures of which less is better: their ratio is the peer's over ours.
COSTS = ("load", "load_cpu", "peak_rss")


class Ratio(NamedTuple):
    """How much better we are than the peer."""

    median: float
    low: float
    high: float


def median_ratio(pairs: Sequence[float]) -> Ratio:
    """Median of the pairs' ratios, and its 95 % bootstrap interval."""
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(pairs, k=len(pairs))) for _ in range(2000))
    return Ratio(statistics.median(pairs), medians[49], medians[1949])


def note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def artifact(root: Path) -> Path:
    """The .pte of configs/llama_q4.yaml, from the store or exported into it."""
    from farm.commands.export import export
    from farm.paths import farm_home, store_root
    from farm.planning.planning import RunOptions
    from farm.store.objects import ContentStore

    home = farm_home()
    options = RunOptions(config=root / "configs" / "llama_q4.yaml", cluster="none")
    (made,) = export(options, home, lambda _event: None)
    if made.result is None:
        raise SystemExit(f"configs/llama_q4.yaml can't be exported: {made.report.error}")
    return ContentStore(store_root(home)).path(made.result.bundle.pte)


def built_runner(*, tuned: bool = False) -> Path:
    """farm-runner for this machine, built when it isn't yet: `executorch` or `executorch-tuned`."""
    from farm.paths import farm_home, native_cache
    from runners.build.compiler import host_abi
    from runners.build.native import build_runner
    from runners.build.sdk import installed_sdk

    cache = native_cache(farm_home())
    build = build_runner(host_abi(), installed_sdk(), cache, tuned=tuned)
    return build.file("farm-runner").path


def runner_request(threads: int, repetitions: int = REPETITIONS, window_ms: int = 0) -> str:
    """What farm-runner is asked for: so many windows of `prefill`, then of `decode`."""
    shape = {"repetitions": repetitions, "warmup": 1, "depth": 0, "window_ms": window_ms}
    measure = [
        {"name": "prefill", "prefill": PREFILL, "decode": 0, **shape},
        {"name": "decode", "prefill": 0, "decode": DECODE, **shape},
    ]
    return json.dumps({"protocol": 1, "threads": threads, "measure": measure})


def run_farm(pte: Path, threads: int, *, tuned: bool = False) -> Figures:
    """One launch of `executorch` or `executorch-tuned`."""
    runner = built_runner(tuned=tuned)
    with tempfile.TemporaryDirectory() as folder:
        request = Path(folder) / "request.json"
        request.write_text(runner_request(threads))
        words = ["--model", str(pte), "--request", str(request), "--out", folder]
        out = subprocess.run(
            [str(runner), *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "LD_LIBRARY_PATH": str(runner.parent / "lib")},
            check=True,
        ).stdout
    lines = [json.loads(line) for line in out.splitlines()]
    rates: dict[str, list[float]] = {}
    for line in lines:
        if line["type"] == "sample" and not line["warmup"]:
            wall_ns = line["end_ns"] - line["start_ns"]
            rates.setdefault(line["metric"], []).append(line["tokens"] / wall_ns * 1e9)
            cpu = line["tokens"] / line["cpu_ns"] * 1e9
            rates.setdefault(f"{line['metric']}_cpu", []).append(cpu)
    loaded = next(line for line in lines if line["type"] == "loaded")
    return {
        **{name: statistics.median(values) for name, values in rates.items()},
        "load": loaded["load_ns"] / 1e9,
        "load_cpu": loaded["load_cpu_ns"] / 1e9,
        "peak_rss": lines[-1]["peak_rss_bytes"],
    }


def run_child(words: Sequence[str]) -> Figures:
    """One launch of a peer that prints its figures as its last line."""
    done = subprocess.run([sys.executable, *words], capture_output=True, check=False)
    if done.returncode != 0:
        tail = done.stderr.decode(errors="replace").strip()[-600:]
        raise SystemExit(f"the peer failed with exit code {done.returncode}: {tail}")
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def window(work: Callable[[], None], tokens: int, name: str) -> Figures:
    """Rates of some work in this process: one warm-up, then the median of the repetitions."""
    import time

    walls, cpus = [], []
    for _ in range(REPETITIONS + 1):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        walls.append(tokens / (time.perf_counter() - wall))
        cpus.append(tokens / (time.process_time() - cpu))
    return {name: statistics.median(walls[1:]), f"{name}_cpu": statistics.median(cpus[1:])}


@dataclass(frozen=True)
class Duel:
    """Launches of both sides at one number of threads, pair by pair."""

    farm: list[Figures]
    peer: list[Figures]

    def medians(self) -> tuple[Figures, Figures]:
        """Median figures of both sides."""
        ours, theirs = (
            {name: statistics.median(launch[name] for launch in side) for name in side[0]}
            for side in (self.farm, self.peer)
        )
        return ours, theirs

    def ratio(self, name: str) -> Ratio:
        """Ours to theirs, or theirs to ours where less is better."""
        pairs = [
            theirs[name] / ours[name] if name in COSTS else ours[name] / theirs[name]
            for ours, theirs in zip(self.farm, self.peer, strict=True)
        ]
        return median_ratio(pairs)


def duel(farm: Launch, peer: Launch, threads: int, pairs: int) -> Duel:
    """Launches both sides in the order A B B A ...

    Each counted launch follows one of the same side that isn't: a hypervisor takes back what its
    guest leaves free for seconds, and the next use of that can take longer than a load.
    """
    ours: list[Figures] = []
    theirs: list[Figures] = []
    for number in range(pairs):
        note(f"threads {threads}: pair {number + 1} of {pairs}")
        sides = [(ours, farm), (theirs, peer)]
        for found, launch in sides if number % 2 == 0 else reversed(sides):
            launch(threads)
            found.append(launch(threads))
    return Duel(ours, theirs)


def document(
    benchmark: str, peer: str, duels: Mapping[int, Duel], targets: Mapping[str, float]
) -> dict[str, object]:
    """Prints the table; returns what the last line holds. Targets are per figure."""
    heads = ("pp128", "tg64", "pp128/cpu s", "tg64/cpu s", "load s", "load cpu s", "RSS MB")
    names = ("prefill", "decode", "prefill_cpu", "decode_cpu", "load", "load_cpu", "peak_rss")
    print(f"{'threads':>7} {'runtime':>10}" + "".join(f" {head:>12}" for head in heads))
    figures: dict[str, Figures] = {}
    for threads, found in duels.items():
        for name, middle in zip(("farm", peer), found.medians(), strict=True):
            figures[f"{name}@{threads}"] = middle
            cells = [middle[key] / (1e6 if key == "peak_rss" else 1) for key in names]
            print(f"{threads:>7} {name:>10}" + "".join(f" {cell:>12.3f}" for cell in cells))
    ratios = {f"{key}@{n}": found.ratio(key) for n, found in duels.items() for key in names}
    wanted = {f"{key}@{n}": target for key, target in targets.items() for n in duels}
    print(f"\n{'ratio':>16} {'median':>8} {'95 % interval':>18} {'target':>8}")
    for key, ratio in ratios.items():
        interval = f"{ratio.low:.3f} .. {ratio.high:.3f}"
        target = f">= {wanted[key]}" if key in wanted else ""
        print(f"{key:>16} {ratio.median:>8.3f} {interval:>18} {target:>8}")
    return {
        "benchmark": benchmark,
        "figures": figures,
        "ratios": {key: ratio.median for key, ratio in ratios.items()},
        "intervals": {key: [ratio.low, ratio.high] for key, ratio in ratios.items()},
        "targets": wanted,
        "met": all(ratios[key].median >= target for key, target in wanted.items()),
    }
