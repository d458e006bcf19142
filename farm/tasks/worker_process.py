"""Export and reference in a worker process with the interpreter of their toolchain.

The worker writes into a scratch folder of the content store; what it made is moved into the
store here, and remembered under its key. Not to be confused with a Ray worker.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pydantic

from farm import codec, paths
from farm.clock import Deadline
from farm.core import errors
from farm.core.artifact import ExportResult, StageEvent, Toolchain
from farm.core.errors import ExportError, FarmError, Interrupted
from farm.core.reference import ReferenceResult
from farm.core.spec import Resources
from farm.core.tasks import ExportTask, ReferenceTask
from farm.host.limits import usable_cpus
from farm.store.actions import ActionCache
from farm.store.objects import ContentStore
from farm.tasks import kept_worker
from models import orders
from models.exporting import identify
from models.reference.bounds import known_digest
from models.toolchain import Environment, find_environment, install_order, own_environment

Emit = Callable[[StageEvent], None]
A = TypeVar("A", orders.ExportAnswer, orders.ReferenceAnswer, orders.InstallAnswer)

#: A worker that finds less free on the store's disk would fail minutes later.
_LEAST_FREE_BYTES = 64 << 20
#: What the environment of a toolchain takes.
_ENVIRONMENT_BYTES = 2 << 30


def export(task: ExportTask, home: Path, emit: Emit, stop: threading.Event) -> ExportResult:
    """Provide one artifact: from the store, or made now and remembered.

    Raises:
        ExportError: The source or the recipe is wrong, the worker failed, or it took too long.
        StoreError: The disk is full, or the store can't be used.
        Interrupted: `stop` was set.
    """
    request = task.request
    store = ContentStore(paths.store_root(home))
    cache = paths.model_cache(home)
    started = time.monotonic()
    environment = _environment(request.toolchain, home, task.resources, emit, stop)
    prepared = identify.prepare_export(
        request, cache, environment.versions, _bytes_stage(emit, stop, started)
    )
    key = prepared.key
    actions, action = ActionCache(store), f"export-{key}"

    def telling(event: StageEvent) -> None:
        actions.write_progress(action, _progress_text(event))
        emit(event)

    def work() -> ExportResult:
        store.require_space(_LEAST_FREE_BYTES + prepared.disk_bytes)
        with store.scratch() as staging:
            threads = _threads(task.resources)
            order = orders.ExportOrder(request, key, str(cache), str(staging), threads)
            worker = _Worker(order, environment.python, task.resources.timeout_s)
            answer = worker.run(orders.ExportAnswer, telling, stop)
            _adopt(store, staging, answer.files)
            return answer.result

    on_wait = waiting(emit, stop, progress=lambda: actions.read_progress(action))
    result, hit = actions.cached(action, ExportResult, work, on_wait)
    # One artifact may serve several names: the one that was asked for is what is reported.
    bundle = replace(
        result.bundle,
        model=request.model.name,
        recipe=request.recipe.name,
        toolchain=request.toolchain.name,
    )
    return replace(result, bundle=bundle, cache_hit=hit, environment=environment.key)


def reference(
    task: ReferenceTask, home: Path, emit: Emit, stop: threading.Event
) -> ReferenceResult:
    """Provide token ids and eager logits of a text, from the store or made now.

    Raises:
        ExportError, StoreError, Interrupted: As `export`.
    """
    request = task.request
    store = ContentStore(paths.store_root(home))
    cache = paths.model_cache(home)
    key = identify.reference_key(request, known_digest(cache))

    def work() -> ReferenceResult:
        store.require_space(_LEAST_FREE_BYTES)
        with store.scratch() as staging:
            threads = _threads(task.resources)
            order = orders.ReferenceOrder(request, str(cache), str(staging), threads)
            worker = _Worker(order, Path(sys.executable), task.resources.timeout_s)
            answer = worker.run(orders.ReferenceAnswer, emit, stop)
            _adopt(store, staging, answer.files)
            return answer.result

    result, hit = ActionCache(store).cached(
        f"reference-{key}", ReferenceResult, work, waiting(emit, stop)
    )
    return replace(result, cache_hit=hit)


def _environment(
    toolchain: Toolchain, home: Path, resources: Resources, emit: Emit, stop: threading.Event
) -> Environment:
    """Provide the environment of a toolchain; of several that want one, one builds it.

    Raises:
        ConfigError, ExportError: The toolchain can't be had; says why.
        StoreError: There is no space for it.
        Interrupted: `stop` was set.
    """
    if not toolchain.executorch:
        return own_environment()
    order = install_order(toolchain, paths.toolchain_root(home))
    folder = Path(order.folder)
    store = ContentStore(paths.store_root(home))
    found = find_environment(folder)
    if found is not None:
        return found
    on_wait = waiting(emit, stop, f"another export installs toolchain {toolchain.name}")
    with ActionCache(store).lock(f"toolchain-{folder.name}", on_wait):
        found = find_environment(folder)
        if found is None:
            store.require_space(_ENVIRONMENT_BYTES)
            worker = _Worker(order, Path(sys.executable), resources.timeout_s)
            worker.run(orders.InstallAnswer, emit, stop)
            found = find_environment(folder)
    if found is None:
        raise ExportError(f"toolchain {toolchain.name}: {folder} was removed while it was built")
    return found


class _Worker:
    """One order and the process that performs it."""

    def __init__(self, order: orders.Order, python: Path, timeout_s: float) -> None:
        self._order, self._python, self._timeout_s = order, python, timeout_s
        self._stage = "start"

    def run(self, kind: type[A], emit: Emit, stop: threading.Event) -> A:
        """Have the order performed, relay its stages, return its answer.

        Raises:
            FarmError: The worker's own error; ExportError when it ended without one or was
                ended because it took too long.
            Interrupted: `stop` was set; the worker and its children are gone.
        """
        with kept_worker.lent(self._python) as worker:
            message = self._answered(worker, emit, stop)
        if message["type"] == "error":
            raise _error(message)
        return _answer(kind, message)

    def _answered(
        self, worker: kept_worker.Worker, emit: Emit, stop: threading.Event
    ) -> dict[str, Any]:
        """Relay what a worker says until its process for this order has ended."""
        started, deadline = time.monotonic(), Deadline(self._timeout_s)
        answer: dict[str, Any] | None = None
        worker.order(codec.to_json(self._order))
        while True:
            if stop.is_set():
                raise Interrupted(f"{_name(self._order)} was cancelled")
            if deadline.passed:
                raise self._too_long()
            try:
                line = worker.lines.get(timeout=0.1)
            except queue.Empty:
                continue
            if line is None:
                line = json.dumps({"type": "end", "code": worker.code()})
            message = _parsed(line)
            match message.get("type"):
                case "stage":
                    self._stage = str(message["name"])
                    emit(_stage(message))
                case "progress":
                    emit(_download(message, time.monotonic() - started))
                case "result" | "error":
                    answer = message
                case "end":
                    if answer is None:
                        raise _ended_early(int(message["code"]), worker.tail, self._order)
                    return answer

    def _too_long(self) -> ExportError:
        return ExportError(
            f"{_name(self._order)} did not end within {self._timeout_s:g} s, its last stage was"
            f" {self._stage!r}; allow more with `export: {{timeout_s: ...}}`",
            stage=self._stage,
            timeout_s=self._timeout_s,
        )


def _name(order: orders.Order) -> str:
    if isinstance(order, orders.InstallOrder):
        return f"installing toolchain {order.toolchain.name}"
    return f"{order.task} of {order.request.model.name}"


def _parsed(line: str) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except ValueError:
        message = None
    if not isinstance(message, dict):
        raise ExportError(f"the worker printed something that is not its protocol: {line[:200]!r}")
    return message


def _answer(kind: type[A], message: dict[str, Any]) -> A:
    try:
        return codec.from_data(kind, message["result"])
    except (KeyError, pydantic.ValidationError) as error:
        raise ExportError(f"the worker's result can't be read: {error}") from error


def _error(message: dict[str, Any]) -> FarmError:
    """Rebuild a worker's error: one of our own tree, by name."""
    kind = getattr(errors, str(message.get("kind")), None)
    if not (isinstance(kind, type) and issubclass(kind, FarmError)):
        kind = ExportError
    context = message.get("context")
    return kind(str(message.get("message")), **(context if isinstance(context, dict) else {}))


def _ended_early(code: int, tail: list[str], order: orders.Order) -> FarmError:
    why = f"signal {-code}" if code < 0 else f"exit code {code}"
    killed = " (was this machine out of memory?)" if code == -signal.SIGKILL else ""
    return ExportError(
        f"{_name(order)}: the worker ended with {why}{killed}."
        f" Its last output: {''.join(tail).strip() or 'nothing'}",
        code=code,
    )


def _stage(message: dict[str, Any]) -> StageEvent:
    return StageEvent(
        name=str(message["name"]),
        index=int(message["index"]),
        count=int(message["count"]),
        elapsed_s=float(message["elapsed_s"]),
        detail=str(message.get("detail", "")),
    )


def _download(message: dict[str, Any], elapsed_s: float) -> StageEvent:
    return StageEvent(
        name="download",
        index=0,
        count=0,
        elapsed_s=elapsed_s,
        done_bytes=int(message["done_bytes"]),
        total_bytes=int(message["total_bytes"]),
    )


def _bytes_stage(emit: Emit, stop: threading.Event, started: float) -> Callable[[int, int], None]:
    """Show a download that happens in this process, and allow to end it."""

    def on_bytes(done: int, total: int) -> None:
        if stop.is_set():
            raise Interrupted("the download was cancelled; the next run goes on where it was")
        message = {"done_bytes": done, "total_bytes": total}
        emit(_download(message, time.monotonic() - started))

    return on_bytes


def _progress_text(event: StageEvent) -> str:
    """How far an export is, for those who wait for it."""
    done = f" {event.index}/{event.count}" if event.count else ""
    return f"pid {os.getpid()}: {event.name}{done}{f' ({event.detail})' if event.detail else ''}"


def waiting(
    emit: Emit,
    stop: threading.Event,
    detail: str = "another process works on it",
    progress: Callable[[], str] = lambda: "",
) -> Callable[[float], None]:
    """Show the wait for another process that works on the same key, and allow to end it.

    Args:
        emit: Takes progress.
        stop: Set to end the wait.
        detail: What is waited for.
        progress: How far the other process is, in its own words.
    """

    def on_wait(seconds: float) -> None:
        if stop.is_set():
            raise Interrupted("cancelled while another process works on the same thing")
        text = progress()
        shown = f"{detail}: {text}" if text else detail
        emit(StageEvent("waiting", 0, 0, seconds, shown))

    return on_wait


def _adopt(store: ContentStore, staging: Path, files: dict[str, str]) -> None:
    for sha256, name in files.items():
        ref = store.adopt(staging / Path(name).name)
        if ref.sha256 != sha256:
            raise ExportError(f"{name} changed while it was moved into the content store")


def _threads(resources: Resources) -> int:
    """Threads of a worker: the CPUs that were set aside for it, else every core."""
    return resources.cpus or usable_cpus()
