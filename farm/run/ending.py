"""The end of a run: its results in the plan's order, its report, and the files of both."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from farm.core.errors import FarmError, StoreError
from farm.core.flow import outcomes
from farm.core.report import RunFacts, build_report
from farm.core.result import AttemptReport, CellResult, Report
from farm.core.rules import verdict
from farm.core.rules.family import second_sittings
from farm.core.rules.tolerance import speed_tolerance
from farm.core.rules.waivers import apply_waivers, waiver_alarms
from farm.judge.night import Against, compare_run
from farm.judge.unchanged import Past
from farm.planning.planning import Prepared
from farm.reports import renderers
from farm.run import run_folder
from farm.run.baselines import Baseline
from farm.run.export_log import ExportLog
from farm.run.halt import Halt
from farm.run.journal import Journal

log = logging.getLogger(__name__)

#: Reports that every run writes, by renderer name.
REPORT_FILES = {
    "json": run_folder.REPORT,
    "markdown": "report.md",
    "junit": "junit.xml",
    "html": "report.html",
}
EVENTS = "events.jsonl"


def complete(
    prepared: Prepared,
    results: Mapping[str, CellResult],
    halt: Halt | None,
    attempts: Mapping[str, tuple[AttemptReport, ...]],
) -> list[CellResult]:
    """Return one result for each planned cell; those without one are errored, with the reason.

    Args:
        prepared: The plan.
        results: By cell id, those that there are.
        halt: Why others are missing; None where none may be.
        attempts: What is known of the attempts of cells without a result.
    """
    devices = {device.name: device for device in prepared.plan.devices}
    found = []
    for cell in prepared.plan.cells:
        if cell.cell_id not in results and halt is not None:
            device = devices[cell.devices[0]]
            if len(cell.devices) > 1:
                entry = replace(device.entry, name=cell.place)
                device = replace(device, entry=entry, facts=None)
            found.append(
                outcomes.errored(
                    cell,
                    device,
                    FarmError(halt.reason),
                    halt.flag,
                    attempts=attempts.get(cell.cell_id, ()),
                )
            )
        else:
            found.append(results[cell.cell_id])
    for skip in prepared.plan.skips:
        known = results.get(skip.cell.cell_id)
        device = devices[skip.cell.devices[0]]
        found.append(known or outcomes.skipped(skip.cell, device, skip.flag, skip.reason))
    return found


def against(
    prepared: Prepared,
    baseline: Baseline | None,
    unpaired: Mapping[str, str],
    past: Mapping[str, Past],
) -> Against | None:
    """Return what a run is compared with; None without a baseline.

    Args:
        prepared: The plan.
        baseline: What `--baseline` named.
        unpaired: Why the baseline's artifact could not run beside a cell, by cell id.
        past: What the same bytes gave in earlier nights, by cell id.
    """
    if baseline is None:
        return None
    spec = prepared.spec
    speeds = None
    if spec.regress_auto:
        speeds = {
            cell.cell_id: {d.metric: speed_tolerance(spec, cell, d.metric) for d in cell.decides}
            for cell in prepared.plan.cells
        }
    return Against(baseline.report.run_id, baseline.cells, spec.regress, unpaired, past, speeds)


def judged(
    prepared: Prepared,
    results: Sequence[CellResult],
    against: Against | None,
    seconds: Mapping[str, CellResult],
    halt: Halt | None,
    today: datetime.date,
) -> list[CellResult]:
    """Compare with the baseline and apply waivers.

    Args:
        prepared: The plan.
        results: One for each planned cell.
        against: The baseline; None without one.
        seconds: Second sittings by the id of their cell.
        halt: Why there may be fewer of those than were wanted.
        today: By which waivers expire.
    """
    found = list(results)
    if against is not None:
        why = () if halt is None else (halt.reason,)
        found = compare_run(results, against, seconds, *why)
    if against is not None or verdict.gates_speed(prepared.spec.gates):
        found = [verdict.with_speed_gate(result) for result in found]
    if prepared.spec.require.speed:
        found = [verdict.speed_required(result) for result in found]
    return [apply_waivers(result, prepared.spec.waivers, today) for result in found]


def suspicious(
    prepared: Prepared,
    results: Mapping[str, CellResult],
    baseline: Baseline | None,
    unpaired: Mapping[str, str],
) -> tuple[str, ...]:
    """Name the cells whose first look at all of them leaves something open, most suspicious first.

    Args:
        prepared: The plan.
        results: One for each planned cell, by its id.
        baseline: What `--baseline` named.
        unpaired: Why the baseline's artifact could not run beside a cell, by cell id.
    """
    held_against = against(prepared, baseline, unpaired, {})
    if held_against is None or baseline is None or baseline.one_look:
        return ()
    first = [results[cell.cell_id] for cell in prepared.plan.cells]
    return second_sittings(compare_run(first, held_against))


def today(baseline: Baseline | None) -> datetime.date:
    """Return the date by which waivers expire: a clock that fell back renews none of them.

    Args:
        baseline: Its run is over, so it is later than that.
    """
    began = "" if baseline is None else baseline.report.started_at
    return max(_now(), datetime.date.fromisoformat(began[:10])) if began else _now()


def _now() -> datetime.date:
    return datetime.datetime.now(datetime.UTC).date()


def report(
    prepared: Prepared,
    results: Sequence[CellResult],
    exports: ExportLog,
    facts: RunFacts,
    today: datetime.date,
    *,
    alarms: Sequence[str] = (),
    halted: bool = False,
) -> Report:
    """Build the report; a run that did not come to its own end never reads as complete."""
    made = build_report(
        prepared.spec,
        prepared.plan,
        facts,
        results,
        exports.reports(prepared.plan.artifacts),
        exports.versions(),
        waiver_alarms(results, prepared.spec.waivers, today),
    )
    if halted:
        made = verdict.unproven(made, "the run did not come to its end")
    if (now := _now()) < today:
        alarms = [*alarms, f"this host's clock says {now}, its baseline is of {today}: set it"]
    return with_alarms(made, alarms)


def with_alarms(made: Report, alarms: Sequence[str]) -> Report:
    """Return a report with more alarms, each once."""
    return replace(made, alarms=tuple(dict.fromkeys((*made.alarms, *alarms))))


def write(made: Report, folder: Path, journal: Journal) -> list[str]:
    """Write every report and events.jsonl; returns what could not be written, each named."""
    return [*_write_reports(made, folder), *_write_events(folder, journal)]


def rewrite(made: Report, folder: Path) -> None:
    """Write the reports again, for an alarm that came late."""
    for fault in _write_reports(made, folder):
        log.error("%s", fault)


def _write_reports(made: Report, folder: Path) -> Iterator[str]:
    for name, file in REPORT_FILES.items():
        try:
            run_folder.write_text(folder / file, renderers.render(made, name))
        except StoreError as error:
            yield error.message


def _write_events(folder: Path, journal: Journal) -> Iterator[str]:
    try:
        run_folder.write_lines(folder / EVENTS, journal.events())
    except StoreError as error:
        yield error.message
