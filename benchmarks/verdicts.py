"""How often is a verdict wrong, late or blind? Nights of 60 cells with four metrics, simulated.

Every cell's two arms are equal, so any REGRESSED of a clean night is false. Launches scatter as a
normal distribution of 1, 3, 5 and 8 % (a model, not a measurement: nothing of it cancels in turn),
and as recorded ones do (benchmarks/data, made by benchmarks/windows.py); every sitting drifts by
20 %, a third each as a line, a random walk and a step. Then one cell of each night loses 5 %, 10 %
and twice the tolerance in one metric. Two rules judge: `old`, one look at 95 % as of commit
0541dee, and `new`, that of farm.judge.night with a second sitting of up to four times the budget
for what the first leaves open. `alone`: a pair is two launches; `turn`: a launch of both arms,
whose windows take turns, in as many pairs as the same seconds hold.

`auto` is the smallest tolerance that the budget decides by farm.judge.budget, from the scatter that
the pairs of earlier nights show. `today` is the smallest that the old rule decides: 95 % of clean
cells pass, and twice the loss is found in 99 %. `best` is what a test with known scatter and no
error to share could decide, on independent launches. `covers` is the share of the 95 % intervals of
equal arms that hold their ratio. `neighbours_in_turn` is how neighbouring launches in turn
correlate in each recording, and what two standard errors of that are.

    python benchmarks/verdicts.py [--nights 300] [--only TEXT] [--data FOLDER] [--jobs N]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy import stats

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.method.cases import CELLS, METRICS, Case, Sittings  # noqa: E402
from benchmarks.method.nights import (  # noqa: E402
    Array,
    Scatter,
    Truths,
    Way,
    estimate,
    lag_one,
    pair_logs,
    seen_scatter,
)
from benchmarks.windows import DATA, Pair, read  # noqa: E402
from farm.core.rules.interval import pair_statistics  # noqa: E402
from farm.judge.budget import decidable, pairs_in  # noqa: E402

#: Cells judged at once: what fits a small machine's memory.
CHUNK = 6000
MODEL = (0.01, 0.03, 0.05, 0.08)
#: Budgets and seconds of a launch: a small model, which is what is recorded, and one of a billion
#: parameters on a phone.
SHAPES = ((120.0, 6.0), (240.0, 6.0), (120.0, 20.0), (240.0, 20.0))
#: Bounds: clean nights with a false REGRESSED, clean cells undecided with `auto`, losses of twice
#: the tolerance found, tolerance in turn as a share of today's, intervals that hold the truth.
FALSE, UNDECIDED, FOUND, OF_TODAY, COVERS = 0.01, 0.05, 0.99, 2 / 3, 0.94
#: Cells by which the smallest tolerance of the old rule is found.
SEARCHED = 4000


@dataclass(frozen=True)
class Row:
    """One line of the table; shares are 0..1."""

    case: Case
    #: None: there are fewer pairs than any verdict needs.
    tolerance: float | None
    #: `auto`, `today`, or nothing of a fixed one.
    how: str
    best: float
    covers: float
    false_nights: float = 0.0
    undecided: float = 1.0
    found: dict[str, float] = field(default_factory=dict)
    #: Pairs measured a cell, mean of a clean night.
    pairs: float = 0.0


def main() -> int:
    """Simulate, print the table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--nights", type=int, default=300)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--only", default="", help="launches whose name holds this: model, busy")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    options = parser.parse_args()
    started = time.monotonic()
    check_against_the_project(np.random.default_rng(options.seed))
    known = [*(Scatter(f"model {sigma:.0%}", sigma) for sigma in MODEL), *recorded(options.data)]
    scatters = [one for one in known if options.only in one.name]
    real = [one for one in scatters if one.recorded is not None]
    print(HEADER)
    rows = []
    groups = [
        (scatter, *shape, options.nights, options.seed)
        for scatter in scatters
        for shape in (SHAPES if scatter.recorded is None else SHAPES[:2])
    ]
    # Each group has random numbers of its own: the table doesn't depend on who makes it.
    with ProcessPoolExecutor(options.jobs) as pool:
        for found in pool.map(cases, *zip(*groups, strict=True)):
            rows += found
            print("\n".join(map(line, found)), flush=True)
    figures, targets, met = held_against_bounds(rows, options.nights)
    figures["seconds"] = round(time.monotonic() - started, 1)
    figures["neighbours_in_turn"] = {
        one.name: [round(lag_one(one.in_turn), 2), round(2 / math.sqrt(len(one.in_turn)), 2)]
        for one in real
        if one.in_turn is not None
    }
    ratios = against_today(rows)
    targets["of_today"] = round(OF_TODAY, 3)
    met = met and max(ratios.values(), default=0.0) <= OF_TODAY
    print(
        json.dumps(
            {
                "benchmark": "verdicts",
                "figures": figures,
                "ratios": ratios,
                "targets": targets,
                "met": met,
            }
        )
    )
    return 0 if met else 1


def held_against_bounds(
    rows: list[Row], nights: int
) -> tuple[dict[str, object], dict[str, float], bool]:
    """The worst of all rows, the bounds, and whether they are kept."""
    new = [row for row in rows if row.case.rule == "new" and row.tolerance is not None]
    auto = [row for row in new if row.how == "auto"]
    worst = {
        "false_nights": max(row.false_nights for row in new),
        "undecided_auto": max(row.undecided for row in auto),
        "found_twice_auto": min(row.found["twice"] for row in auto),
        "covers": min(row.covers for row in new),
    }
    # What so few nights can tell of a bound of 1 %: its 99 % limit by the binomial distribution.
    most = float(stats.binom.ppf(0.99, nights, FALSE)) / nights
    met = (
        worst["false_nights"] <= most
        and worst["undecided_auto"] <= UNDECIDED
        and worst["found_twice_auto"] >= FOUND
        and worst["covers"] >= COVERS
    )
    targets = {
        "false_nights": FALSE,
        "false_nights_of_so_few": round(most, 4),
        "undecided_auto": UNDECIDED,
        "found_twice_auto": FOUND,
        "covers": COVERS,
    }
    return {"nights": nights, **{k: round(v, 4) for k, v in worst.items()}}, targets, met


def against_today(rows: list[Row]) -> dict[str, float]:
    """Tolerance that a budget decides in turn, as a share of what the old rule decides."""
    found = {}
    for row in rows:
        case = row.case
        if case.way != "turn" or row.tolerance is None:
            continue
        same = (case.scatter.name, case.budget_s, case.launch_s)
        for other in rows:
            theirs = (other.case.scatter.name, other.case.budget_s, other.case.launch_s)
            if other.how == "today" and theirs == same and other.tolerance:
                name = f"{case.scatter.name} {case.budget_s:.0f} s of {case.launch_s:.0f} s"
                found[name] = round(row.tolerance / other.tolerance, 3)
    return found


HEADER = (
    f"{'launches':<24}{'budget':>7}{'launch':>7} {'rule':<5}{'way':<6}{'tolerance':>12}{'best':>7}"
    f"{'covers':>8}{'false nights':>13}{'undecided':>10}{'5 %':>7}{'10 %':>7}{'twice':>7}"
    f"{'pairs':>7}"
)


def line(row: Row) -> str:
    """One line of the table."""
    case = row.case
    head = (
        f"{case.scatter.name:<24}{case.budget_s:>5.0f} s{case.launch_s:>5.0f} s"
        f" {case.rule:<5}{case.way:<6}"
    )
    if row.tolerance is None:
        return f"{head}{'none':>12}   decides nothing: too few pairs, or too much scatter"
    tolerance = f"{row.how} {row.tolerance:.1%}".strip()
    found = "".join(f"{row.found[name]:>7.0%}" for name in ("5 %", "10 %", "twice"))
    return (
        f"{head}{tolerance:>12}{row.best:>7.1%}{row.covers:>8.1%}{row.false_nights:>13.2%}"
        f"{row.undecided:>10.1%}{found}{row.pairs:>7.1f}"
    )


def cases(scatter: Scatter, budget_s: float, launch_s: float, nights: int, seed: int) -> list[Row]:
    """A fixed tolerance by both rules, the old rule's smallest, and what the budget decides."""

    def case(rule: str, way: Way = "alone") -> Case:
        return Case(scatter, budget_s, launch_s, way, rule)

    old = case("old")
    asked: list[tuple[Case, float | None, str]] = []
    if scatter.recorded is None:
        asked += [(old, 0.02, ""), (case("new"), 0.02, "")]
    asked.append((old, smallest_decided(old, seed), "today"))
    ways: list[Way] = ["alone"] if scatter.in_turn is None else ["alone", "turn"]
    for way in ways:
        new = case("new", way)
        asked.append((new, decidable(seen_scatter(new.history(seed)), new.shape), "auto"))
    clean = clean_nights(asked, nights, seed)
    return [simulate(*one, clean[place], seed) for place, one in enumerate(asked)]


@dataclass
class Clean:
    """What became of clean nights: arrays of a chunk each, [cells]."""

    regressed: list[Truths] = field(default_factory=list)
    undecided: list[Truths] = field(default_factory=list)
    pairs: list[Array] = field(default_factory=list)


def clean_nights(
    asked: Sequence[tuple[Case, float | None, str]], nights: int, seed: int
) -> list[Clean]:
    """Judge the same clean nights by each case."""
    random = np.random.default_rng(seed)
    found = [Clean() for _ in asked]
    for start in range(0, nights * CELLS, CHUNK):
        drawn: dict[Way, Sittings] = {}
        for (case, tolerance, _), clean in zip(asked, found, strict=True):
            if tolerance is None:
                continue
            if case.way not in drawn:
                drawn[case.way] = case.sittings(random, min(CHUNK, nights * CELLS - start))
            judged = case.judged(drawn[case.way], tolerance)
            clean.regressed.append(judged.regressed)
            clean.undecided.append(judged.undecided)
            clean.pairs.append(judged.pairs)
    return found


def smallest_decided(case: Case, seed: int) -> float | None:
    """Smallest tolerance that a rule decides, by its own simulation; None: none below 45 %."""

    def decides(tolerance: float) -> bool:
        random = np.random.default_rng(seed + 2)
        clean = case.judged(case.sittings(random, SEARCHED), tolerance)
        lossy = case.judged(case.sittings(random, SEARCHED, 2 * tolerance), tolerance)
        passes = 1 - float((clean.undecided | clean.regressed).mean())
        return passes >= 1 - UNDECIDED and float(lossy.first_metric.mean()) >= FOUND

    low, high = 0, 450  # thousandths
    if not decides(high / 1000):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decides(middle / 1000) else (middle, high)
    return high / 1000


def simulate(case: Case, tolerance: float | None, how: str, clean: Clean, seed: int) -> Row:
    """Count what one rule makes of clean nights, and of one lossy cell a night."""
    best, covers = _best(case), case.covers(seed)
    if tolerance is None:
        return Row(case, None, how, best, covers)
    random = np.random.default_rng(seed + 4)
    false = np.concatenate(clean.regressed).reshape(-1, CELLS).any(axis=1).mean()
    losses = {"5 %": 0.05, "10 %": 0.10, "twice": min(2 * tolerance, 0.95)}
    found = {
        name: float(case.judged(case.sittings(random, CHUNK, loss), tolerance).first_metric.mean())
        for name, loss in losses.items()
    }
    return Row(
        case,
        tolerance,
        how,
        best,
        covers,
        float(false),
        float(np.concatenate(clean.undecided).mean()),
        found,
        float(np.concatenate(clean.pairs).mean()),
    )


def _best(case: Case) -> float:
    """Tolerance that a test with known scatter decides with all metrics in 95 % of the cells."""
    pairs = pairs_in(case.budget_s, case.launch_s)
    each = 0.95 ** (1 / METRICS)
    factor = float(stats.norm.isf(0.025) + stats.norm.ppf(each))
    return -math.expm1(-factor * case.scatter.sigma * math.sqrt(2 / pairs))


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


def recorded(folder: Path) -> list[Scatter]:
    """Read the recordings of a folder; none where there is none."""
    found = []
    for path in sorted(folder.glob("windows-*.json")):
        for name, ways in read(path).items():
            alone, turn = ways["alone"], ways["turn"]
            logs = np.array([x for n, pair in enumerate(alone) for x in _launches(n, pair)])
            # What pairs see: half the variance of the difference between neighbours.
            sigma = float(np.sqrt(np.mean(np.diff(logs) ** 2) / 2))
            even = turn[: len(turn) // 2 * 2]  # whole rounds, so that the lead alternates
            pairs = np.array([pair.log("turn") for pair in even])
            cost = statistics.median(p.cost_s for p in turn)
            cost /= statistics.median(p.cost_s for p in alone)
            each = len(turn[0].candidate)
            found.append(Scatter(f"{name} {sigma:.1%}", sigma, logs, pairs, each, cost))
    if not found:
        print(f"no recording in {folder}: the model of scatter alone", file=sys.stderr)
    return found


def _launches(number: int, pair: Pair) -> list[float]:
    """Logarithms of the medians of a pair's launches, in the order in which they ran."""
    logs = [math.log(statistics.median(side)) for side in (pair.candidate, pair.baseline)]
    return logs if number % 2 == 0 else logs[::-1]


if __name__ == "__main__":
    sys.exit(main())
