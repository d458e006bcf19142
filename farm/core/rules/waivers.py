"""Waivers: known failures that are allowed until a date, shown, and failing once expired.

A rule of correctness holds between two stages of the chain. A waiver without `stage` is for one of
them: where the same rule fails at two, what was known of a recipe would hide a wrong device.

Of the waivers that cover a failure the narrowest one that still holds counts, so an expired entry
doesn't hide its renewal, and a wide one accepts no loss that a narrower one forbids. What is
expired, needed no more, or met no judged cell is an alarm.
"""

from __future__ import annotations

import datetime
import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from farm.core.errors import ConfigError
from farm.core.names import nearest
from farm.core.result import CellResult, GateResult
from farm.core.rules.gates import REGRESS, applies
from farm.core.spec import Waiver

#: In the text of a rule of correctness: `host_pte -> device_pte (decode): ...`.
_STAGE = re.compile(r"-> ([a-z0-9_]+) \((?:decode|prefill)\)")
#: Verdicts of a comparison that decide nothing.
_OPEN = ("INCOMPARABLE", "NOISY", "INSUFFICIENT")


@dataclass(frozen=True, slots=True)
class Failure:
    """One gate that judged a cell wrong or slow."""

    gate: GateResult
    #: Metric of the report that it is about.
    metric: str
    #: Loss against the baseline, 0.1 is 10 %; None where the gate is about no loss.
    loss: float | None = None

    @property
    def stage(self) -> str:
        """Stage that differs from the one before it; empty where the gate compares no stages."""
        found = _STAGE.search(self.gate.text)
        return found[1] if found else ""


def failures(result: CellResult) -> tuple[Failure, ...]:
    """Return every gate that judged the cell wrong or slow, and on which metric."""
    return (*(f for f in _gates(result) if f.gate.passed is False), *_regressions(result))


def failing_gates(result: CellResult) -> tuple[GateResult, ...]:
    """Return every gate that judged the cell wrong or slow."""
    return tuple(failure.gate for failure in failures(result))


def _gates(result: CellResult) -> list[Failure]:
    """Every gate of a cell, whatever it said, and on which metric."""
    right = () if result.correctness is None else result.correctness.gates
    found = [Failure(gate, gate.metric) for gate in (*right, *result.memory.gates)]
    for measured in result.performance:
        found += [Failure(gate, measured.metric) for gate in measured.gates]
    return found


def _undecided(result: CellResult) -> tuple[str, ...]:
    """Name what nobody could decide; a side that failed hides its other gates and metrics."""
    sides = {"correctness": result.correctness_decision, "speed": result.speed_decision}
    found = [side for side, decision in sides.items() if decision == "undecided"]
    found += [one.metric for one in _gates(result) if one.gate.passed is None]
    if (baseline := result.baseline) is not None:
        found += [one.metric for one in baseline.metrics if one.verdict in _OPEN]
        if not baseline.metrics and baseline.verdict in _OPEN:
            found.append(f"baseline {baseline.run_id}")
    return tuple(dict.fromkeys(found))


def _regressions(result: CellResult) -> list[Failure]:
    if result.baseline is None:
        return []
    rates = {p.metric for p in result.performance if p.unit == "tok/s"}
    found = []
    for one in result.baseline.metrics:
        if one.verdict != "REGRESSED":
            continue
        loss = None
        if one.ratio is not None:
            loss = 1 - one.ratio if one.metric in rates else one.ratio - 1
        gate = GateResult(REGRESS, "<=", None, one.ratio, False, one.metric, one.reason)
        found.append(Failure(gate, one.metric, loss))
    return found


def apply_waivers(
    result: CellResult, waivers: Sequence[Waiver], today: datetime.date
) -> CellResult:
    """Waive a failed cell when every failing gate has a waiver that still holds.

    A waiver accepts what failed, and judges nothing: what is undecided stays so.
    """
    if result.outcome != "failed":
        return result
    reasons = []
    stages: dict[Waiver, str] = {}
    for failure in failures(result):
        about = [w for w in waivers if _is_about(w, result, failure)]
        holding = [w for w in about if not _expired(w, today)]
        narrowest = max(map(_narrowness, holding), default=None)
        covering = [w for w in holding if _narrowness(w) == narrowest and _bounds(w, failure)]
        if not covering:
            return _unwaived(result, failure, about, today)
        first = stages.setdefault(covering[0], failure.stage)
        if first != failure.stage:
            note = (
                f"the waiver of {failure.gate.metric} names no stage, and both {first or 'a gate'}"
                f" and {failure.stage or 'a gate'} fail it: give each its own, with `stage`"
            )
            return replace(result, reason=f"{result.reason}; {note}")
        reasons.append(_words(covering[0], failure))
    if not reasons:
        return result
    words = f"waived: {'; '.join(dict.fromkeys(reasons))}"
    if open_ := _undecided(result):
        reason = f"{words}; {' and '.join(open_)} undecided"
        return replace(result, outcome="inconclusive", reason=reason)
    return replace(result, waived=True, reason=words)


def waiver_alarms(
    results: Sequence[CellResult], waivers: Sequence[Waiver], today: datetime.date
) -> tuple[str, ...]:
    """Return what somebody should do about the waivers of a config."""
    found = []
    for waiver in waivers:
        name = f"waiver of {waiver.gate} on {waiver.cells}"
        cells = [r for r in results if fnmatch.fnmatchcase(r.cell_id, waiver.cells)]
        judged = [r for r in cells if r.outcome in ("passed", "failed")]
        needed = [r for r in cells if any(_is_about(waiver, r, f) for f in failures(r))]
        if _expired(waiver, today):
            found.append(f"{name} expired on {waiver.until}: remove it, or renew it with a reason")
        elif needed:
            continue
        elif judged:
            count = f"{len(judged)} cell{'' if len(judged) == 1 else 's'}"
            found.append(f"{name} (until {waiver.until}) is idle: {count} passes again; remove it")
        else:
            found.append(f"{name} (until {waiver.until}) is idle: no cell of it was judged")
    return tuple(found)


def check_cells(waivers: Sequence[Waiver], cell_ids: Sequence[str], source: str) -> None:
    """Refuse waivers whose glob matches no cell of the plan.

    Raises:
        ConfigError: Names file, key and the cell that was most likely meant.
    """
    for index, waiver in enumerate(waivers):
        if any(fnmatch.fnmatchcase(cell_id, waiver.cells) for cell_id in cell_ids):
            continue
        meant = nearest(waiver.cells, cell_ids) or next(iter(cell_ids), None)
        hint = "" if meant is None else f"; a cell is named for example `{meant}`"
        key = f"waivers.{index}.cells"
        raise ConfigError(
            f"{source}: {key}: {waiver.cells!r} matches no cell of the plan{hint}",
            file=source,
            key=key,
        )


def _is_about(waiver: Waiver, result: CellResult, failure: Failure) -> bool:
    return (
        waiver.gate == failure.gate.metric
        and (not waiver.metric or applies(waiver.metric, failure.metric))
        and waiver.stage in ("", failure.stage)
        and fnmatch.fnmatchcase(result.cell_id, waiver.cells)
    )


def _expired(waiver: Waiver, today: datetime.date) -> bool:
    return today > datetime.date.fromisoformat(waiver.until)


def _bounds(waiver: Waiver, failure: Failure) -> bool:
    """Whether the loss is one that was allowed."""
    if waiver.max_loss is None:
        return True
    return failure.loss is not None and failure.loss <= waiver.max_loss


def _narrowness(waiver: Waiver) -> tuple[bool, bool, bool, int]:
    """What of two waivers is narrower: one stage, one metric, a bounded loss, more of the name."""
    literal = sum(character not in "*?[]" for character in waiver.cells)
    return bool(waiver.stage), bool(waiver.metric), waiver.max_loss is not None, literal


def _words(waiver: Waiver, failure: Failure) -> str:
    issue = f" ({waiver.issue})" if waiver.issue else ""
    subject = failure.gate.metric
    if failure.stage:
        subject = f"{subject} at {failure.stage}"
    if failure.metric != failure.gate.metric:
        subject = f"{subject} of {failure.metric}"
    return f"{subject} until {waiver.until}: {waiver.reason}{issue}"


def _unwaived(
    result: CellResult, failure: Failure, about: Sequence[Waiver], today: datetime.date
) -> CellResult:
    """Say why the waivers that are about a failure don't hold."""
    notes = []
    for waiver in about:
        if _expired(waiver, today):
            notes.append(f"the waiver of {waiver.gate} expired on {waiver.until}: {waiver.reason}")
        elif waiver.max_loss is not None:
            loss = "unknown" if failure.loss is None else f"{failure.loss:.1%}"
            notes.append(
                f"the waiver of {waiver.gate} allows {waiver.max_loss:.1%},"
                f" the loss of {failure.metric} is {loss}"
            )
    return replace(result, reason="; ".join([result.reason, *notes])) if notes else result
