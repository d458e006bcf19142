"""`farm diagnose`: where two stages of a finished cell part, by layer and operator.

The cell's artifact is put together anew with its values brought out, and runs on this host and on
the cell's device. Nothing is timed.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from farm import paths
from farm.cluster import start as cluster_start
from farm.cluster.start import Runtime
from farm.commands.jobs import Emit, job_run_id, perform
from farm.core.artifact import ExportResult
from farm.core.device import Device, DeviceEntry
from farm.core.diagnosis import DEVICE, HOST, Diagnosis, DriverRow
from farm.core.errors import ConfigError, DeviceUnfit, FarmError, Interrupted, StoreError
from farm.core.flow.chain import bundle_files
from farm.core.plan import Cell
from farm.core.result import CellResult
from farm.core.rules.verdict import EXIT_FAILED, EXIT_INCOMPLETE, EXIT_OK
from farm.core.runner import OWN, OWN_KINDS, DeployFile, RunnerSpec
from farm.core.runtime import DeviceJob, DeviceRunResult, LaunchRequest
from farm.deploy.made import made_by
from farm.deploy.release import Validated, open_run
from farm.judge.logits import Matrix, open_logits
from farm.site.agent.threads import in_thread
from farm.store import run_bundle
from farm.store.objects import ContentStore
from farm.tasks.drivers import drive
from farm.tasks.observe import PASS, TOKENS, Inside, Looked, Side, Subject, look, request

SCHEMA_VERSION = 1
#: Gates of the runner's kernels, which say nothing of stages.
_KERNELS = ("canary", "layer_replay", "layer_gain", "timed_tokens", "repeatable")
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Found:
    """A diagnosis, and what a maintainer can be shown of it."""

    diagnosis: Diagnosis
    inside: tuple[Inside, ...]
    #: Of the last job on each stage; None where there was none.
    runs: Mapping[str, DeviceRunResult]
    device: Device
    export: ExportResult
    #: What the run's gates failed on, where nothing here shows it; empty elsewhere.
    unexplained: str = ""

    @property
    def exit_code(self) -> int:
        """1: something parts; 3: something could not be looked at, or the run's fault is away."""
        drivers = self.diagnosis.drivers
        if self.diagnosis.blame is not None or any(row.parts for row in drivers):
            return EXIT_FAILED
        whole = DEVICE in self.runs and not _unlike(self.diagnosis.observed)
        whole = whole and all(row.parts is not None for row in drivers)
        return EXIT_OK if whole and not self.unexplained else EXIT_INCOMPLETE


@dataclass(slots=True)
class _Jobs:
    """Runs programs as jobs, one after another."""

    runtime: Runtime
    loop: asyncio.AbstractEventLoop
    home: Path
    store: ContentStore
    emit: Emit
    export: ExportResult
    job: DeviceJob
    #: The cell's device, as it was when its run began.
    planned: Device
    stopped: threading.Event = field(default_factory=threading.Event)
    runs: dict[str, DeviceRunResult] = field(default_factory=dict)
    count: int = 0
    #: What farm-runner gave of the artifact here.
    own: Matrix | None = None

    def run(
        self, stage: str, entry: DeviceEntry, runner: RunnerSpec, program: Path | None,
        asked: LaunchRequest,
    ) -> Matrix:  # fmt: skip
        """Run a program, or the artifact itself, on a device; give the rows of its pass.

        Raises:
            DeviceUnfit: Another device answers in the place of the cell's.
            FarmError: The job failed, or nobody waits for it any more.
        """
        if self.stopped.is_set():
            raise Interrupted("the diagnosis was interrupted")
        self.count += 1
        files = bundle_files(self.export.bundle)
        if program is not None:
            files = (DeployFile(self.store.put_file(program, "model.pte"), "model.pte"),)
        job = replace(
            self.job,
            run_id=f"{self.job.run_id}-{self.count}",
            device=entry.name,
            runner=runner,
            artifact=files,
            launches=(asked,),
        )
        sites, site = self.runtime.sites, entry.site

        async def work() -> DeviceRunResult:
            (now,) = await sites[site].inventory([entry], adb_auto=False)
            if stage == DEVICE:
                _check_same(self.planned, now)
            (ended,) = await perform([job], {entry.name: site}, sites, str(self.home), self.emit)
            if ended.result is None:
                raise ended.error or FarmError(f"{entry.name}: the job ended without a result")
            return ended.result

        self.runs[stage] = asyncio.run_coroutine_threadsafe(work(), self.loop).result()
        (launch,) = self.runs[stage].launches
        ref = dict(launch.logits)[PASS]
        return open_logits(self.store.path(ref.object), ref)


def diagnose(
    folder: Path,
    cell_id: str,
    home: Path,
    emit: Emit,
    say: Say,
    *,
    cluster: str = "none",
    layer: int | None = None,
    drivers: bool = False,
    scratch: Path,
) -> Found:
    """Look into a finished cell.

    Args:
        folder: Of the run.
        cell_id: As the report has it.
        home: FARM_HOME.
        emit: Receives view events.
        say: Receives progress in words.
        cluster: As for `farm.cluster.start.launch`.
        layer: Look into this layer, whatever is found.
        drivers: Compare drivers of the artifact on this host, too.
        scratch: Folder for programs.

    Raises:
        ConfigError: There is no such cell, it has nothing that can be looked into, or the site of
            its device is not in this cluster.
        StoreError: What it ran isn't in the store any more.
        FarmError: The host's run failed.
    """
    started = time.monotonic()
    run_bundle.refuse(folder)
    run = open_run(folder, home)
    result, cell, device = _of(run, cell_id)
    made = made_by(run.saved, result, home)
    if made is None:
        raise StoreError(
            f"{cell_id}: the artifact that was measured isn't in the store of this host any more:"
            " run the config again, and diagnose that run"
        )
    export, reference = made
    subject = _subject(run, cell, export, reference.tokens[:TOKENS], home)
    cluster_start.launch(cluster)
    looked, jobs, missing = asyncio.run(
        _looked(run, cell, device, subject, cluster, home, emit, say, layer, scratch)
    )
    rows: tuple[DriverRow, ...] = ()
    if drivers and jobs.own is not None:
        say("driving it in other ways, here")
        rows = drive(jobs.store.path(export.bundle.pte), subject, jobs.own, scratch)
    unseen = (*looked.unseen, *missing, *_source_unseen(result))
    unexplained = _unexplained(result, looked)
    diagnosis = Diagnosis(
        SCHEMA_VERSION,
        run.report.run_id,
        cell_id,
        looked.blame,
        _sentence(looked, missing, unexplained, rows),
        looked.observed,
        looked.rows,
        unseen,
        len(subject.tokens),
        round(time.monotonic() - started, 1),
        rows,
    )
    return Found(diagnosis, looked.inside, jobs.runs, device, export, unexplained)


def _check_same(planned: Device, now: Device) -> None:
    """Refuse what isn't known to be the device that the cell ran on."""
    if planned.facts is None:
        return
    if now.facts is None:
        raise DeviceUnfit(f"{now.name}: {now.reason}", device=now.name)
    if now.facts.identity != planned.facts.identity:
        raise DeviceUnfit(
            f"{now.name}: another device ({now.facts.identity}) answers in its place"
            f" ({planned.facts.identity})",
            device=now.name,
        )


def _unlike(observed: Sequence[tuple[str, str]]) -> str:
    """Say on which stages it isn't known that the cell's own numbers were looked at."""
    found = (f"{stage}: {said}" for stage, said in observed if stage in (HOST, DEVICE))
    return "; ".join(one for one in found if not one.endswith(": equal"))


def _of(run: Validated, cell_id: str) -> tuple[CellResult, Cell, Device]:
    result = next((one for one in run.report.results if one.cell_id == cell_id), None)
    if result is None:
        known = ", ".join(one.cell_id for one in run.report.results[:5])
        raise ConfigError(f"{run.folder}: no cell {cell_id!r}; it has {known}")
    plan = run.saved.plan
    cell = next((one for one in plan.cells if one.cell_id == cell_id), None)
    device = next((one for one in plan.devices if one.name == result.device.name), None)
    if cell is None or device is None or result.correctness is None:
        raise ConfigError(f"{cell_id}: it gave nothing to look into: {result.reason}")
    kind = run.saved.runners[cell.runner].kind
    if kind not in OWN_KINDS:
        raise ConfigError(
            f"{cell_id}: runner {cell.runner} ({kind}) gives no values of layers; diagnose a cell"
            f" of the same artifact with one of {', '.join(OWN_KINDS)}"
        )
    return result, cell, device


def _subject(
    run: Validated, cell: Cell, export: ExportResult, tokens: tuple[int, ...], home: Path
) -> Subject:
    # What torch and torchao say of parts that nobody installed isn't about this cell.
    for name in ("torch", "torchao"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    from models.lowering.written import Written
    from models.observing.programs import why_not
    from models.sources import open_source

    saved, target = run.saved, cell.artifact
    recipe, toolchain = saved.recipes[target.recipe], saved.toolchains[target.toolchain]
    if toolchain.executorch:
        raise ConfigError(
            f"{cell.cell_id}: toolchain {toolchain.name} exported it; what another ExecuTorch wrote"
            " isn't taken apart here"
        )
    checkpoint = open_source(
        saved.models[target.model], paths.model_cache(home), lambda _done, _total: None
    )
    store, bundle = ContentStore(paths.store_root(home)), export.bundle
    written = None
    if recipe.engine == "farm" and recipe.backend == "xnnpack":
        data = None if bundle.data is None else store.path(bundle.data)
        written = Written(store.path(bundle.pte), data)
    if reason := why_not(checkpoint.config, recipe, written):
        raise ConfigError(f"{cell.cell_id}: {reason}")
    return Subject(checkpoint, recipe, tokens, export)


async def _looked(
    run: Validated,
    cell: Cell,
    device: Device,
    subject: Subject,
    cluster: str,
    home: Path,
    emit: Emit,
    say: Say,
    layer: int | None,
    scratch: Path,
) -> tuple[Looked, _Jobs, tuple[str, ...]]:
    store, export = ContentStore(paths.store_root(home)), subject.export
    toolchain = run.saved.toolchains[cell.artifact.toolchain]
    blank = DeviceJob(
        job_id=cell.cell_id,
        attempt=1,
        epoch=1,
        run_id=job_run_id("diagnose"),
        cell_id=cell.cell_id,
        device="",
        runner=OWN,
        artifact=(),
        launches=(),
        toolchain=toolchain.name,
        sdk=export.sdk(toolchain),
    )
    async with cluster_start.started(cluster, home) as runtime:
        if (site := device.entry.site) not in runtime.sites:
            raise ConfigError(
                f"{device.name}: its site {site} is not in this cluster; name the one that has it"
                " with --cluster"
            )
        jobs = _Jobs(runtime, asyncio.get_running_loop(), home, store, emit, export, blank, device)
        try:
            # One thread: what it waits for are the jobs of this loop.
            return await in_thread(
                lambda: _look(run, cell, device, subject, jobs, say, layer, scratch)
            )
        finally:
            jobs.stopped.set()


def _look(
    run: Validated,
    cell: Cell,
    device: Device,
    subject: Subject,
    jobs: _Jobs,
    say: Say,
    layer: int | None,
    scratch: Path,
) -> tuple[Looked, _Jobs, tuple[str, ...]]:
    runner = run.saved.runners[cell.runner]
    here = DeviceEntry("host", "local", root=str(jobs.home / "diagnose-host"))
    store, bundle = jobs.store, subject.export.bundle
    program = store.path(bundle.pte)
    data = None if bundle.data is None else store.path(bundle.data)

    def on(stage: str, entry: DeviceEntry) -> Callable[[Path | None, LaunchRequest], Matrix]:
        return lambda path, asked: jobs.run(stage, entry, runner, path, asked)

    host, other = on(HOST, here), on(DEVICE, device.entry)
    say("running the artifact as it is, here")
    own = jobs.own = host(None, request(subject.tokens, cell.threads))
    here_side = Side(HOST, program, data, host, own)
    try:
        # A run keeps no logits beyond its verdict: the artifact gives them once more.
        say(f"running the artifact as it is, on {device.name}")
        theirs = other(None, request(subject.tokens, cell.threads))
        sides = [here_side, Side(DEVICE, program, data, other, theirs)]
        both = look(subject, sides, scratch, threads=cell.threads, layer=layer, say=say)
    except Interrupted:
        raise
    except FarmError as error:
        if DEVICE in jobs.runs or not _of_device(error, device):
            raise
        # The host's half is worth having where the device is gone.
        half = look(subject, [here_side], scratch, threads=cell.threads, layer=layer, say=say)
        return half, jobs, (f"device_pte: {error}",)
    return both, jobs, ()


def _of_device(error: FarmError, device: Device) -> bool:
    return error.context.get("device") in (device.name, None)


def _unexplained(result: CellResult, looked: Looked) -> str:
    """The run's failed gate of what is looked at here, where nothing parts now."""
    gates = () if result.correctness is None else result.correctness.gates
    seen = (gate for gate in gates if "_pte" in gate.text or gate.metric in _KERNELS)
    failed = next((gate for gate in seen if gate.passed is False), None)
    return "" if looked.blame is not None or failed is None else failed.text or failed.metric


def _source_unseen(result: CellResult) -> tuple[str, ...]:
    """The stage before the artifact has no layers here; its own gates say whether it parts."""
    gates = () if result.correctness is None else result.correctness.gates
    failed = [
        gate.text
        for gate in gates
        if gate.passed is False and ("-> eager_fp32" in gate.text or gate.metric == "token_ids")
    ]
    if failed:
        return (f"source -> eager_fp32: parts ({failed[0]}); not looked into by layers",)
    return ("source -> eager_fp32: judged by its logits only, not by layers",)


def _sentence(
    looked: Looked,
    missing: tuple[str, ...],
    unexplained: str,
    drivers: Sequence[DriverRow] = (),
) -> str:
    blame, unlike = looked.blame, _unlike(looked.observed)
    said = "no stage parts beyond its tolerance"
    if blame is not None:
        where = blame.operator if blame.layer is None else f"layer {blame.layer}, {blame.operator}"
        said = f"{blame.stage} parts first in {where}: {blame.reason}"
    elif missing:
        said = "no stage that was looked at parts beyond its tolerance; the device was not"
    elif unexplained:
        said = f"what the run failed on ({unexplained}) is not seen now: {said}"
    odd = [row for row in drivers if row.parts]
    if odd:
        said += f"; the driver {odd[0].name} parts: {odd[0].reason}"
    return f"{said}; not known to be what the cell gave ({unlike})" if unlike else said
