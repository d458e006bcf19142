"""`farm compare`: two runs side by side, cell by cell. Numbers of two sittings are never judged."""

from __future__ import annotations

from dataclasses import dataclass

from farm.core.result import CellResult, Report


@dataclass(frozen=True, slots=True)
class Pair:
    """One metric of one cell in two runs; None where a run has no such number."""

    metric: str
    before: float | None
    after: float | None

    @property
    def ratio(self) -> float | None:
        """After / before."""
        return self.after / self.before if self.before and self.after else None


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


def compare(before: Report, after: Report) -> list[Compared]:
    """Return every cell of either run, in the order of the later one."""
    old = {result.cell_id: result for result in before.results}
    new = {result.cell_id: result for result in after.results}
    return [_compared(name, old.get(name), new.get(name)) for name in dict.fromkeys([*new, *old])]


def _compared(name: str, old: CellResult | None, new: CellResult | None) -> Compared:
    then, now = _numbers(old), _numbers(new)
    metrics = dict.fromkeys([*then, *now])
    return Compared(
        name,
        before="" if old is None else old.outcome,
        after="" if new is None else new.outcome,
        differs=() if old is None or new is None else _differs(old, new),
        pairs=tuple(Pair(metric, then.get(metric), now.get(metric)) for metric in metrics),
    )


def _numbers(result: CellResult | None) -> dict[str, float]:
    """Warm medians that can be trusted, the perplexity on the device, and the peak memory."""
    if result is None:
        return {}
    found = {
        row.metric: row.median
        for row in result.performance
        if row.regime == "warm" and row.median is not None and row.trust != "invalid"
    }
    stages = result.correctness.stages if result.correctness else ()
    for stage in stages:
        if (stage.to, stage.path) == ("device_pte", "decode") and stage.perplexity_to is not None:
            found["perplexity"] = stage.perplexity_to
    if result.memory.peak_rss_bytes is not None:
        found["peak_rss_bytes"] = float(result.memory.peak_rss_bytes)
    return found


def _differs(old: CellResult, new: CellResult) -> tuple[str, ...]:
    parts = (
        ("artifact", (old.artifact.sha256 or "")[:12], (new.artifact.sha256 or "")[:12]),
        ("runner", (old.runner.sha256 or "")[:12], (new.runner.sha256 or "")[:12]),
        ("device", old.device.identity, new.device.identity),
        ("OS build", old.device.os_build, new.device.os_build),
    )
    return tuple(f"{what} {then} -> {now}" for what, then, now in parts if then != now)
