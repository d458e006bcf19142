"""The composition root: puts config, plan, runtime, flow, journal and reports together.

Returns values and raises FarmError; it prints nothing and knows no terminal.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from farm import baselines as baseline_files
from farm import home as layout
from farm import hostinfo, rundir, runnerspecs
from farm.care import Care
from farm.clock import utc_now
from farm.cluster import start as cluster_start
from farm.controller import Controller
from farm.core.errors import ConfigError
from farm.core.events import JobFinished
from farm.core.flow import RunFlow
from farm.core.report import RunFacts, build_report
from farm.core.result import CellResult, Report
from farm.core.runtime import BaselineArm
from farm.core.view import RunEnded, RunStarted, ViewEvent
from farm.core.waivers import apply_waivers
from farm.exports import ExportLog
from farm.history import History
from farm.journal import Journal
from farm.judge.baseline import compare_with_baseline
from farm.prepare import Loaded, Prepared, RunOptions, load_checked, plan_data, prepare
from farm.quarantine import HealthBook
from farm.reports import renderers
from farm.site.actions import ActionCache
from farm.site.store import ContentStore

Emit = Callable[[ViewEvent], None]

#: Reports that every run writes, by renderer name.
REPORT_FILES = {
    "json": rundir.REPORT,
    "markdown": "report.md",
    "junit": "junit.xml",
    "html": "report.html",
}


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that ended, however it ended."""

    report: Report
    folder: Path


def run(options: RunOptions, home: Path, emit: Emit) -> Finished:
    """Run a config to its end, or to an interruption, and write its reports.

    Raises:
        FarmError: It could not begin, or its results could not be recorded.
    """
    loaded = load_checked(options, home)
    baseline = _baseline(options, home)
    cluster_start.launch(options.cluster)
    with ContentStore(layout.store_root(home)).in_use(f"farm run {options.config.name}"):
        return asyncio.run(_run(options, loaded, home, emit, baseline))


def _baseline(options: RunOptions, home: Path) -> baseline_files.Baseline | None:
    if options.baseline is None:
        return None
    found = baseline_files.find_baseline(layout.baselines(home), options.baseline)
    if found is None:
        raise ConfigError(
            f"no baseline {options.baseline!r}; `farm baseline list` shows those that exist,"
            " `farm baseline set RUN NAME` makes one"
        )
    return found


async def _run(
    options: RunOptions,
    loaded: Loaded,
    home: Path,
    emit: Emit,
    baseline: baseline_files.Baseline | None,
) -> Finished:
    started, clock = utc_now(), time.monotonic()
    runtime = await cluster_start.start(options.cluster, home)
    try:
        prepared = await prepare(loaded, runtime, home, recover=True)
        folder, journal, run_id, epoch, finished = _open_folder(options, prepared, started)
        history = History(layout.history_db(home))
        try:
            store = ContentStore(layout.store_root(home))
            runnerspecs.keep_files(prepared.catalog.runners.values(), store)
            arms, unpaired = _arms(prepared, baseline, store)
            flow = RunFlow(
                prepared.spec,
                prepared.plan,
                prepared.catalog,
                run_id=run_id,
                epoch=epoch,
                finished=finished,
                baselines=arms,
            )
            cells = [*prepared.plan.cells, *(skip.cell for skip in prepared.plan.skips)]
            emit(
                RunStarted(
                    run_id,
                    prepared.spec.name,
                    tuple((cell.cell_id, cell.place) for cell in cells),
                    str(folder),
                )
            )
            exports = ExportLog()
            care = Care(HealthBook(layout.quarantine_file(home)), prepared.plan.devices)
            controller = Controller(
                flow,
                pool=runtime.pool,
                sites=runtime.sites,
                journal=journal,
                emit=emit,
                on_finished=_log_keeper(folder, home),
                on_task=exports.note,
                estimates=history.durations_s(),
                store_home=str(home),
                care=care,
            )
            with _interrupts(controller) as interrupted:
                await controller.run()
            report = _report(
                replace(prepared, plan=replace(prepared.plan, devices=flow.devices)),
                _judged(prepared, flow.results, baseline, unpaired),
                exports,
                RunFacts(
                    run_id=run_id,
                    started_at=journal.get("started_at") or started,
                    ended_at=utc_now(),
                    wall_s=time.monotonic() - clock,
                    interrupted=bool(interrupted),
                    config=prepared.config,
                    host=hostinfo.host_facts(),
                    farm=hostinfo.farm_report(),
                    busy_s=controller.busy_s,
                    incidents=tuple(care.incidents),
                ),
            )
            _write(report, folder, journal)
            history.add(report, folder, controller.durations_s)
        finally:
            history.close()
            journal.close()
    finally:
        await runtime.close()
    emit(RunEnded(report.verdict_line, report.exit_code))
    return Finished(report, folder)


def _open_folder(
    options: RunOptions, prepared: Prepared, started: str
) -> tuple[Path, Journal, str, int, dict[str, CellResult]]:
    """Make the run folder, or open one to go on with: only unjudged cells run again."""
    if options.resume is not None:
        folder = options.resume
        journal = Journal(folder / rundir.JOURNAL, resume=True)
        if journal.get("config_sha256") != prepared.spec.sha256:
            raise ConfigError(
                f"{folder}: was started with another config than {options.config}; resume it with"
                " the same file and the same --set, or start a new run"
            )
        kept = {}
        for cell_id, result in journal.cells().items():
            if result.outcome in ("passed", "failed"):
                kept[cell_id] = result
            else:
                journal.reopen_cell(cell_id)
        epoch = int(journal.get("epoch") or "1") + 1
        journal.set("epoch", str(epoch))
        return folder, journal, journal.get("run_id") or folder.name, epoch, kept
    run_id = rundir.new_run_id(prepared.spec.name, datetime.datetime.now(datetime.UTC))
    folder = rundir.create(options.out.resolve(), run_id)
    journal = Journal(folder / rundir.JOURNAL)
    for key, value in (
        ("run_id", run_id),
        ("config_sha256", prepared.spec.sha256),
        ("started_at", started),
        ("epoch", "1"),
    ):
        journal.set(key, value)
    rundir.write_json(folder / rundir.PLAN, plan_data(prepared))
    rundir.point_latest(folder)
    return folder, journal, run_id, 1, {}


def _arms(
    prepared: Prepared, baseline: baseline_files.Baseline | None, store: ContentStore
) -> tuple[dict[str, BaselineArm], dict[str, str]]:
    """What of the baseline can run beside each cell, and why others can't, by cell id."""
    if baseline is None:
        return {}, {}
    cache = ActionCache(store)
    arms, reasons = {}, {}
    cells = baseline.cells
    for cell in prepared.plan.cells:
        if cell.cell_id not in cells:
            continue
        found = baseline_files.find_arm(
            cells[cell.cell_id],
            baseline.report.run_id,
            cache,
            prepared.catalog.recipes[cell.artifact.recipe].program,
        )
        if isinstance(found, str):
            reasons[cell.cell_id] = found
        else:
            arms[cell.cell_id] = found
    return arms, reasons


def _judged(
    prepared: Prepared,
    results: Mapping[str, CellResult],
    baseline: baseline_files.Baseline | None,
    unpaired: Mapping[str, str],
) -> list[CellResult]:
    """Compare with the baseline, apply waivers, and put results in the plan's order."""
    order = [
        *(cell.cell_id for cell in prepared.plan.cells),
        *(skip.cell.cell_id for skip in prepared.plan.skips),
    ]
    judged = [results[cell_id] for cell_id in order]
    if baseline is not None:
        cells = baseline.cells
        judged = [
            compare_with_baseline(
                result,
                cells.get(result.cell_id),
                run_id=baseline.report.run_id,
                regress=prepared.spec.regress,
                unpaired=unpaired.get(result.cell_id, ""),
            )
            for result in judged
        ]
    today = datetime.datetime.now(datetime.UTC).date()
    return [apply_waivers(result, prepared.spec.waivers, today) for result in judged]


def _report(
    prepared: Prepared, results: Sequence[CellResult], exports: ExportLog, facts: RunFacts
) -> Report:
    return build_report(
        prepared.spec,
        prepared.plan,
        facts,
        results,
        exports.reports(prepared.plan.artifacts),
        exports.versions(),
    )


def _write(report: Report, folder: Path, journal: Journal) -> None:
    for name, file in REPORT_FILES.items():
        rundir.write_text(folder / file, renderers.render(report, name))
    rundir.write_lines(folder / "events.jsonl", journal.events())


def _log_keeper(folder: Path, home: Path) -> Callable[[JobFinished], None]:
    store = ContentStore(layout.store_root(home))

    def keep(event: JobFinished) -> None:
        logs = [(ref, store.path(ref)) for ref in event.logs if store.has(ref.sha256)]
        rundir.keep_logs(folder, event.job_id, event.attempt, logs)

    return keep


@contextlib.contextmanager
def _interrupts(controller: Controller) -> Iterator[list[str]]:
    """Turn SIGINT and SIGTERM into an orderly end; yields a list that then isn't empty."""
    loop = asyncio.get_running_loop()
    seen: list[str] = []

    def interrupt(name: str) -> None:
        seen.append(name)
        controller.interrupt()

    signals = {signal.SIGINT: "SIGINT", signal.SIGTERM: "SIGTERM"}
    for number, name in signals.items():
        loop.add_signal_handler(number, interrupt, name)
    try:
        yield seen
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
