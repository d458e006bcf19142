"""Host tasks: one function for each kind, called alike by Ray and by the in-process pool.

A task takes plain data and leaves its files in the content store of the host it ran on. Export
and reference run in a process of their own, with the interpreter of their toolchain.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import runners
from farm import paths, transports
from farm.codec import digest
from farm.core.artifact import LogitsRef, StageEvent
from farm.core.device import DeviceEntry
from farm.core.errors import Interrupted, RunnerError
from farm.core.events import JobProgress
from farm.core.flow.chain import bundle_files
from farm.core.hostrun import HostRunResult, NoiseFloor
from farm.core.result import Judgement
from farm.core.runtime import DeviceJob, DeviceRunResult, LaunchRequest
from farm.core.tasks import (
    CanaryTask,
    CompareTask,
    ExportTask,
    HostRunTask,
    HostTask,
    HostTaskResult,
    ReferenceTask,
)
from farm.judge.answers import Answer
from farm.judge.canary import canary_error
from farm.judge.cell import judge_cell, stage_logits
from farm.judge.logits import Logits, Matrix, open_logits
from farm.judge.metrics import compare as compare_logits
from farm.judge.replay import layer_cosine
from farm.site.context import SiteContext
from farm.site.device.connection import Connection
from farm.site.job.job import JobRun
from farm.store.actions import ActionCache
from farm.store.objects import ContentStore
from farm.tasks import worker_process
from farm.tasks.canary import make_canary
from models.tokenizer import bare_tokenizer

Emit = Callable[[StageEvent], None]

#: Order-only perturbations that the noise floor is taken from.
PERTURBATIONS = (1, 2, 3, 4)


def run_task(task: HostTask, home: Path, emit: Emit, stop: threading.Event) -> HostTaskResult:
    """Run one host task here.

    Args:
        task: What to do.
        home: FARM_HOME of this host.
        emit: Takes progress.
        stop: Set to end the task early, from any thread.

    Raises:
        FarmError: It failed, with its own error; Interrupted after `stop`.
    """
    with ContentStore(paths.store_root(home)).in_use(task.task_id):
        return _perform(task, home, emit, stop)


def _perform(task: HostTask, home: Path, emit: Emit, stop: threading.Event) -> HostTaskResult:
    match task:
        case ExportTask():
            return worker_process.export(task, home, emit, stop)
        case ReferenceTask():
            return worker_process.reference(task, home, emit, stop)
        case HostRunTask():
            return host_run(task, home, emit, stop)
        case CompareTask():
            return compare(task, home, emit, stop)
        case CanaryTask():
            return make_canary(task, home, emit, stop)


def compare(task: CompareTask, home: Path, emit: Emit, stop: threading.Event) -> Judgement:
    """Judge a finished device run.

    Raises:
        StoreError: Logits are missing or damaged.
        BadOutput: Logits have another shape than the runner reported.
        FarmError: The eager logits of an answer couldn't be computed.
    """
    store = ContentStore(paths.store_root(home))

    def opened(ref: LogitsRef) -> Matrix:
        return open_logits(store.path(ref.object), ref)

    launches = task.run.launches
    generated = next((x.generated for x in launches if x.generated is not None), None)
    text = next((x.text for x in launches if x.text is not None), None)
    tokenizer = None
    if task.export.bundle.tokenizer is not None:
        tokenizer = bare_tokenizer(store.path(task.export.bundle.tokenizer))
    if text is None and generated is not None and tokenizer is not None:
        text = tokenizer.decode(generated)
    answer = None
    if task.answer is not None and text and tokenizer is not None:
        answer = _answer(
            task.answer, task.reference.prompt, tokenizer.encode(text), home, emit, stop
        )
    return judge_cell(
        task,
        stage_logits(task, opened),
        generated_text=text,
        answer=answer,
        canary=canary_error(task, opened),
        layer=layer_cosine(task, opened),
    )


def _answer(
    task: ReferenceTask,
    prompt: tuple[int, ...],
    ids: list[int],
    home: Path,
    emit: Emit,
    stop: threading.Event,
) -> Answer | None:
    """Eager logits at every token of an answer that came as text; None without eager weights."""
    request = replace(task.request, forced=(*prompt, *ids))
    result = worker_process.reference(replace(task, request=request), home, emit, stop)
    store = ContentStore(paths.store_root(home))
    refs = {"eager_quantised": result.eager_quantised, "eager_fp32": result.eager_fp32}
    for stage, ref in refs.items():
        if ref is not None:
            rows = open_logits(store.path(ref.object), ref)
            return Answer(stage, tuple(ids), rows[len(prompt) - 1 : -1])
    return None


def host_run(task: HostRunTask, home: Path, emit: Emit, stop: threading.Event) -> HostRunResult:
    """Run an artifact on this host for its logits and its noise floor; once for each key.

    Raises:
        FarmError: As farm.site.job.job.JobRun.run, and Interrupted after `stop`.
    """
    store = ContentStore(paths.store_root(home))
    cache = ActionCache(store)
    context = SiteContext(
        home=home, store=store, open_transport=transports.open, find_runner=runners.find
    )
    entry = DeviceEntry(name="host", transport="local", root=str(home / "host"))

    def work() -> HostRunResult:
        run = _run_here(task, entry, context, emit, stop)
        normal = run.launches[0]
        floor = _noise_floor(run, task, store)
        return HostRunResult(
            runner=run.runner, hello=normal.hello, logits=normal.logits, noise_floor=floor
        )

    # They share a folder with its helper, objects and lease, and each uses every core.
    with cache.lock("host-runs", worker_process.waiting(emit, stop, "another host run")):
        key = _host_run_key(task, entry, context, emit)
        result, hit = cache.cached(key, HostRunResult, work, worker_process.waiting(emit, stop))
    return replace(result, cache_hit=hit)


def _host_run_key(task: HostRunTask, entry: DeviceEntry, context: SiteContext, emit: Emit) -> str:
    """Everything that a host run's logits depend on: artifact, binary, vector ISA, tokens."""
    connection = Connection(entry, context.home, context.open_transport)
    try:
        facts = connection.snapshot().facts
    finally:
        connection.close()
    runner = context.find_runner(task.runner)
    started = time.monotonic()

    def step(text: str) -> None:
        emit(StageEvent("build", 0, 0, time.monotonic() - started, text))

    build = runner.build(facts.abi, facts, context.home, task.sdk, step)
    files = [task.bundle.pte.sha256, task.bundle.data and task.bundle.data.sha256]
    parts = (files, build.sha256, facts.features, task.tokens, task.passes, PERTURBATIONS)
    return "host-run-" + digest(*parts)


def _run_here(
    task: HostRunTask,
    entry: DeviceEntry,
    context: SiteContext,
    emit: Emit,
    stop: threading.Event,
) -> DeviceRunResult:
    launches = tuple(
        LaunchRequest(threads=0, tokens=task.tokens, passes=task.passes, sdpa_order=order)
        for order in (0, *PERTURBATIONS)
    )
    started = time.monotonic()

    def report(progress: JobProgress) -> None:
        emit(
            StageEvent(
                name=progress.stage,
                index=progress.done,
                count=progress.total,
                elapsed_s=time.monotonic() - started,
                detail=progress.detail,
            )
        )

    job = JobRun(
        DeviceJob(
            job_id=task.task_id,
            attempt=1,
            epoch=1,
            run_id="host-run",
            cell_id=task.task_id,
            device=entry.name,
            runner=task.runner,
            artifact=bundle_files(task.bundle),
            launches=launches,
            sdk=task.sdk,
        ),
        entry,
        context,
        report,
    )
    watcher = threading.Thread(
        target=_cancel_when, args=(stop, job, done := threading.Event()), daemon=True
    )
    watcher.start()
    try:
        return job.run()
    finally:
        done.set()
        watcher.join()


def _cancel_when(stop: threading.Event, job: JobRun, done: threading.Event) -> None:
    while not done.wait(0.1):
        if stop.is_set():
            job.cancel(Interrupted("the host run was cancelled"))
            return


def _noise_floor(run: DeviceRunResult, task: HostRunTask, store: ContentStore) -> NoiseFloor | None:
    """Mean KL of the perturbed launches to the normal one, averaged over them, by pass."""
    normal = dict(run.launches[0].logits)
    positions = {one.name: one.positions for one in task.passes}

    def opened(ref: LogitsRef, name: str) -> Logits:
        return Logits(open_logits(store.path(ref.object), ref), positions[name])

    found: dict[str, list[float]] = {}
    for launch in run.launches[1:]:
        for name, ref in launch.logits:
            metrics = compare_logits(opened(normal[name], name), opened(ref, name), task.tokens)
            if metrics.kl_mean is None:
                raise RunnerError(f"{task.task_id}: logits of pass {name} are not finite numbers")
            found.setdefault(name, []).append(metrics.kl_mean)
    floors = tuple((name, sum(values) / len(values)) for name, values in found.items())
    return NoiseFloor(floors, len(PERTURBATIONS)) if floors else None
