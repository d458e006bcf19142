"""`farm compare`: two runs side by side, cell by cell. Numbers of two sittings are never judged."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from farm.core.result import CellResult, PerformanceReport, Report, StageComparison
from farm.judge.comparable import differences, way_of_measuring

_PERPLEXITY, _PEAK = "perplexity", "peak_rss_bytes"
_NO_NUMBER = "a run has no trusted number of it"


@dataclass(frozen=True, slots=True)
class Pair:
    """One metric of one cell in two runs; None where a run has no such number."""

    metric: str
    before: float | None
    after: float | None
    #: Why the two can't be compared; empty where they can.
    why: str = ""

    @property
    def ratio(self) -> float | None:
        """After / before; None where they can't be compared."""
        if self.why or not self.before or not self.after:
            return None
        return self.after / self.before


@dataclass(frozen=True, slots=True)
class Compared:
    """One cell in two runs."""

    cell_id: str
    #: Outcomes; empty where a run has no such cell.
    before: str
    after: str
    #: What differs between the two besides the numbers.
    differs: tuple[str, ...]
    pairs: tuple[Pair, ...]
    #: Other cells that it changes places with; see `changed_places`.
    places: tuple[str, ...] = ()


def compare(before: Report, after: Report) -> list[Compared]:
    """Return every cell of either run, in the order of the later one."""
    old = {result.cell_id: result for result in before.results}
    new = {result.cell_id: result for result in after.results}
    places = changed_places(before, after)
    texts = _text(before), _text(after)
    return [
        replace(
            _compared(name, old.get(name), new.get(name), texts),
            places=tuple(line for line in places if name in line),
        )
        for name in dict.fromkeys([*new, *old])
    ]


def refused(cells: Sequence[Compared]) -> list[str]:
    """Say of each cell of both runs why nothing, or not everything, of it can be compared."""
    found = []
    for cell in cells:
        reasons = dict.fromkeys(pair.why for pair in cell.pairs if pair.why)
        for why in reasons:
            names = ", ".join(pair.metric for pair in cell.pairs if pair.why == why)
            found.append(f"{cell.cell_id}: {names}: not compared: {why}")
    return found


def changed_places(*reports: Report) -> list[str]:
    """Say which cells change places between the first minute and the end of decoding on and on.

    Cells of one model, of one run or of several: devices, recipes, runners.
    """
    cells = {
        (report.run_id, result.cell_id): (
            _label(result, report, reports),
            result.model,
            result.sustained,
        )
        for report in reports
        for result in report.results
        if result.sustained is not None
    }
    found = []
    for (one, model, a), (other, its_model, b) in itertools.combinations(cells.values(), 2):
        rates = (a.first_tok_s, b.first_tok_s, a.steady_tok_s, b.steady_tok_s)
        if model != its_model or None in rates:
            continue
        first_a, first_b, steady_a, steady_b = (rate or 0.0 for rate in rates)
        if (first_a - first_b) * (steady_a - steady_b) < 0:
            ahead, behind = (one, other) if first_a > first_b else (other, one)
            firsts = sorted((first_a, first_b), reverse=True)
            lasts = sorted((steady_a, steady_b), reverse=True)
            found.append(
                f"{ahead} is ahead of {behind} in the first minute ({firsts[0]:.4g} to"
                f" {firsts[1]:.4g} tok/s), {behind} is ahead in the end ({lasts[0]:.4g} to"
                f" {lasts[1]:.4g})"
            )
    return found


def _label(result: CellResult, report: Report, reports: Sequence[Report]) -> str:
    runs = {one.run_id for one in reports if any(r.cell_id == result.cell_id for r in one.results)}
    several = len(runs) > 1
    return f"{result.cell_id} of {report.run_id}" if several else result.cell_id


def _text(report: Report) -> str:
    """The text that a run's perplexity is over; the config says what it takes without one."""
    asked = report.config.get("correctness") or {}
    return str(asked.get("text", "builtin"))


def _compared(
    name: str, old: CellResult | None, new: CellResult | None, texts: tuple[str, str]
) -> Compared:
    then, now = _numbers(old), _numbers(new)
    metrics = dict.fromkeys([*then, *now])
    return Compared(
        name,
        before="" if old is None else old.outcome,
        after="" if new is None else new.outcome,
        differs=() if old is None or new is None else _differs(old, new),
        pairs=tuple(
            Pair(
                metric,
                then.get(metric),
                now.get(metric),
                _why_not(metric, old, new, texts)
                or ("" if metric in then and metric in now else _NO_NUMBER),
            )
            for metric in metrics
        ),
    )


def _why_not(
    metric: str, old: CellResult | None, new: CellResult | None, texts: tuple[str, str]
) -> str:
    """Say why a number of two cells can't be compared; empty where it can."""
    if old is None or new is None:
        return "a run has no such cell"
    if metric == _PERPLEXITY:
        if texts[0] != texts[1]:
            return f"correctness.text is {texts[1]}, was {texts[0]}"
        now, then = (_device_stage(result) for result in (new, old))
        if now is None or then is None or now.tokens == then.tokens:
            return ""
        return f"{now.tokens} tokens, was {then.tokens}"
    if found := differences(new, old, same_lease=False):
        return "; ".join(found)
    now_row, then_row = _warm(new, metric), _warm(old, metric)
    if metric == _PEAK or now_row is None or then_row is None:
        return ""
    return way_of_measuring(now_row, then_row)


def _warm(result: CellResult, metric: str) -> PerformanceReport | None:
    found = (row for row in result.performance if (row.metric, row.regime) == (metric, "warm"))
    return next(found, None)


def _device_stage(result: CellResult) -> StageComparison | None:
    stages = result.correctness.stages if result.correctness else ()
    found = (s for s in stages if (s.to, s.path) == ("device_pte", "decode"))
    return next((stage for stage in found if stage.perplexity_to is not None), None)


def _numbers(result: CellResult | None) -> dict[str, float]:
    """Warm medians that can be trusted, the perplexity on the device, and the peak memory."""
    if result is None:
        return {}
    found = {
        row.metric: row.median
        for row in result.performance
        if row.regime == "warm" and row.median is not None and row.trust != "invalid"
    }
    stage = _device_stage(result)
    if stage is not None and stage.perplexity_to is not None:
        found[_PERPLEXITY] = stage.perplexity_to
    if result.memory.peak_rss_bytes is not None:
        found[_PEAK] = float(result.memory.peak_rss_bytes)
    return found


def _differs(old: CellResult, new: CellResult) -> tuple[str, ...]:
    parts = (
        ("artifact", (old.artifact.sha256 or "")[:12], (new.artifact.sha256 or "")[:12]),
        ("runner", (old.runner.sha256 or "")[:12], (new.runner.sha256 or "")[:12]),
        ("device", old.device.identity, new.device.identity),
        ("OS build", old.device.os_build, new.device.os_build),
    )
    return tuple(f"{what} {then} -> {now}" for what, then, now in parts if then != now)
