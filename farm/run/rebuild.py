"""The report of a run that has none: killed, or still at work. Made from its journal alone."""

from __future__ import annotations

import contextlib
import json
import logging
from pathlib import Path
from typing import Any

from farm import codec, paths
from farm.core.device import Incident
from farm.core.errors import ConfigError
from farm.core.flow.second import sittings
from farm.core.report import RunFacts
from farm.core.result import FarmReport, Report
from farm.reports.json import load_report
from farm.run import ending, run_folder
from farm.run.baselines import find_baseline
from farm.run.export_log import ExportLog
from farm.run.halt import Halt
from farm.run.journal import Journal
from farm.run.measured import attempts_in
from farm.run.opening import EPOCH, FARM, HOST, REPORTED, RUN_ID, STARTED, alarms_of, saved_of
from farm.run.run_lock import is_locked, owner

log = logging.getLogger(__name__)


def report_of(folder: Path, home: Path) -> Report:
    """Return the report of a run; where its last part left none, from the journal.

    The rebuilt one is written to the folder, with events.jsonl, unless a process works there.

    Raises:
        ConfigError: The folder holds neither a report nor a journal that can be read.
        StoreError: The journal's plan is damaged.
    """
    written = folder / run_folder.REPORT
    if not (folder / run_folder.JOURNAL).exists():
        return load_report(written)
    try:
        journal = Journal(folder / run_folder.JOURNAL, read_only=True)
    except ConfigError:
        if written.exists():  # a run of an older farm
            return load_report(written)
        raise
    with contextlib.closing(journal):
        if written.exists() and journal.get(REPORTED) == journal.get(EPOCH):
            return load_report(written)
        report = _rebuilt(journal, folder, home)
        if not is_locked(folder):
            for fault in ending.write(report, folder, journal):
                log.warning("%s", fault)
        return report


def _rebuilt(journal: Journal, folder: Path, home: Path) -> Report:
    saved = saved_of(journal, folder)
    prepared, events = saved.prepared, list(journal.events())
    measured = journal.measured()
    if is_locked(folder):
        halt = Halt("not_ended", f"not ended: {owner(folder)} works on this run")
    else:
        again = f"`farm run --resume {folder}` goes on with it"
        halt = Halt("not_ended", f"not ended: the run was killed before this cell ended; {again}")
    exports = ExportLog()
    exports.restore(events, prepared.plan.artifacts)
    recorded = journal.cells()
    results = ending.complete(prepared, recorded, halt, attempts_in(events))
    name = saved.asked["baseline"]
    baseline = find_baseline(paths.baselines(home), name) if name else None
    if baseline is not None and baseline.report.run_id != saved.baseline_run:
        baseline = None
    alarms = [f"rebuilt from the journal: {halt.reason}", *alarms_of(journal)]
    if name and baseline is None:
        alarms.append(f"nothing was compared with baseline {name}: it is not what it was")
    if measured:
        alarms.append(f"measured, not compared yet: {', '.join(measured)}")
    today = ending.today(baseline)
    against = ending.against(prepared, baseline, {}, {})
    report = ending.report(
        prepared,
        ending.judged(prepared, results, against, sittings(recorded), halt, today),
        exports,
        RunFacts(
            run_id=journal.get(RUN_ID) or folder.name,
            started_at=journal.get(STARTED) or "",
            ended_at=max((event["at"] for event in events), default=""),
            wall_s=0.0,
            interrupted=False,
            config=saved.config,
            host=json.loads(journal.get(HOST) or "{}"),
            farm=codec.from_json(FarmReport, journal.get(FARM) or "{}"),
            busy_s={},
            incidents=tuple(_incidents(events)),
        ),
        today,
        halted=True,
    )
    damage = [f"the journal: {what}" for what in journal.damaged]
    return ending.with_alarms(report, [*alarms, *damage])


def _incidents(events: list[dict[str, Any]]) -> list[Incident]:
    found = []
    for event in events:
        if event["kind"] == "quarantined":
            found.append(Incident(event["device"], event["at"], "quarantine", event["reason"]))
        elif event["kind"] == "DeviceRecovery":
            text = f"{event['step']}: {event['detail']}"
            found.append(Incident(event["device"], event["at"], "recovery", text))
    return found
