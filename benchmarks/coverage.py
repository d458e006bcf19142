"""Do the intervals cover? One cell is measured 40 times; of neighbours the intervals must overlap.

Every repeat is a measurement of its own, as `farm bench --precision` makes it: launches until the
95 % interval of the rate is 3 % wide, or until the repeat's share of the time is spent. Two
intervals that both hold the truth overlap; 20 pairs of neighbours show how often they do. Prefill
depends on the core, decode also on who else uses the memory.

A repeat during which a guard saw other programs, steal or a cap is one that farm calls invalid: it
is listed, and made again at the end, up to as often as there are repeats. Widths are judged where
the machine was quiet: where the samples didn't scatter either, and fixed work before and after the
launches took the same time, to 2 %; for decode also reads of memory, to 10 % (such a reading lasts
3 ms and scatters by 5 to 8 % where nothing else is at work). Before the first repeat farm learns
what is usual on this machine from some short measurements, as it would have in earlier nights.

    python benchmarks/coverage.py [--pte FILE] [--repeats 40] [--minutes 70] [--threads 1]
        [--metric pp64 | tg32]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.method.paired import artifact  # noqa: E402
from farm.commands.bench import BenchRequest, bench  # noqa: E402
from farm.core.result import PerformanceReport  # noqa: E402
from farm.core.spec import Workload  # noqa: E402
from farm.paths import farm_home  # noqa: E402

METRICS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "pp64": ((64,), ()),
    "tg32": ((), (32,)),
}
WIDTH = 0.03
#: Guards that say whether something else used the machine.
FOREIGN = ("load", "hidden_cap", "clock_cap")
#: Short measurements before the first repeat.
LEARNING = 8
#: Fixed work as a result's conditions tell of it.
KINDS = ("fixed_work_us", "wide_work_us", "memory_reads_us")
#: By how much what a metric depends on may vary where it is quiet; the first kind of work shows the
#: core's clock.
STEADY = {
    "pp64": {"fixed_work_us": 0.02},
    "tg32": {"fixed_work_us": 0.02, "memory_reads_us": 0.10},
}


@dataclass(frozen=True)
class Repeat:
    """One measurement of the cell."""

    metric: str
    median: float
    low: float
    high: float
    launches: int
    #: Guards that fired, of `FOREIGN` and of scatter.
    flags: tuple[str, ...]
    #: By how much fixed work varied, of each kind.
    varied: dict[str, float]

    @property
    def quiet(self) -> bool:
        """True when nothing else was at work and the machine was as fast all the time."""
        steady = STEADY[self.metric].items()
        return not self.flags and all(self.varied[kind] <= most for kind, most in steady)

    @property
    def valid(self) -> bool:
        """True when no guard that could be read saw anything else at work."""
        return not set(self.flags) & set(FOREIGN)

    @property
    def width(self) -> float:
        """Width of the interval, relative to the median."""
        return (self.high - self.low) / self.median


def measure(pte: Path, metric: str, threads: int, budget_s: float) -> Repeat | None:
    """Measure once; None when the budget gave no interval."""
    prefill, decode = METRICS[metric]
    workload = Workload(
        prefill=prefill,
        decode=decode,
        launches=8,  # with fewer an interval doesn't see how the machine drifts
        max_launches=64,
        repetitions=3,
        warmup=1,
        precision=WIDTH / 2,
        budget_s=budget_s,
    )
    request = BenchRequest(
        pte=pte, data=None, device="local", inventory=None, workload=workload, threads=(threads,)
    )
    result = bench(request, farm_home(), lambda _event: None)
    row = next(r for r in result.performance if (r.metric, r.regime) == (metric, "warm"))
    if row.median is None or row.ci95 is None:
        return None
    launches = len({sample.launch for sample in row.samples})
    return Repeat(metric, row.median, *row.ci95, launches, flags(row), varied(result.conditions))


def flags(row: PerformanceReport) -> tuple[str, ...]:
    """Guards that say that the machine wasn't quiet."""
    return tuple(n for n in (*FOREIGN, "spread") if row.guards.get(n) == "flagged")


def varied(conditions: dict[str, str]) -> dict[str, float]:
    """By how much fixed work varied during a measurement, relative, by kind."""
    found = {}
    for kind in KINDS:
        low, high = map(float, conditions[kind].split("-"))
        found[kind] = high / low - 1
    return found


def learn(pte: Path, metric: str, threads: int) -> None:
    """Let farm see what fixed work usually takes here."""
    for _ in range(LEARNING):
        measure(pte, metric, threads, 1.0)


def overlap(a: Repeat, b: Repeat) -> bool:
    """Whether two intervals have a value in common."""
    return a.low <= b.high and b.low <= a.high


def judge(metric: str, found: list[Repeat], failed: int, wanted: int) -> dict[str, object]:
    """Count, print, and return the last line's document."""
    valid = [repeat for repeat in found if repeat.valid]
    pairs = list(zip(valid[::2], valid[1::2], strict=False))
    overlapping = sum(overlap(a, b) for a, b in pairs)
    every = list(zip(found[::2], found[1::2], strict=False))
    quiet = sorted(repeat.width for repeat in found if repeat.quiet)
    typical = quiet[int(0.95 * (len(quiet) - 1))] if quiet else None
    share = overlapping / len(pairs) if pairs else 0.0
    print(
        f"{overlapping} of {len(pairs)} pairs overlap; {len(valid)} of {len(found)} repeats valid,"
        f" {len(quiet)} quiet"
    )
    figures = {
        "metric": metric,
        "pairs": len(pairs),
        "overlapping": overlapping,
        "repeats": len(found),
        "valid": len(valid),
        "without_interval": failed,
        "overlapping_of_all": [sum(overlap(a, b) for a, b in every), len(every)],
        "quiet": len(quiet),
        "quiet_width_p95": typical,
        "width_widest": max((repeat.width for repeat in found), default=None),
        "launches": sum(repeat.launches for repeat in found),
    }
    return {
        "benchmark": "coverage",
        "figures": figures,
        "ratios": {"overlapping": share},
        "targets": {"overlapping": 0.95, "quiet_width_p95": WIDTH},
        "met": failed == 0
        and len(valid) >= wanted
        and share >= 0.95
        and typical is not None
        and typical <= WIDTH,
    }


def repeats(
    pte: Path, metric: str, threads: int, wanted: int, minutes: float
) -> tuple[list[Repeat], int]:
    """Measure until so many repeats are valid; return them all, and how many had no interval."""
    found: list[Repeat] = []
    failed, overhead = 0, 2.0
    print(
        f"{'repeat':>6} {'tok/s':>8} {'low':>8} {'high':>8} {'width':>6} {'launches':>8}"
        "  fixed   wide memory  flags"
    )
    while sum(repeat.valid for repeat in found) < wanted and len(found) + failed < 2 * wanted:
        started = time.monotonic()
        budget_s = max(2.0, 60 * minutes / wanted - overhead)
        repeat = measure(pte, metric, threads, budget_s)
        overhead = max(0.5, min(overhead, time.monotonic() - started - budget_s))
        if repeat is None:
            failed += 1
            continue
        found.append(repeat)
        print(
            f"{len(found):>6} {repeat.median:>8.2f} {repeat.low:>8.2f} {repeat.high:>8.2f}"
            f" {repeat.width:>6.1%} {repeat.launches:>8} "
            + " ".join(f"{share:>6.1%}" for share in repeat.varied.values())
            + f"  {', '.join(repeat.flags) or '-'}",
            flush=True,
        )
    return found, failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pte", type=Path, help="default: the artifact of configs/llama_q4.yaml")
    parser.add_argument("--repeats", type=int, default=40, help="valid ones")
    parser.add_argument("--minutes", type=float, default=70.0, help="at most, for so many repeats")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--metric", choices=sorted(METRICS), default="pp64")
    options = parser.parse_args()
    pte = options.pte or artifact(ROOT)
    learn(pte, options.metric, options.threads)
    found, failed = repeats(pte, options.metric, options.threads, options.repeats, options.minutes)
    print(json.dumps(judge(options.metric, found, failed, options.repeats)))


if __name__ == "__main__":
    main()
