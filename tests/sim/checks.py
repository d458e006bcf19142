"""What must be so after a history, whatever happened in it."""

from __future__ import annotations

import contextlib
import json
import re
from typing import TYPE_CHECKING

from farm.core.result import CellResult
from farm.run.journal import Journal
from tests.sim import faults
from tests.sim.runs import SimRun
from tests.sim.world import Violation

if TYPE_CHECKING:
    from tests.sim.history import History

_DROPPED = re.compile(r"job events dropped: (\d+) of (.*)")
_VERDICTS = ("passed", "failed")


def check(history: History) -> None:
    """Check everything.

    Raises:
        Violation: Something is not as it must be.
    """
    for run in history.runs:
        _one_result_a_cell(run)
        _what_was_recorded(run)
        _verdicts_stay(history, run)
        _evidence(history, run)
        _reasons(history, run)
    for device in history.devices:
        if busy := device.busy:
            raise Violation(f"after the last run {busy}")
    for host in history.hosts:
        if host.agent is not None and host.agent._jobs:
            raise Violation(f"{host.name} has jobs for ever: {list(host.agent._jobs)}")


def dropped(run: SimRun) -> dict[str, int]:
    """Events that a run's processes dropped, by reason, as its reports say."""
    found: dict[str, int] = {}
    for report in run.reports.values():
        for alarm in report.alarms:
            if said := _DROPPED.fullmatch(alarm):
                found[said[2]] = found.get(said[2], 0) + int(said[1])
    return found


def _one_result_a_cell(run: SimRun) -> None:
    named = sorted(result.cell_id for result in run.report.results)
    if named != sorted(run.planned):
        raise Violation(f"{run.name}: planned {sorted(run.planned)}, reported {named}")
    written = json.loads((run.folder / "report.json").read_text())["results"]
    if sorted(row["cell_id"] for row in written) != named:
        raise Violation(f"{run.name}: the file of its report has other cells")


def _what_was_recorded(run: SimRun) -> None:
    with contextlib.closing(Journal(run.folder / "journal.db", read_only=True)) as journal:
        recorded = dict(journal.cells())  # it reads while it is open
        events = list(journal.events())
    for result in run.report.results:
        known = recorded.get(result.cell_id)
        if known is not None and known.outcome != result.outcome:
            raise Violation(f"{result.cell_id}: recorded {known.outcome}, told {result.outcome}")
    ends = [(e["epoch"], e["job_id"], e["attempt"]) for e in events if e["kind"] == "JobFinished"]
    if len(ends) != len(set(ends)):
        raise Violation(f"{run.name}: an end was recorded twice: {sorted(ends)}")


def _verdicts_stay(history: History, run: SimRun) -> None:
    """A verdict that was told is not taken back by whoever goes on with the run."""
    told: dict[str, CellResult] = {}
    for report in run.reports.values():
        for result in report.results:
            before = told.get(result.cell_id)
            changed = before is not None and before.pushed_bytes != result.pushed_bytes
            if changed and "flip_journal" not in history.struck:
                raise Violation(f"{result.cell_id}: a verdict that was told became another")
            if result.outcome in _VERDICTS:
                told[result.cell_id] = result


def _evidence(history: History, run: SimRun) -> None:
    """A verdict is made of what this run's device did for this cell, and of nothing else."""
    used: dict[int, str] = {}
    for result in run.report.results:
        if result.outcome not in _VERDICTS:
            continue
        if result.pushed_bytes is None:
            raise Violation(f"{result.cell_id} is {result.outcome} without evidence")
        true = history.truth[result.pushed_bytes - 1]
        if used.setdefault(result.pushed_bytes, result.cell_id) != result.cell_id:
            raise Violation(f"{result.cell_id} has the evidence of {used[result.pushed_bytes]}")
        if (true.run_id, true.cell_id, true.device) != (
            run.folder.name, result.cell_id, result.device.name,
        ):  # fmt: skip
            raise Violation(f"{result.cell_id} of {run.name} is {result.outcome} by {true}")
        if result.outcome != ("passed" if true.good else "failed"):
            raise Violation(f"{result.cell_id} is {result.outcome}, and the device was {true}")


def _reasons(history: History, run: SimRun) -> None:
    """What has no verdict has a reason that happened."""
    weather = history.network.weather  # late ones too: a site that says nothing for 30 s is lost
    may_cost = history.struck & faults.MAY_COST_A_VERDICT or weather.lost or weather.late
    for result in run.report.results:
        if "limits.job_s" in result.reason:
            raise Violation(f"{result.cell_id}: a job was lost: {result.reason}")
        if result.outcome not in _VERDICTS and not may_cost:
            raise Violation(f"{result.cell_id} is {result.outcome}: {result.reason}")
    foreign = dropped(run).get("another run", 0)
    if foreign > history.network.strays:
        raise Violation(f"{run.name} got {foreign} events of another run")
