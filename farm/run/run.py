"""The composition root: puts config, plan, runtime, flow, journal and reports together.

Returns values and raises FarmError; it prints nothing and knows no terminal.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

from farm import paths
from farm.clock import seconds_since, utc_now
from farm.cluster import start as cluster_start
from farm.cluster.start import Runtime
from farm.core.errors import ConfigError, StoreError
from farm.core.events import JobFinished
from farm.core.flow.flow import RunFlow
from farm.core.flow.lengths import CLOSING, OPENING
from farm.core.flow.results import Results
from farm.core.flow.second import sittings
from farm.core.plan import only
from farm.core.report import RunFacts
from farm.core.result import CellResult, Report
from farm.core.view import Preparing, RunEnded, RunStarted, ViewEvent
from farm.host.facts import farm_report, host_facts
from farm.judge.night import Against
from farm.planning import runners
from farm.planning.ahead import probing
from farm.planning.planning import Prepared, RunOptions, load_checked, prepare
from farm.run import baselines, ending, run_folder
from farm.run.comparing import Comparing, collect_measured, compare_measured
from farm.run.control import ControlServer
from farm.run.controller import Controller
from farm.run.device_health import Care
from farm.run.export_log import ExportLog
from farm.run.halt import Halt
from farm.run.interrupts import interrupts
from farm.run.journal import Journal
from farm.run.measured import attempts_in
from farm.run.opening import REPORTED, Opened, open_new, open_resumed, saved_of
from farm.run.past_runs import PastRuns
from farm.run.saved_plan import look_again
from farm.site.agent.inventory import Seen
from farm.state.health_book import HealthBook
from farm.store import run_bundle
from farm.store.objects import ContentStore

log = logging.getLogger(__name__)

Emit = Callable[[ViewEvent], None]

#: Longest time that an interrupted run goes on comparing what devices have measured, seconds.
COMPARE_S = 1.0


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that ended, however it ended."""

    report: Report
    folder: Path


def run_config(options: RunOptions, home: Path, emit: Emit) -> Finished:
    """Run a config to its end, or to an interruption, and write its reports.

    Raises:
        FarmError: It could not begin.
    """
    started = utc_now()
    run_folder.check_out(options.out)
    loaded = load_checked(options, home)
    baseline = _baseline(options.baseline, home)
    if baseline is not None:
        baseline = replace(baseline, even_if_same=options.against_itself, one_look=options.one_look)
    seen = probing(options.cluster, loaded.inventory, home)
    _launch(options.cluster, emit)
    try:
        before = seen()
    except BaseException:
        cluster_start.forsake(options.cluster)
        raise
    with ContentStore(paths.store_root(home)).in_use(f"farm run {options.config}"):

        def probe(runtime: Runtime) -> Awaitable[Prepared]:
            return prepare(loaded, runtime, home, recover=True)

        return asyncio.run(_begin(options, started, probe, baseline, home, emit, before))


def resume_run(folder: Path, options: RunOptions, home: Path, emit: Emit) -> Finished:
    """Go on with a run: its plan comes from its journal, and only unjudged cells run again.

    Args:
        folder: The run.
        options: What the command line says again; it may not differ from the first time.
        home: FARM_HOME.
        emit: Receives view events.

    Raises:
        ConfigError: There is no such run, or it was started with other options.
        StoreError: Another process works on it, or its journal is damaged.
    """
    opened = open_resumed(folder, options)
    try:
        saved = saved_of(opened.journal, folder)
        baseline = _baseline(saved.asked["baseline"] or None, home)
        if baseline is not None and baseline.report.run_id != saved.baseline_run:
            raise ConfigError(
                f"{folder}: was started with baseline {saved.asked['baseline']} of run"
                f" {saved.baseline_run}; that name now means run {baseline.report.run_id}"
            )
        _launch(options.cluster, emit)
        with ContentStore(paths.store_root(home)).in_use(f"farm run --resume {folder}"):
            return asyncio.run(_go_on(options, opened, baseline, home, emit))
    finally:
        opened.journal.close()


def rerun_cell(
    folder: Path, cell_id: str, options: RunOptions, home: Path, emit: Emit, *, on: str = ""
) -> Finished:
    """Run one cell of a run again, as a run of its own, beside what the first was held against.

    Args:
        folder: The run that has the cell.
        cell_id: The cell.
        options: Where to run and where to write; the run says the rest.
        home: FARM_HOME.
        emit: Receives view events.
        on: Another device of that run; empty: the cell's own.

    Raises:
        ConfigError: There is no such run, or its baseline is not what it was.
        PlanError: It has no such cell or device.
    """
    started = utc_now()
    run_bundle.refuse(folder)
    with contextlib.closing(Journal(folder / run_folder.JOURNAL, read_only=True)) as journal:
        saved = saved_of(journal, folder)
    only(saved.plan, cell_id, on)
    baseline = _baseline(saved.asked["baseline"] or None, home)
    options = replace(options, baseline=saved.asked["baseline"] or None)
    _launch(options.cluster, emit)
    with ContentStore(paths.store_root(home)).in_use(f"farm rerun {folder}"):

        async def look(runtime: Runtime) -> Prepared:
            prepared = await look_again(saved, runtime.sites, home)
            return replace(prepared, plan=only(prepared.plan, cell_id, on))

        return asyncio.run(_begin(options, started, look, baseline, home, emit))


def _launch(cluster: str, emit: Emit) -> None:
    """Start the runtime; from the first second somebody sees what goes on."""
    if cluster != "none":
        local = "starting Ray and probing devices"
        emit(Preparing(local if cluster == "local" else f"joining {cluster}"))
    cluster_start.launch(cluster)


def _baseline(name: str | None, home: Path) -> baselines.Baseline | None:
    if name is None:
        return None
    found = baselines.find_baseline(paths.baselines(home), name)
    if found is None:
        raise baselines.unknown(paths.baselines(home), name)
    return found


async def _begin(
    options: RunOptions,
    started: str,
    look: Callable[[Runtime], Awaitable[Prepared]],
    baseline: baselines.Baseline | None,
    home: Path,
    emit: Emit,
    seen: Seen | None = None,
) -> Finished:
    async with cluster_start.started(options.cluster, home, seen=seen) as runtime:
        emit(Preparing("probing devices"))
        prepared = await look(runtime)
        base_run = "" if baseline is None else baseline.report.run_id
        # One cell run again, or a selection, leaves out others on purpose.
        whole = options.config is not None and not options.select
        lost = baselines.unplanned(prepared, baseline) if whole and baseline is not None else []
        if options.require and baseline is None:
            lost = ["no baseline: this night would see no loss; `farm baseline set` makes one"]
        opened = open_new(options, prepared, base_run, started, lost)
        try:
            return await _served(opened, prepared, runtime, baseline, home, emit)
        finally:
            opened.journal.close()


async def _go_on(
    options: RunOptions,
    opened: Opened,
    baseline: baselines.Baseline | None,
    home: Path,
    emit: Emit,
) -> Finished:
    async with cluster_start.started(options.cluster, home) as runtime:
        saved = saved_of(opened.journal, opened.folder)
        emit(Preparing("probing devices"))
        prepared = await look_again(saved, runtime.sites, home)
        return await _served(opened, prepared, runtime, baseline, home, emit)


async def _served(
    opened: Opened,
    prepared: Prepared,
    runtime: Runtime,
    baseline: baselines.Baseline | None,
    home: Path,
    emit: Emit,
) -> Finished:
    """Run, and let `farm watch` and `farm cancel` reach it meanwhile."""
    control = ControlServer(opened.folder)

    def show(event: ViewEvent) -> None:
        control.emit(event)
        emit(event)

    async with control.serving(), runtime.relayed(opened.run_id, control.answer):
        return await _run(opened, prepared, runtime, baseline, home, show, control)


async def _run(
    opened: Opened,
    prepared: Prepared,
    runtime: Runtime,
    baseline: baselines.Baseline | None,
    home: Path,
    emit: Emit,
    control: ControlServer | None = None,
) -> Finished:
    clock, journal, folder = time.monotonic(), opened.journal, opened.folder
    store = ContentStore(paths.store_root(home))
    runners.keep_files(prepared.catalog.runners.values(), store)
    arms, unpaired = baselines.find_arms(prepared, baseline, store)
    cells = [*prepared.plan.cells, *(skip.cell for skip in prepared.plan.skips)]
    places = tuple((cell.cell_id, cell.place) for cell in cells)
    emit(RunStarted(opened.run_id, prepared.spec.name, places, str(folder)))
    alarms = [*opened.alarms]
    comparing = Comparing(prepared, runtime.pool, emit)
    finished = Results(opened.finished)
    await collect_measured(journal, store, runtime.sites)
    await compare_measured(comparing, journal, store, finished, emit)
    exports, history = ExportLog(), PastRuns(home, alarms)
    flow = RunFlow(
        prepared.spec,
        prepared.plan,
        prepared.catalog,
        run_id=opened.run_id,
        epoch=opened.epoch,
        finished=finished,
        baselines=arms,
        past=history.durations_s(),
        hosts=runtime.pool.hosts(),
    )
    care = Care(HealthBook(paths.quarantine_file(home)), prepared.plan.devices)

    def on_task(task: object, outcome: object) -> None:
        exports.note(task, outcome)
        comparing.note(task, outcome)  # type: ignore[arg-type]

    controller = Controller(
        flow,
        pool=runtime.pool,
        sites=runtime.sites,
        journal=journal,
        emit=emit,
        on_finished=_log_keeper(folder, store, alarms),
        on_task=on_task,
        estimates=history.durations_s(),
        store_home=str(home),
        care=care,
        alarm=alarms.append,
        limits=prepared.spec.limits,
        suspicious=lambda results: ending.suspicious(prepared, results, baseline, unpaired),
    )
    control = control or ControlServer(folder)  # one that nobody serves
    control.cancels(controller.cancel_cell)
    opening_s = seconds_since(opened.started_at)
    with interrupts(controller.interrupt, control.ends) as interrupted:
        halt = await controller.run()
        ended = time.monotonic()
        results = dict(flow.results)
        if interrupted:
            try:
                async with asyncio.timeout(COMPARE_S):
                    await compare_measured(comparing, journal, store, results, emit)
            except TimeoutError:
                pass  # a resume compares them
            except StoreError as error:
                log.warning("%s", error)
                alarms.append(error.message)
    if halt is not None:
        alarms.append(f"the run ended early: {halt.reason}")
    report = _report(
        opened,
        replace(prepared, plan=replace(prepared.plan, devices=flow.devices)),
        results,
        exports,
        RunFacts(
            run_id=opened.run_id,
            started_at=opened.started_at,
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
        halt,
        ending.against(prepared, baseline, unpaired, history.same_bytes(results)),
        ending.today(baseline),
        alarms,
    )
    report = history.with_trend(report)
    faults = ending.write(report, folder, journal)
    for fault in faults:
        log.error("%s", fault)
    if not faults:
        _mark_reported(journal, opened.epoch)
    durations = {**controller.durations_s}
    if opened.epoch == 1 and halt is None and not interrupted:
        durations |= {OPENING: opening_s, CLOSING: time.monotonic() - ended}
    if fault := history.add(report, folder, durations):
        faults.append(fault)
    if faults:
        report = ending.with_alarms(report, faults)
        ending.rewrite(report, folder)
    emit(RunEnded(report.verdict_line, report.exit_code))
    return Finished(report, folder)


def _report(
    opened: Opened,
    prepared: Prepared,
    results: dict[str, CellResult],
    exports: ExportLog,
    facts: RunFacts,
    halt: Halt | None,
    against: Against | None,
    today: datetime.date,
    alarms: list[str],
) -> Report:
    events = list(opened.journal.events())
    known = ExportLog()
    known.restore(events, prepared.plan.artifacts)
    known.results |= exports.results
    found = ending.complete(prepared, results, halt, attempts_in(events))
    return ending.report(
        prepared,
        ending.judged(prepared, found, against, sittings(results), halt, today),
        known,
        facts,
        today,
        alarms=[*alarms, *(f"the journal: {what}" for what in opened.journal.damaged)],
        halted=halt is not None,
    )


def _mark_reported(journal: Journal, epoch: int) -> None:
    """Note that the reports in the folder are those of this epoch; else they are made again."""
    try:
        journal.set(REPORTED, str(epoch))
    except StoreError as error:
        log.warning("%s", error)


def _log_keeper(
    folder: Path, store: ContentStore, alarms: list[str]
) -> Callable[[JobFinished], None]:
    """Keep the logs of attempts; one that can't be kept is an alarm, and no reason to stop."""

    def keep(event: JobFinished) -> None:
        logs = [(ref, store.path(ref)) for ref in event.logs if store.has(ref.sha256)]
        try:
            run_folder.keep_logs(folder, event.job_id, event.attempt, logs)
        except StoreError as error:
            log.warning("%s", error)
            alarms.append(error.message)

    return keep
