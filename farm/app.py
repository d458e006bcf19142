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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from farm import baselines as baseline_files
from farm import codec, hostinfo, resolve, rundir
from farm import home as layout
from farm.clock import utc_now
from farm.cluster import start as cluster_start
from farm.cluster.start import Runtime
from farm.config import load_inventory, load_run
from farm.controller import Controller
from farm.core.artifact import ExportRequest, ExportResult, StageEvent, ToolchainVersions
from farm.core.device import Device, DeviceEntry, Inventory
from farm.core.errors import ConfigError, FarmError
from farm.core.events import JobFinished
from farm.core.flow import RunFlow
from farm.core.plan import ArtifactId, Catalog, Plan, make_plan
from farm.core.report import RunFacts, build_report, export_report
from farm.core.result import CellResult, ExportReport, Report
from farm.core.selector import parse_selector
from farm.core.spec import RunSpec
from farm.core.tasks import ExportTask
from farm.core.view import RunEnded, RunStarted, TaskFinished, TaskProgress, TaskStarted, ViewEvent
from farm.core.waivers import apply_waivers
from farm.history import History
from farm.journal import Journal
from farm.judge.baseline import compare_with_baseline
from farm.reports import renderers
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
class RunOptions:
    """What the command line says about a run."""

    config: Path
    inventory: Path | None = None
    select: str = ""
    overrides: tuple[str, ...] = ()
    cluster: str = "local"
    out: Path = field(default_factory=lambda: Path("runs"))
    #: Folder of a run to go on with.
    resume: Path | None = None
    #: Name or report file to compare with; None compares with nothing.
    baseline: str | None = None
    quick: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """A config with its names resolved and its devices probed."""

    spec: RunSpec
    config: dict[str, Any]
    catalog: Catalog
    plan: Plan


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that ended, however it ended."""

    report: Report
    folder: Path


def load(options: RunOptions) -> tuple[RunSpec, dict[str, Any], Catalog, Inventory]:
    """Read config and inventory and resolve every name in them.

    Raises:
        ConfigError: Something in them is wrong; names file and key.
        UnknownName: A model, recipe or runner that nobody knows.
    """
    spec, config = load_run(options.config, options.overrides)
    if options.quick:
        spec = quick(spec)
    parse_selector(options.select)
    return spec, config, resolve.catalog(spec), load_inventory(options.inventory)


def quick(spec: RunSpec) -> RunSpec:
    """Return the run with the least work that still shows every step."""
    return replace(
        spec,
        workload=replace(spec.workload, launches=1, repetitions=2),
        correctness=replace(spec.correctness, tokens=min(64, spec.correctness.tokens)),
    )


async def find_devices(
    runtime: Runtime, inventory: Inventory, select: str = ""
) -> tuple[Device, ...]:
    """Probe every device of the inventory that `select` doesn't rule out.

    Raises:
        ConfigError: An entry names a site that the cluster doesn't have.
    """
    entries: dict[str, list[DeviceEntry]] = {site: [] for site in runtime.sites}
    for entry in inventory.entries:
        if entry.site not in entries:
            known = ", ".join(name or "(this host)" for name in entries)
            raise ConfigError(
                f"{entry.origin}.site: no site {entry.site!r} in this cluster; there are: {known}"
            )
        entries[entry.site].append(entry)
    if inventory.local and not any(e.transport == "local" for e in inventory.entries):
        entries[""].append(DeviceEntry(name="local", transport="local"))
    found = await asyncio.gather(
        *(
            site.inventory(entries[name], adb_auto=inventory.adb_auto)
            for name, site in runtime.sites.items()
        )
    )
    selector = parse_selector(select)
    return tuple(
        device
        for devices in found
        for device in devices
        if device.facts is None or selector.matches(device.attributes)
    )


async def prepare(options: RunOptions, runtime: Runtime) -> Prepared:
    """Load, probe and plan.

    Raises:
        ConfigError, UnknownName: As `load` and `find_devices`.
        PlanError: No device matches.
    """
    spec, config, catalog, inventory = load(options)
    devices = await find_devices(runtime, inventory, options.select)
    return Prepared(spec, config, catalog, make_plan(spec, devices))


def plan(options: RunOptions, home: Path) -> Prepared:
    """Plan without running; probes devices from this process."""
    load(options)

    async def work() -> Prepared:
        runtime = await cluster_start.start("none", home)
        try:
            return await prepare(options, runtime)
        finally:
            await runtime.close()

    return asyncio.run(work())


def run(options: RunOptions, home: Path, emit: Emit) -> Finished:
    """Run a config to its end, or to an interruption, and write its reports.

    Raises:
        FarmError: It could not begin, or its results could not be recorded.
    """
    load(options)  # whatever is wrong in files is said before a cluster starts
    baseline = _baseline(options, home)
    return asyncio.run(_run(options, home, emit, baseline))


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
    options: RunOptions, home: Path, emit: Emit, baseline: baseline_files.Baseline | None
) -> Finished:
    started, clock = utc_now(), time.monotonic()
    runtime = await cluster_start.start(options.cluster, home)
    try:
        prepared = await prepare(options, runtime)
        folder, journal, run_id, epoch, finished = _open_folder(options, prepared, started)
        history = History(layout.history_db(home))
        try:
            flow = RunFlow(
                prepared.spec,
                prepared.plan,
                prepared.catalog,
                run_id=run_id,
                epoch=epoch,
                finished=finished,
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
            exports = _ExportLog()
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
            )
            with _interrupts(controller) as interrupted:
                await controller.run()
            report = _report(
                prepared,
                _judged(prepared, flow.results, baseline),
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


def plan_data(prepared: Prepared) -> dict[str, Any]:
    """Return the plan as plain data, for plan.json and `farm plan --json`."""
    return {
        "name": prepared.spec.name,
        "config": prepared.config,
        "spec": codec.to_data(prepared.spec),
        "cells": [codec.to_data(cell) for cell in prepared.plan.cells],
        "skips": [codec.to_data(skip) for skip in prepared.plan.skips],
        "artifacts": [str(artifact) for artifact in prepared.plan.artifacts],
        "devices": [codec.to_data(device) for device in prepared.plan.devices],
    }


class _ExportLog:
    """What became of each export of a run."""

    def __init__(self) -> None:
        self.results: dict[ArtifactId, ExportResult | FarmError] = {}

    def note(self, task: object, outcome: object) -> None:
        """Take in the end of a host task."""
        if isinstance(task, ExportTask) and isinstance(outcome, ExportResult | FarmError):
            request = task.request
            artifact = ArtifactId(request.model.name, request.recipe.name, request.toolchain.name)
            self.results[artifact] = outcome

    def reports(self, artifacts: Sequence[ArtifactId]) -> list[ExportReport]:
        """Describe each export that ended."""
        found = []
        for artifact in artifacts:
            outcome = self.results.get(artifact)
            if isinstance(outcome, ExportResult):
                found.append(export_report(artifact, outcome, None))
            elif outcome is not None:
                found.append(export_report(artifact, None, outcome))
        return found

    def versions(self) -> dict[str, ToolchainVersions]:
        """Return the resolved versions by toolchain."""
        return {
            artifact.toolchain: outcome.versions
            for artifact, outcome in self.results.items()
            if isinstance(outcome, ExportResult)
        }


def _judged(
    prepared: Prepared,
    results: Mapping[str, CellResult],
    baseline: baseline_files.Baseline | None,
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
            )
            for result in judged
        ]
    today = datetime.datetime.now(datetime.UTC).date()
    return [apply_waivers(result, prepared.spec.waivers, today) for result in judged]


def _report(
    prepared: Prepared, results: Sequence[CellResult], exports: _ExportLog, facts: RunFacts
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


def export(options: RunOptions, home: Path, emit: Emit) -> list[ExportReport]:
    """Export every artifact of a config, without devices.

    Raises:
        FarmError: The config is wrong or the cluster can't start; failed exports are data.
    """
    spec, _, catalog, _ = load(options)
    wanted = [
        ArtifactId(model.name, recipe, toolchain)
        for model in spec.models
        for recipe in spec.matrix.recipe
        for toolchain in spec.matrix.toolchain
    ]
    return asyncio.run(_export(options, home, emit, catalog, wanted))


async def _export(
    options: RunOptions, home: Path, emit: Emit, catalog: Catalog, wanted: Sequence[ArtifactId]
) -> list[ExportReport]:
    history = History(layout.history_db(home))
    estimates = history.durations_s()
    history.close()
    runtime = await cluster_start.start(options.cluster, home)

    async def one(artifact: ArtifactId) -> ExportReport:
        task = ExportTask(
            f"export:{artifact}",
            ExportRequest(
                catalog.models[artifact.model],
                catalog.recipes[artifact.recipe],
                catalog.toolchains[artifact.toolchain],
            ),
        )
        name, started = str(artifact), time.monotonic()
        emit(TaskStarted("export", name, estimates.get(task.task_id)))

        def on_stage(event: StageEvent) -> None:
            elapsed = time.monotonic() - started
            emit(
                TaskProgress(
                    "export",
                    name,
                    event.name,
                    event.index,
                    event.count,
                    elapsed,
                    event.detail,
                    event.done_bytes,
                    event.total_bytes,
                )
            )

        try:
            result = await runtime.pool.run(task, on_stage)
            assert isinstance(result, ExportResult)
        except FarmError as error:
            emit(TaskFinished("export", name, time.monotonic() - started, False, str(error)))
            return export_report(artifact, None, error)
        emit(TaskFinished("export", name, time.monotonic() - started, result.cache_hit))
        return export_report(artifact, result, None)

    try:
        return list(await asyncio.gather(*(one(artifact) for artifact in wanted)))
    finally:
        await runtime.close()
