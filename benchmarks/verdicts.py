"""How often is a verdict wrong, late or blind? Nights of 60 cells with four metrics, simulated.

Every cell's two arms are equal, so any REGRESSED of a clean night is false. Launches scatter as a
normal distribution of 1, 3, 5 and 8 % (a model, not a measurement), and as recorded ones do, where
a recording of real launches is there; every sitting drifts by 20 %, a third each as a line, a
random walk and a step. Then one cell of each night loses 5 %, 10 % and twice the tolerance in one
metric. Two rules judge the same launches: `old`, one look at 95 % as of commit 0541dee, and `new`,
that of farm.judge.night with a second sitting of three times the budget for what the first leaves
open.
`auto` is the smallest tolerance that the budget decides by farm.judge.budget, from the scatter that
the pairs of earlier nights show; `best` is what a test
with known scatter and no error to share could decide, on independent launches.

    python benchmarks/verdicts.py [--nights 300] [--recording FILE]
    python benchmarks/verdicts.py --record PTE --minutes 3 [--recording FILE]
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.method.nights import (  # noqa: E402
    Array,
    Judged,
    Scatter,
    estimate,
    new_method,
    old_method,
    pair_logs,
    seen_scatter,
)
from farm.core.rules.family import SECOND_BUDGET  # noqa: E402
from farm.core.rules.interval import pair_statistics  # noqa: E402
from farm.judge.budget import Night, decidable, pairs_in  # noqa: E402

RECORDING = ROOT / "benchmarks" / "data" / "launches.json"
CELLS, METRICS = 60, 4
#: Cells judged at once: what fits a small machine's memory.
CHUNK = 6000
MODEL = (0.01, 0.03, 0.05, 0.08)
#: Budgets and seconds of a launch: a small model, and one of a billion parameters on a phone.
SHAPES = ((120.0, 6.0), (240.0, 6.0), (120.0, 20.0), (240.0, 20.0))
#: Bounds of the issue: clean nights with a false REGRESSED, clean cells undecided with `auto`, and
#: losses of twice the tolerance found.
FALSE, UNDECIDED, FOUND = 0.01, 0.05, 0.99


@dataclass(frozen=True)
class Row:
    """One line of the table; shares are 0..1."""

    scatter: str
    budget_s: float
    launch_s: float
    method: str
    tolerance: float | None
    is_auto: bool
    best: float
    false_nights: float
    undecided: float
    found: dict[str, float]
    #: Pairs measured a cell, mean of a clean night.
    pairs: float


def main() -> int:
    """Simulate, print the table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--nights", type=int, default=300)
    parser.add_argument("--recording", type=Path, default=RECORDING)
    parser.add_argument("--record", type=Path, metavar="PTE")
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if options.record is not None:
        return record(options.record, options.minutes, options.recording)
    started = time.monotonic()
    check_against_the_project(np.random.default_rng(options.seed))
    scatters = [Scatter(f"model {sigma:.0%}", sigma) for sigma in MODEL]
    scatters += recorded(options.recording)
    print(HEADER)
    rows = []
    for scatter in scatters:
        for budget_s, launch_s in SHAPES:
            for row in cases(scatter, budget_s, launch_s, options.nights, options.seed):
                rows.append(row)
                print(line(row), flush=True)
    auto = [row for row in rows if row.is_auto]
    worst = {
        "false_nights": max(row.false_nights for row in rows if row.method == "new"),
        "undecided_auto": max((row.undecided for row in auto), default=1.0),
        "found_twice_auto": min((row.found["twice"] for row in auto), default=0.0),
    }
    # What so few nights can tell of a bound of 1 %: its 99 % limit by the binomial distribution.
    limit = float(stats.binom.ppf(0.99, options.nights, FALSE)) / options.nights
    met = (
        worst["false_nights"] <= limit
        and worst["undecided_auto"] <= UNDECIDED
        and worst["found_twice_auto"] >= FOUND
    )
    print(
        json.dumps(
            {
                "benchmark": "verdicts",
                "figures": {
                    "nights": options.nights,
                    "seconds": round(time.monotonic() - started, 1),
                    "recorded": [s.name for s in scatters if s.recorded is not None],
                    **{name: round(value, 4) for name, value in worst.items()},
                },
                "ratios": {},
                "targets": {
                    "false_nights": FALSE,
                    "false_nights_of_so_few": round(limit, 4),
                    "undecided_auto": UNDECIDED,
                    "found_twice_auto": FOUND,
                },
                "met": met,
            }
        )
    )
    return 0 if met else 1


HEADER = (
    f"{'launches':<18}{'budget':>7}{'launch':>7} {'method':<7}{'tolerance':>10}{'best':>7}"
    f"{'false nights':>13}{'undecided':>10}{'5 %':>7}{'10 %':>7}{'twice':>7}{'pairs':>7}"
)


def line(row: Row) -> str:
    """One line of the table."""
    if row.tolerance is None:
        return (
            f"{row.scatter:<18}{row.budget_s:>5.0f} s{row.launch_s:>5.0f} s {row.method:<7}"
            f"{'none':>10}   fewer pairs than any verdict needs"
        )
    tolerance = f"{'auto ' if row.is_auto else ''}{row.tolerance:.1%}"
    found = "".join(f"{row.found[name]:>7.0%}" for name in ("5 %", "10 %", "twice"))
    return (
        f"{row.scatter:<18}{row.budget_s:>5.0f} s{row.launch_s:>5.0f} s {row.method:<7}"
        f"{tolerance:>10}{row.best:>7.1%}{row.false_nights:>13.1%}{row.undecided:>10.1%}{found}"
        f"{row.pairs:>7.1f}"
    )


def cases(scatter: Scatter, budget_s: float, launch_s: float, nights: int, seed: int) -> list[Row]:
    """The fixed tolerances by both rules, and the tolerance that the budget decides."""
    pairs = pairs_in(budget_s, launch_s)
    shape = Night(pairs, SECOND_BUDGET * pairs, METRICS, CELLS * METRICS)
    history = pair_logs(
        np.random.default_rng(seed + 1), scatter, series=500, metrics=METRICS, pairs=2 * pairs
    )
    best = _best(scatter.sigma, pairs)
    auto = decidable(seen_scatter(history), shape)
    found = [
        simulate(scatter, shape, method, tolerance, nights, seed)
        for tolerance in (0.02, 0.15)
        for method in ("old", "new")
    ]
    if auto is None:
        none = Row(scatter.name, budget_s, launch_s, "new", None, False, best, 0, 1, {}, pairs)
        return [
            *(_row(scatter, budget_s, launch_s, best, one) for one in found if one[0] == "old"),
            none,
        ]
    found += [simulate(scatter, shape, m, auto, nights, seed) for m in ("old", "new")]
    rows = [_row(scatter, budget_s, launch_s, best, one) for one in found]
    return [*rows[:-1], replace(rows[-1], is_auto=True)]


Simulated = tuple[str, float, float, float, dict[str, float], float]


def _row(scatter: Scatter, budget_s: float, launch_s: float, best: float, one: Simulated) -> Row:
    method, tolerance, false_nights, undecided, found, pairs = one
    return Row(
        scatter.name, budget_s, launch_s, method, tolerance, False, best, false_nights,
        undecided, found, pairs,
    )  # fmt: skip


def simulate(
    scatter: Scatter, shape: Night, method: str, tolerance: float, nights: int, seed: int
) -> Simulated:
    """Count what one rule makes of clean nights, and of one lossy cell a night."""
    random = np.random.default_rng(seed)
    regressed, undecided, pairs = [], [], []
    for start in range(0, nights * CELLS, CHUNK):
        count = min(CHUNK, nights * CELLS - start)
        clean = _judged(random, scatter, shape, method, tolerance, count)
        regressed.append(clean.regressed)
        undecided.append(clean.undecided)
        pairs.append(clean.pairs)
    false = np.concatenate(regressed).reshape(nights, CELLS).any(axis=1).mean()
    losses = {"5 %": 0.05, "10 %": 0.10, "twice": 2 * tolerance}
    found = {
        name: float(
            _judged(random, scatter, shape, method, tolerance, 4 * nights, loss).first_metric.mean()
        )
        for name, loss in losses.items()
    }
    return (
        method,
        tolerance,
        float(false),
        float(np.concatenate(undecided).mean()),
        found,
        float(np.concatenate(pairs).mean()),
    )


def _judged(
    random: np.random.Generator,
    scatter: Scatter,
    shape: Night,
    method: str,
    tolerance: float,
    series: int,
    loss: float = 0.0,
) -> Judged:
    """Judge cells whose first metric has lost so much."""

    def sitting(pairs: int) -> Array:
        logs = pair_logs(random, scatter, series=series, metrics=METRICS, pairs=pairs)
        logs[:, 0] += math.log1p(-loss)
        return logs

    if method == "old":
        return old_method(sitting(shape.pairs), tolerance)
    first, second = sitting(shape.pairs), sitting(shape.confirming)
    return new_method(first, second, tolerance, comparisons=shape.comparisons)


def _best(sigma: float, pairs: int) -> float:
    """Tolerance that a test with known scatter decides with all metrics in 95 % of the cells."""
    each = 0.95 ** (1 / METRICS)
    factor = float(stats.norm.isf(0.025) + stats.norm.ppf(each))
    return -math.expm1(-factor * sigma * math.sqrt(2 / pairs))


def check_against_the_project(random: np.random.Generator) -> None:
    """Refuse to simulate another arithmetic than the one that judges.

    Raises:
        AssertionError: They differ.
    """
    series = pair_logs(random, Scatter("check", 0.03), series=50, metrics=1, pairs=10)[:, 0]
    mean, error, df = estimate(series, looked=True)
    for index, logs in enumerate(series):
        own = pair_statistics(list(logs), looked=True)
        same = np.allclose([mean[index], error[index]], [own.mean, own.error])
        assert same, (index, own)
        assert df == own.df


def recorded(path: Path) -> list[Scatter]:
    """Read the series of a recording; none where there is no such file."""
    if not path.exists():
        print(f"no recording at {path}: the model of scatter alone", file=sys.stderr)
        return []
    found = []
    for series in json.loads(path.read_text("utf-8"))["series"]:
        logs = np.log([statistics.median(windows) for windows in series["launches"]])
        neighbours = np.diff(logs)
        # What pairs see: half the variance of the difference between neighbours.
        sigma = float(np.sqrt(np.mean(neighbours**2) / 2))
        found.append(Scatter(f"{series['name']} {sigma:.1%}", sigma, logs))
    return found


def record(pte: Path, minutes: float, path: Path) -> int:
    """Launch one program again and again on this machine and keep every window's rate."""
    from farm.commands.bench import BenchRequest, bench
    from farm.core.spec import Workload
    from farm.paths import farm_home

    most = 1000
    workload = Workload(
        prefill=(64,), decode=(32,), launches=3, max_launches=most, cold_launches=0,
        repetitions=3, budget_s=60 * minutes, precision=1e-6,
    )  # fmt: skip
    request = BenchRequest(pte, None, "local", None, workload, (1,))
    result = bench(request, farm_home(), lambda event: None)
    data: dict[str, Any] = {"how": HOW, "series": []}
    if path.exists():
        data = json.loads(path.read_text("utf-8"))
    for report in result.performance:
        if report.regime != "warm" or report.unit != "tok/s":
            continue
        launches: dict[int, list[float]] = {}
        for sample in report.samples:
            launches.setdefault(sample.launch, []).append(round(sample.value, 3))
        name = f"{pte.stem[:8]} {report.metric}"
        data["series"].append({"name": name, "launches": list(launches.values())})
        print(f"{name}: {len(launches)} launches")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=None) + "\n", "utf-8")
    return 0


HOW = (
    "python benchmarks/verdicts.py --record PTE: process launches of one program one after the"
    " other, three windows of each metric a launch, tokens per second"
)

if __name__ == "__main__":
    sys.exit(main())
