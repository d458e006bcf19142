"""A run's folder and journal: made anew, or opened to go on with."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from farm import codec
from farm.core.errors import StoreError
from farm.core.result import CellResult
from farm.host.facts import farm_report, host_facts
from farm.planning.planning import Prepared, RunOptions, plan_data
from farm.run import run_folder
from farm.run.journal import Journal
from farm.run.saved_plan import SavedPlan, refuse_other, save
from farm.store import run_bundle

#: Keys of the journal's facts.
PLAN, EPOCH, HOST, FARM, STARTED = "plan", "epoch", "host", "farm", "started_at"
RUN_ID, ALARMS = "run_id", "alarms"
#: The epoch whose reports are in the folder.
REPORTED = "reported"
#: Outcomes that a resume keeps.
_VERDICTS = ("passed", "failed")


@dataclass(frozen=True, slots=True)
class Opened:
    """A run that this process works on."""

    folder: Path
    journal: Journal
    run_id: str
    epoch: int
    started_at: str
    #: Verdicts of earlier epochs, by cell id.
    finished: Mapping[str, CellResult]
    #: What somebody should know of the plan, in every epoch.
    alarms: tuple[str, ...] = ()


def open_new(
    options: RunOptions,
    prepared: Prepared,
    baseline_run: str,
    started: str,
    alarms: Sequence[str] = (),
) -> Opened:
    """Make the folder of a new run, with its plan and alarms about it in the journal.

    Raises:
        StoreError: The folder can't be made or written.
    """
    run_id = run_folder.new_run_id(prepared.spec.name, datetime.datetime.now(datetime.UTC))
    folder = run_folder.create(options.out.resolve(), run_id)
    journal = Journal(folder / run_folder.JOURNAL)
    try:
        for key, value in (
            (RUN_ID, run_id),
            (STARTED, started),
            (EPOCH, "1"),
            (HOST, codec.to_json(host_facts())),
            (FARM, codec.to_json(farm_report())),
            *(((ALARMS, json.dumps(list(alarms))),) if alarms else ()),
            (PLAN, codec.to_json(save(prepared, options, baseline_run))),
        ):
            journal.set(key, value)
        run_folder.write_json(folder / run_folder.PLAN, plan_data(prepared))
        if not options.against_itself:
            run_folder.point_latest(folder)
    except BaseException:
        journal.close()
        raise
    return Opened(folder, journal, run_id, 1, started, {}, tuple(alarms))


def open_resumed(folder: Path, options: RunOptions) -> Opened:
    """Open a run to go on with: only cells without a verdict run again.

    Raises:
        ConfigError: It was started with other options, or came out of a bundle.
        StoreError: Another process works on it, or its plan is damaged.
    """
    run_bundle.refuse(folder)
    journal = Journal(folder / run_folder.JOURNAL, resume=True)
    try:
        saved = saved_of(journal, folder)
        refuse_other(saved, options, folder)
        cells = journal.cells()
        finished = cells.with_outcome(*_VERDICTS)
        # A damaged result is none: its cell runs again, and the report names the record.
        planned = [*saved.plan.cells, *(skip.cell for skip in saved.plan.skips)]
        journal.reopen({*cells, *(cell.cell_id for cell in planned)} - set(finished))
        epoch = int(journal.get(EPOCH) or "1") + 1
        journal.set(EPOCH, str(epoch))
        run_id, started = journal.get(RUN_ID) or folder.name, journal.get(STARTED) or ""
        alarms = alarms_of(journal)
    except BaseException:
        journal.close()
        raise
    return Opened(folder, journal, run_id, epoch, started, finished, alarms)


def alarms_of(journal: Journal) -> tuple[str, ...]:
    """Return the alarms about the plan of a run; a run of an older farm has none."""
    return tuple(json.loads(journal.get(ALARMS) or "[]"))


def saved_of(journal: Journal, folder: Path) -> SavedPlan:
    """Return the plan of a run.

    Raises:
        StoreError: It was ended before it had one, or the plan is damaged.
    """
    text = journal.get(PLAN)
    if text is None:
        raise StoreError(f"{folder}: ended before its plan was made; start a new run")
    return codec.from_json(SavedPlan, text)
