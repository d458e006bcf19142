"""`farm profile`: where the time of a token goes, on every device of a config.

Exports what is needed, makes one traced launch per cell, and adds the traces up. It judges
nothing: tracing itself takes time, so shares count, not rates.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from farm import codec, paths
from farm.cluster import start as cluster_start
from farm.commands import export as export_command
from farm.commands.jobs import Emit, job_run_id, perform
from farm.core.artifact import ExportResult
from farm.core.device import Device
from farm.core.errors import DeviceUnfit, FarmError
from farm.core.flow.outcomes import error_report
from farm.core.op_times import CellProfile, ProfileReport, ProfileSummary, summarise
from farm.core.plan import ArtifactId, Cell
from farm.core.result import ErrorReport
from farm.core.rules.launches import measures, ram_need_bytes
from farm.core.runner import OWN, DeployFile
from farm.core.runtime import DeviceJob, DeviceRunResult, LaunchRequest
from farm.core.spec import RunSpec
from farm.planning import planning
from farm.planning.planning import Prepared, RunOptions
from farm.reports import profile as page
from farm.run import run_folder
from farm.store.objects import ContentStore
from runners.output.etdump import read_etdump

#: Traces grow with every call: so many decoded tokens show where a token's time goes.
MAX_DECODE = 8
SCHEMA_VERSION = 1

_Exports = Mapping[ArtifactId, ExportResult | ErrorReport]


def profile(options: RunOptions, home: Path, emit: Emit) -> tuple[ProfileReport, Path]:
    """Trace every cell of a config on its device.

    Returns:
        The report, and the folder that holds it as profile.json and profile.html.

    Raises:
        ConfigError, UnknownName, PlanError: The config is wrong, or no device matches.
    """
    prepared = planning.plan(options, home)
    made = export_command.export(options, home, emit)
    cluster_start.launch(options.cluster)
    cells = asyncio.run(_cells(prepared, options.cluster, home, emit, _by_artifact(made)))
    now = datetime.datetime.now(datetime.UTC)
    run_id = run_folder.new_run_id(f"{prepared.spec.name}-profile", now)
    report = ProfileReport(SCHEMA_VERSION, run_id, prepared.spec.name, cells)
    folder = run_folder.create(options.out, run_id)
    run_folder.write_json(folder / "profile.json", codec.to_data(report))
    run_folder.write_text(folder / "profile.html", page.render(report))
    return report, folder


def launch(spec: RunSpec, threads: int) -> LaunchRequest:
    """The traced launch of a cell: the workload's windows, once each and with few tokens."""
    small = replace(
        spec.workload,
        decode=tuple(dict.fromkeys(min(MAX_DECODE, n) for n in spec.workload.decode)),
        repetitions=1,
        warmup=1,
        window_ms=0,
    )
    return LaunchRequest(threads=threads, profiles=measures(small))


def _by_artifact(made: Sequence[export_command.Made]) -> _Exports:
    found: dict[ArtifactId, ExportResult | ErrorReport] = {}
    for item in made:
        report = item.report
        outcome = item.result or report.error
        assert outcome is not None, "an export has a result or an error"
        found[ArtifactId(report.model, report.recipe, report.toolchain)] = outcome
    return found


async def _cells(
    prepared: Prepared, cluster: str, home: Path, emit: Emit, made: _Exports
) -> tuple[CellProfile, ...]:
    plan = prepared.plan
    devices = {device.name: device for device in plan.devices}
    run_id = job_run_id("profile")
    failed: dict[str, ErrorReport] = {
        skip.cell.cell_id: error_report(DeviceUnfit(skip.reason)) for skip in plan.skips
    }
    jobs = []
    for cell in plan.cells:
        outcome = made[cell.artifact]
        if isinstance(outcome, ErrorReport):
            failed[cell.cell_id] = outcome
        elif cell.runner != OWN.name:
            reason = f"runner {cell.runner} writes no profile; only {OWN.name} does"
            failed[cell.cell_id] = error_report(DeviceUnfit(reason))
        else:
            jobs.append(_job(cell, prepared.spec, outcome, run_id))
    places = {job.device: devices[job.device].entry.site for job in jobs}
    async with cluster_start.started(cluster, home) as runtime:
        for name in dict.fromkeys(places.values()):
            entries = [devices[device].entry for device, site in places.items() if site == name]
            await runtime.sites[name].inventory(entries, adb_auto=False)
        ended = await perform(jobs, places, runtime.sites, str(home), emit)
    finished = {event.job_id: event for event in ended}
    store = ContentStore(paths.store_root(home))
    found = []
    for cell in (*plan.cells, *(skip.cell for skip in plan.skips)):
        device = devices.get(cell.devices[0]) if cell.devices else None
        event = finished.get(cell.cell_id)
        if event is None:
            found.append(_profile(cell, device, failed[cell.cell_id], store))
        else:
            error = event.error or FarmError("the job ended without a result")
            found.append(_profile(cell, device, event.result or error_report(error), store))
    return tuple(found)


def _job(cell: Cell, spec: RunSpec, export: ExportResult, run_id: str) -> DeviceJob:
    bundle = export.bundle
    (toolchain,) = (t for t in spec.toolchains if t.name == cell.artifact.toolchain)
    files = [DeployFile(bundle.pte, "model.pte")]
    if bundle.data is not None:
        files.append(DeployFile(bundle.data, bundle.data.name))
    return DeviceJob(
        job_id=cell.cell_id,
        attempt=1,
        epoch=1,
        run_id=run_id,
        cell_id=cell.cell_id,
        device=cell.devices[0],
        runner=OWN,
        artifact=tuple(files),
        launches=(launch(spec, cell.threads),),
        ram_need_bytes=ram_need_bytes(bundle),
        toolchain=cell.artifact.toolchain,
        sdk=export.sdk(toolchain),
    )


def _profile(
    cell: Cell, device: Device | None, outcome: DeviceRunResult | ErrorReport, store: ContentStore
) -> CellProfile:
    """Read the traces of a cell; a damaged one is the cell's error."""
    emulated = device.facts.emulated if device is not None and device.facts is not None else None
    version: str | None = None
    windows: tuple[ProfileSummary, ...] = ()
    error: ErrorReport | None = None
    if isinstance(outcome, ErrorReport):
        error = outcome
    else:
        version = f"{outcome.runner.version}, {outcome.runner.libc}"
        try:
            windows = _windows(outcome, store)
        except FarmError as trouble:
            error = error_report(trouble)
    return CellProfile(
        cell.cell_id, device.name if device else cell.place, version, emulated, windows, error
    )


def _windows(run: DeviceRunResult, store: ContentStore) -> tuple[ProfileSummary, ...]:
    return tuple(
        summarise(item.name, item.tokens, read_etdump(store.path(item.object).read_bytes()))
        for launched in run.launches
        for item in launched.profiles
    )
