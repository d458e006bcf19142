"""What turns buy: windows of two equal arms, in turn and launch by launch, in the same minutes.

One program is both arms, so the true ratio is 1. A round is a launch of both arms in turn (loaded
at once, window by window, the other one stopped, as `farm run` does it), two launches alone, one
more in turn that the other arm leads, and two alone: equal work by both ways, in the same hour.
Every window is kept with its time; benchmarks/verdicts.py resamples them.

    python benchmarks/windows.py --record PTE --name calm|busy [--minutes 10] [--into FILE]
    python benchmarks/windows.py [FILE...]

Without --record it shows what the recordings say: the scatter of a pair by each way, the seconds
that it costs, and the half width of a 95 % interval after 120 s of either.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.method.paired import built_runner  # noqa: E402
from farm.core.rules.interval import (  # noqa: E402
    LEAST_PAIRS,
    pair_logs,
    pair_statistics,
    t975,
)
from farm.core.runtime import Arm  # noqa: E402
from farm.site.job.turns import PLAN, ArmStart, output_of, plan_json  # noqa: E402

DATA = ROOT / "benchmarks" / "data"
PREFILL, DECODE = "pp64", "tg32"
#: Rates by the CPU time of a window: what is left where nobody makes it wait for a core.
BY_CPU = "/cpu"
#: Windows of each arm in a launch, and what one lasts at least.
WINDOWS, WINDOW_MS = 6, 125
BUDGET_S = 120.0
HOW = (
    "python benchmarks/windows.py --record PTE --name NAME: one program as both arms; launches in"
    f" turn and alone by turns, {WINDOWS} windows of {WINDOW_MS} ms of each arm and metric a launch"
)


@dataclass(frozen=True)
class Pair:
    """Two arms measured in one round, by either way."""

    #: Rates of the windows, tokens per second, in order.
    candidate: list[float]
    baseline: list[float]
    #: What both cost, seconds.
    cost_s: float

    def log(self, way: str) -> float:
        """Log ratio of the arms, as the project computes it."""
        other = 0 if way == "turn" else 1
        return pair_logs({0: self.candidate}, {other: self.baseline})[0]


def main() -> int:
    """Record, or tell what was recorded."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("files", type=Path, nargs="*")
    parser.add_argument("--record", type=Path, metavar="PTE")
    parser.add_argument("--name", default="busy")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--into", type=Path)
    options = parser.parse_args()
    if options.record is not None:
        into = options.into or DATA / f"windows-{options.name}.json"
        return record(options.record, options.name, options.minutes, into)
    figures = {}
    print(f"{'windows':<26}{'way':<7}{'pairs':>6}{'s a pair':>10}{'scatter':>9}{'120 s':>8}")
    for path in options.files or sorted(DATA.glob("windows-*.json")):
        for name, ways in read(path).items():
            halves = {}
            for way, pairs in ways.items():
                # As the verdict knows it: without what changes sides with the lead.
                error = pair_statistics([pair.log(way) for pair in pairs]).error
                scatter = error * math.sqrt(len(pairs))
                cost_s = statistics.median(pair.cost_s for pair in pairs)
                count = max(LEAST_PAIRS, int(BUDGET_S / cost_s))
                halves[way] = math.expm1(t975(count - 2) * scatter / math.sqrt(count))
                print(
                    f"{name:<26}{way:<7}{len(pairs):>6}{cost_s:>8.1f} s{scatter:>9.2%}"
                    f"{halves[way]:>8.2%}"
                )
            figures[name] = round(halves["turn"] / halves["alone"], 3)
    print(
        json.dumps(
            {"benchmark": "windows", "figures": {}, "ratios": figures, "targets": {}, "met": True}
        )
    )
    return 0


def read(path: Path) -> dict[str, dict[str, list[Pair]]]:
    """Pairs of a recording, by name of a metric and by way."""
    document = json.loads(path.read_text("utf-8"))
    found: dict[str, dict[str, list[Pair]]] = {}
    for metric in document["metrics"]:
        turn = [
            Pair(one["candidate"][metric], one["baseline"][metric], one["cost_s"])
            for one in document["launches"]
            if one["way"] == "turn"
        ]
        lone = [one for one in document["launches"] if one["way"] == "alone"]
        alone = []
        for number, (first, second) in enumerate(zip(lone[::2], lone[1::2], strict=False)):
            # A B B A: of the second pair of a round the baseline is the first.
            ours, theirs = (first, second) if number % 2 == 0 else (second, first)
            cost_s = first["cost_s"] + second["cost_s"]
            alone.append(Pair(ours["candidate"][metric], theirs["candidate"][metric], cost_s))
        found[f"{document['name']} {metric}"] = {"turn": turn, "alone": alone}
    return found


def record(pte: Path, name: str, minutes: float, into: Path) -> int:
    """Launch for so many minutes and write every window down."""
    launches: list[dict[str, Any]] = []
    loads = [os.getloadavg()[0]]
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        device = Device(pte.resolve(), Path(folder))
        device.turn("candidate", "baseline")  # brings the files into memory
        while time.monotonic() - started < 60 * minutes:
            for lead in (("candidate", "baseline"), ("baseline", "candidate")):
                for way in ("turn", "alone", "alone"):
                    at_s, before = time.monotonic() - started, time.monotonic()
                    rates = device.turn(*lead) if way == "turn" else device.alone()
                    cost_s = time.monotonic() - before
                    launches.append(
                        {"way": way, "at_s": round(at_s, 2), "cost_s": round(cost_s, 3), **rates}
                    )
            loads.append(os.getloadavg()[0])
    document = {
        "how": HOW,
        "name": name,
        "machine": f"{os.cpu_count()} cores; load average {min(loads):.1f} to {max(loads):.1f}",
        "metrics": [name + by for name in (PREFILL, DECODE) for by in ("", BY_CPU)],
        "launches": launches,
    }
    into.parent.mkdir(parents=True, exist_ok=True)
    into.write_text(json.dumps(document) + "\n", "utf-8")
    print(f"{into}: {len(launches)} launches, {document['machine']}")
    return 0


class Device:
    """This machine, with farm-runner and farm-helper in their folders."""

    def __init__(self, pte: Path, folder: Path) -> None:
        from farm.paths import farm_home, native_cache
        from runners.build.compiler import host_abi
        from runners.build.native import build_helper

        self._runner, self._pte, self._folder = built_runner(), pte, folder
        helper = build_helper(host_abi(), native_cache(farm_home()))
        self._helper = helper.file("farm-helper").path
        for arm in ("candidate", "baseline"):
            (folder / arm).mkdir()

    def alone(self) -> dict[str, dict[str, list[float]]]:
        """One launch of one arm."""
        start = self._start("candidate", turns=False)
        out = self._run(start.argv, start.folder, dict(start.env))
        return {"candidate": rates(out)}

    def turn(self, *arms: Arm) -> dict[str, dict[str, list[float]]]:
        """One launch of both arms; the first one leads."""
        starts = [self._start(arm, turns=True) for arm in arms]
        (self._folder / PLAN).write_bytes(plan_json(starts))
        out = self._run((str(self._helper), "turns", PLAN), str(self._folder), {})
        return {arm: rates(output_of(out, arm)) for arm in arms}

    def _start(self, arm: Arm, *, turns: bool) -> ArmStart:
        folder = self._folder / arm
        shape = {"repetitions": WINDOWS, "warmup": 1, "depth": 0, "window_ms": WINDOW_MS}
        measure = [
            {"name": PREFILL, "prefill": 64, "decode": 0, **shape},
            {"name": DECODE, "prefill": 0, "decode": 32, **shape},
        ]
        request = {"protocol": 1, "threads": 1, "measure": measure, "turns": turns}
        (folder / "request.json").write_text(json.dumps(request))
        words = ("--model", str(self._pte), "--request", "request.json", "--out", ".")
        env = (("LD_LIBRARY_PATH", str(self._runner.parent / "lib")),)
        return ArmStart(arm, str(folder), (str(self._runner), *words), env)

    def _run(self, words: Sequence[str], folder: str, env: dict[str, str]) -> bytes:
        done = subprocess.run(
            words,
            cwd=folder,
            env={**os.environ, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode != 0:
            raise SystemExit(f"a launch failed: {done.stdout[-400:].decode(errors='replace')}")
        return done.stdout


def rates(out: bytes) -> dict[str, list[float]]:
    """Tokens per second of the windows that count, by metric; and per second of CPU time."""
    found: dict[str, list[float]] = {}
    for text in out.splitlines():
        line = json.loads(text)
        if line["type"] == "sample" and not line["warmup"]:
            wall_ns = line["end_ns"] - line["start_ns"]
            for name, took_ns in (("", wall_ns), (BY_CPU, line["cpu_ns"])):
                rate = round(line["tokens"] / took_ns * 1e9, 3)
                found.setdefault(line["metric"] + name, []).append(rate)
    return found


if __name__ == "__main__":
    sys.exit(main())
