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

from farm import paths
from farm.clock import utc_now
from farm.cluster import start as cluster_start
from farm.core.errors import ConfigError
from farm.core.events import JobFinished
from farm.core.flow.flow import RunFlow
from farm.core.report import RunFacts, build_report
from farm.core.result import CellResult, Report
from farm.core.rules import verdict
from farm.core.rules.waivers import apply_waivers, waiver_alarms
from farm.core.runtime import BaselineArm
from farm.core.view import RunEnded, RunStarted, ViewEvent
from farm.host.facts import farm_report, host_facts
from farm.judge.night import Against, compare_run
from farm.judge.unchanged import Past
from farm.planning import runners
from farm.planning.planning import Loaded, Prepared, RunOptions, load_checked, plan_data, prepare
from farm.reports import renderers
from farm.run import baselines, run_folder
from farm.run.controller import Controller
from farm.run.device_health import Care
from farm.run.export_log import ExportLog
from farm.run.journal import Journal
from farm.state.health_book import HealthBook
from farm.state.history import History
from farm.store.actions import ActionCache
from farm.store.objects import ContentStore

Emit = Callable[[ViewEvent], None]

#: Reports that every run writes, by renderer name.
REPORT_FILES = {
    "json": run_folder.REPORT,
    "markdown": "report.md",
    "junit": "junit.xml",
    "html": "report.html",
}


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that ended, however it ended."""

    report: Report
    folder: Path


def run_config(options: RunOptions, home: Path, emit: Emit) -> Finished:
    """Run a config to its end, or to an interruption, and write its reports.

    Raises:
        FarmError: It could not begin, or its results could not be recorded.
    """
    loaded = load_checked(options, home)
    baseline = _baseline(options, home)
    cluster_start.launch(options.cluster)
    with ContentStore(paths.store_root(home)).in_use(f"farm run {options.config.name}"):
        return asyncio.run(_run(options, loaded, home, emit, baseline))


def _baseline(options: RunOptions, home: Path) -> baselines.Baseline | None:
    if options.baseline is None:
        return None
    found = baselines.find_baseline(paths.baselines(home), options.baseline)
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
    baseline: baselines.Baseline | None,
) -> Finished:
    started, clock = utc_now(), time.monotonic()
    runtime = await cluster_start.start(options.cluster, home)
    try:
        prepared = await prepare(loaded, runtime, home, recover=True)
        folder, journal, run_id, epoch, finished = _open_folder(options, prepared, started)
        history = History(paths.history_db(home))
        try:
            store = ContentStore(paths.store_root(home))
            runners.keep_files(prepared.catalog.runners.values(), store)
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
            care = Care(HealthBook(paths.quarantine_file(home)), prepared.plan.devices)
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
                _judged(
                    prepared, flow.results, baseline, unpaired, history.same_bytes(flow.results)
                ),
                exports,
                RunFacts(
                    run_id=run_id,
                    started_at=journal.get("started_at") or started,
                    ended_at=utc_now(),
                    wall_s=time.monotonic() - clock,
                    interrupted=bool(interrupted),
                    config=prepared.config,
                    host=host_facts(),
                    farm=farm_report(),
                    busy_s=controller.busy_s,
                    incidents=tuple(care.incidents),
                    dropped=flow.dropped,
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
        journal = Journal(folder / run_folder.JOURNAL, resume=True)
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
    run_id = run_folder.new_run_id(prepared.spec.name, datetime.datetime.now(datetime.UTC))
    folder = run_folder.create(options.out.resolve(), run_id)
    journal = Journal(folder / run_folder.JOURNAL)
    for key, value in (
        ("run_id", run_id),
        ("config_sha256", prepared.spec.sha256),
        ("started_at", started),
        ("epoch", "1"),
    ):
        journal.set(key, value)
    run_folder.write_json(folder / run_folder.PLAN, plan_data(prepared))
    run_folder.point_latest(folder)
    return folder, journal, run_id, 1, {}


def _arms(
    prepared: Prepared, baseline: baselines.Baseline | None, store: ContentStore
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
        found = baselines.find_arm(
            cells[cell.cell_id],
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
    baseline: baselines.Baseline | None,
    unpaired: Mapping[str, str],
    past: Mapping[str, Past],
) -> list[CellResult]:
    """Compare with the baseline, apply waivers, and put results in the plan's order."""
    order = [
        *(cell.cell_id for cell in prepared.plan.cells),
        *(skip.cell.cell_id for skip in prepared.plan.skips),
    ]
    judged = [results[cell_id] for cell_id in order]
    if baseline is not None:
        against = Against(
            baseline.report.run_id, baseline.cells, prepared.spec.regress, unpaired, past
        )
        judged = compare_run(judged, against)
    if baseline is not None or verdict.gates_speed(prepared.spec.gates):
        judged = [verdict.with_speed_gate(result) for result in judged]
    return [apply_waivers(result, prepared.spec.waivers, _today()) for result in judged]


def _today() -> datetime.date:
    return datetime.datetime.now(datetime.UTC).date()


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
        waiver_alarms(results, prepared.spec.waivers, _today()),
    )


def _write(report: Report, folder: Path, journal: Journal) -> None:
    for name, file in REPORT_FILES.items():
        run_folder.write_text(folder / file, renderers.render(report, name))
    run_folder.write_lines(folder / "events.jsonl", journal.events())


def _log_keeper(folder: Path, home: Path) -> Callable[[JobFinished], None]:
    store = ContentStore(paths.store_root(home))

    def keep(event: JobFinished) -> None:
        logs = [(ref, store.path(ref)) for ref in event.logs if store.has(ref.sha256)]
        run_folder.keep_logs(folder, event.job_id, event.attempt, logs)

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
