"""Sentences about what several nights show, and about decoding without a pause."""

from __future__ import annotations

from farm.core.nights import LevelChange, SelfCheck, SelfChecked
from farm.core.printable import one_line
from farm.core.result import CellResult, Report
from farm.core.sustained import Sustained
from farm.reports.words import number


def changes(result: CellResult) -> list[str]:
    """Say where a cell's metrics moved to another level, and since when it fails."""
    found = [_change(one) for one in result.changes]
    if result.red_since:
        found.append(f"fails since run {one_line(result.red_since)}")
    return found


def _change(one: LevelChange) -> str:
    moved = f"{one.after / one.before - 1:+.1%}"
    levels = f"{number(one.before)} to {number(one.after)} {one.unit}"
    return f"{one.metric}: {moved} since run {one_line(one.run_id)} ({levels})"


def sustained(found: Sustained) -> str:
    """Say how a device did without a pause."""
    if found.first_tok_s is None or found.steady_tok_s is None:
        return f"without a pause: no number: {one_line(found.reason, 200)}"
    parts = [
        f"{found.metric} without a pause for {found.seconds:.0f} s: {number(found.first_tok_s)}"
        f" tok/s in the first {found.first_s:.0f} s, {number(found.steady_tok_s)} in the last third"
        f" ({'settled' if found.settled else 'not settled yet'})"
    ]
    if found.throttled_after_s is None:
        parts.append("never slowed by a tenth")
    else:
        parts.append(f"slowed by a tenth after {found.throttled_after_s:.0f} s")
    if found.j_per_token is None:
        parts.append(f"energy unsupported: {one_line(found.energy_source, 200)}")
    else:
        parts.append(f"{number(found.j_per_token)} J per token")
    fired = [
        f"{name} {one_line(seen, 200)}"
        for name, seen in found.guards.items()
        if seen.startswith("flagged")
    ]
    return "; ".join([*parts, *fired])


def self_check(report: Report) -> list[str]:
    """Say what the gate was tried on tonight, and how often it was right in its last nights."""
    if report.self_check is None:
        return []
    return [rates(report.self_check), *(_tonight(one) for one in report.self_check.tonight)]


def rates(found: SelfCheck) -> str:
    """Say how often the gate was wrong."""
    return (
        f"self-check of the last {found.nights} nights: {found.false_regressed} of {found.same}"
        f" unchanged cells were REGRESSED, {found.missed} of {found.slower} planted slowdowns were"
        " not found"
    )


def _tonight(one: SelfChecked) -> str:
    what = "against itself" if one.kind == "same" else "against a planted slower artifact"
    said = one.verdict or "no verdict"
    right = {True: "right", False: "WRONG", None: "not tried"}[one.right]
    why = f": {one_line(one.reason, 300)}" if one.reason else ""
    return f"{one_line(one.cell_id)} {what}: {said}, {right}{why}"
