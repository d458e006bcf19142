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
from farm.core.artifact import BEGUN, LogitsRef, StageEvent
from farm.core.asked import AnswerReport
from farm.core.device import DeviceEntry, DeviceFacts
from farm.core.errors import Interrupted, RunnerError
from farm.core.events import JobProgress
from farm.core.flow.chain import bundle_files
from farm.core.hostrun import NO_OTHER_CPU, HostRunResult
from farm.core.judgement import Judgement
from farm.core.reference import Tokenized
from farm.core.runtime import DeviceJob, DeviceRunResult, LaunchRequest, LaunchResult
from farm.core.tasks import (
    CanaryTask,
    CompareTask,
    ExportTask,
    HostRunTask,
    HostTask,
    HostTaskResult,
    ReferenceTask,
    TokensTask,
)
from farm.judge.answers import Answer
from farm.judge.canary import canary_error
from farm.judge.cell import judge_cell, stage_logits
from farm.judge.floor import isa_control, noise_floor
from farm.judge.logits import Logits, Matrix, open_logits, open_some
from farm.judge.replay import layer_cosine
from farm.site.context import SiteContext
from farm.site.device.connection import Connection
from farm.site.job.job import JobRun
from farm.store.actions import ActionCache
from farm.store.objects import ContentStore
from farm.tasks import worker_process
from farm.tasks.canary import make_canary
from models.reference.ids import tokenise
from models.tokenizer import Tokenizer, bare_tokenizer

Emit = Callable[[StageEvent], None]

#: Order-only perturbations that the noise floor is taken from.
PERTURBATIONS = (1, 2, 3, 4)
#: Code of XNNPACK below what a CPU has, by its best feature: the nearest two.
OTHER_CODE = {"avx512f": ("avx2", "avx"), "avx2": ("avx", "sse"), "avx": ("sse",)}


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
    emit(StageEvent(BEGUN, 0, 0, 0.0))
    with ContentStore(paths.store_root(home)).in_use(task.task_id):
        return _perform(task, home, emit, stop)


def _perform(task: HostTask, home: Path, emit: Emit, stop: threading.Event) -> HostTaskResult:
    match task:
        case ExportTask():
            return worker_process.export(task, home, emit, stop)
        case TokensTask():
            return tokens(task, home, emit, stop)
        case ReferenceTask():
            return worker_process.reference(task, home, emit, stop)
        case HostRunTask():
            return host_run(task, home, emit, stop)
        case CompareTask():
            return compare(task, home, emit, stop)
        case CanaryTask():
            return make_canary(task, home, emit, stop)


def tokens(task: TokensTask, home: Path, emit: Emit, stop: threading.Event) -> Tokenized:
    """Tokenise a text, in this process: it reads a tokenizer and no weights.

    Raises:
        FarmError: As models.reference.ids.tokenise.
        Interrupted: `stop` was set.
    """
    started = time.monotonic()

    def on_bytes(done: int, total: int) -> None:
        if stop.is_set():
            raise Interrupted(f"{task.task_id} was cancelled")
        emit(StageEvent("download", 0, 0, time.monotonic() - started, "", done, total))

    return tokenise(task.request, paths.model_cache(home), on_bytes, task.prompts)


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
    judgement = judge_cell(
        task,
        stage_logits(task, lambda ref: open_some(store.path(ref.object), ref)),
        generated_text=text,
        answer=answer,
        canary=canary_error(task, opened),
        layer=layer_cosine(task, opened),
    )
    judgement = replace(judgement, answers=_answers(task, tokenizer))
    if judgement.correctness is None:
        return judgement
    return replace(judgement, correctness=replace(judgement.correctness, generated=generated))


def _answers(task: CompareTask, tokenizer: Tokenizer | None) -> tuple[AnswerReport, ...]:
    """What the device said to each prompt of the config; an absent answer says why."""
    found = []
    for n, prompt in enumerate(task.spec.prompts):
        asked = task.run.asked[n] if n < len(task.run.asked) else "this device run didn't ask"
        if isinstance(asked, str):
            found.append(AnswerReport(prompt.text, None, reason=asked))
            continue
        text, ids = asked.text, asked.generated
        if text is None and ids is not None and tokenizer is not None:
            text = tokenizer.decode(ids)
        reason = "" if text is not None else "the runner gave no text"
        found.append(AnswerReport(prompt.text, text, ids, asked.stopped_by, reason))
    return tuple(found)


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

    def run_here(*asked: LaunchRequest) -> tuple[DeviceRunResult, list[dict[str, Logits]]]:
        run = _run_here(task, asked, entry, context, emit, stop)
        return run, [_opened(launch, task, store) for launch in run.launches]

    def work(others: tuple[str, ...], no_controls: str) -> HostRunResult:
        whole = LaunchRequest(threads=0, tokens=task.tokens, passes=task.passes)
        orders = (replace(whole, sdpa_order=order) for order in PERTURBATIONS)
        run, (normal, *perturbed) = run_here(whole, *orders)
        controls = []
        try:
            for isa in others:
                _, (found,) = run_here(replace(whole, xnnpack_isa=isa))
                controls.append(isa_control(isa, normal, found, task.tokens))
        except RunnerError as error:
            no_controls = error.message  # a control less makes no host run fail
        return HostRunResult(
            runner=run.runner,
            hello=run.launches[0].hello,
            logits=run.launches[0].logits,
            noise_floor=noise_floor(normal, perturbed, task.tokens),
            controls=tuple(controls),
            no_controls=no_controls,
        )

    # They share a folder with its helper, objects and lease, and each uses every core.
    with cache.lock("host-runs", worker_process.waiting(emit, stop, "another host run")):
        facts = _facts(entry, context)
        others, why_not = _other_code(task, facts)
        key = _host_run_key(task, facts, others, context, emit)
        result, hit = cache.cached(
            key,
            HostRunResult,
            lambda: work(others, why_not),
            worker_process.waiting(emit, stop),
        )
    return replace(result, cache_hit=hit)


def _facts(entry: DeviceEntry, context: SiteContext) -> DeviceFacts:
    connection = Connection(entry, context.home, context.open_transport)
    try:
        return connection.snapshot().facts
    finally:
        connection.close()


def _host_run_key(
    task: HostRunTask,
    facts: DeviceFacts,
    others: tuple[str, ...],
    context: SiteContext,
    emit: Emit,
) -> str:
    """Everything that a host run's logits depend on: artifact, binary, vector ISA, tokens."""
    runner = context.find_runner(task.runner)
    started = time.monotonic()

    def step(text: str) -> None:
        emit(StageEvent("build", 0, 0, time.monotonic() - started, text))

    build = runner.build(facts.abi, facts, context.home, task.sdk, step)
    files = [task.bundle.pte.sha256, task.bundle.data and task.bundle.data.sha256]
    orders = (PERTURBATIONS, others)
    parts = (files, build.sha256, facts.features, task.tokens, task.passes, orders)
    return "host-run-3-" + digest(*parts)


def _other_code(task: HostRunTask, facts: DeviceFacts) -> tuple[tuple[str, ...], str]:
    """Which other code of XNNPACK this CPU has; none, and why, where nobody asks or it has none."""
    if all(set(one) == set(facts.features) for one in task.features):
        return (), NO_OTHER_CPU
    found = next((code for best, code in OTHER_CODE.items() if best in facts.features), ())
    return found, "" if found else "no other code of XNNPACK is known for this host's CPU"


def _run_here(
    task: HostRunTask,
    launches: tuple[LaunchRequest, ...],
    entry: DeviceEntry,
    context: SiteContext,
    emit: Emit,
    stop: threading.Event,
) -> DeviceRunResult:
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


def _opened(launch: LaunchResult, task: HostRunTask, store: ContentStore) -> dict[str, Logits]:
    positions = {one.name: one.positions for one in task.passes}
    return {
        name: Logits(open_logits(store.path(ref.object), ref), positions[name])
        for name, ref in launch.logits
    }
