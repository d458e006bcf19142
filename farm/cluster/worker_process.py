"""Export and reference in a worker process with the interpreter of their toolchain.

The worker writes into a scratch folder of the content store; what it made is moved into the
store here, and remembered under its key. Not to be confused with a Ray worker.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, TypeVar

import pydantic

from farm import codec
from farm import home as layout
from farm.core import errors
from farm.core.artifact import (
    ExportRequest,
    ExportResult,
    ReferenceRequest,
    ReferenceResult,
    StageEvent,
)
from farm.core.errors import ExportError, FarmError, Interrupted
from farm.site.actions import ActionCache
from farm.site.store import ContentStore
from models import prepare as model_prepare
from models import protocol
from models.toolchain import ensure_environment
from models.worker import WITH_PARENT

log = logging.getLogger(__name__)

Emit = Callable[[StageEvent], None]
A = TypeVar("A", protocol.ExportAnswer, protocol.ReferenceAnswer)

#: A worker that is told to end gets this long before it is killed, seconds.
_TERMINATE_S = 0.5
#: Lines of a worker's standard error that an error message quotes.
_TAIL_LINES = 15
#: A worker that finds less free on the store's disk would fail minutes later.
_LEAST_FREE_BYTES = 64 << 20
#: The folder that `farm` and `models` are imported from.
_SOURCES = Path(errors.__file__).parents[2]


def export(request: ExportRequest, home: Path, emit: Emit, stop: threading.Event) -> ExportResult:
    """Provide one artifact: from the store, or made now and remembered.

    Raises:
        ExportError: The source or the recipe is wrong, or the worker failed.
        StoreError: The disk is full, or the store can't be used.
        Interrupted: `stop` was set.
    """
    store = ContentStore(layout.store_root(home))
    cache = layout.model_cache(home)
    started = time.monotonic()
    environment = ensure_environment(
        request.toolchain, layout.toolchain_root(home), _pip_stage(emit, stop, started)
    )
    key = model_prepare.prepare_export(
        request, cache, environment.versions, _bytes_stage(emit, stop, started)
    ).key

    def work() -> ExportResult:
        store.require_space(_LEAST_FREE_BYTES)
        with store.scratch() as staging:
            order = protocol.ExportOrder(request, key, str(cache), str(staging), _threads())
            answer = _run(order, protocol.ExportAnswer, emit, stop, environment.python)
            _adopt(store, staging, answer.files)
            return answer.result

    result, hit = ActionCache(store).cached(
        f"export-{key}", ExportResult, work, waiting(emit, stop)
    )
    # One artifact may serve several names: the one that was asked for is what is reported.
    bundle = replace(
        result.bundle,
        model=request.model.name,
        recipe=request.recipe.name,
        toolchain=request.toolchain.name,
    )
    return replace(result, bundle=bundle, cache_hit=hit)


def reference(
    request: ReferenceRequest, home: Path, emit: Emit, stop: threading.Event
) -> ReferenceResult:
    """Provide token ids and eager logits of a text, from the store or made now.

    Raises:
        ExportError, StoreError, Interrupted: As `export`.
    """
    store = ContentStore(layout.store_root(home))
    cache = layout.model_cache(home)
    key = model_prepare.reference_key(request)

    def work() -> ReferenceResult:
        store.require_space(_LEAST_FREE_BYTES)
        with store.scratch() as staging:
            order = protocol.ReferenceOrder(request, str(cache), str(staging), _threads())
            answer = _run(order, protocol.ReferenceAnswer, emit, stop, Path(sys.executable))
            _adopt(store, staging, answer.files)
            return answer.result

    result, hit = ActionCache(store).cached(
        f"reference-{key}", ReferenceResult, work, waiting(emit, stop)
    )
    return replace(result, cache_hit=hit)


def _run(
    order: protocol.ExportOrder | protocol.ReferenceOrder,
    kind: type[A],
    emit: Emit,
    stop: threading.Event,
    python: Path,
) -> A:
    """Start a worker, relay its stages, return its answer.

    Raises:
        FarmError: The worker's own error; ExportError when it ended without one.
        Interrupted: `stop` was set; the worker and its children are gone.
    """
    started = time.monotonic()
    with _worker(python) as (process, lines, tail):
        assert process.stdin is not None
        process.stdin.write(codec.to_json(order) + "\n")
        process.stdin.flush()
        while True:
            if stop.is_set():
                raise Interrupted(f"{order.task} of {order.request.model.name} was cancelled")
            try:
                line = lines.get(timeout=0.1)
            except queue.Empty:
                continue
            if line is None:
                raise _ended_early(process, tail, order)
            message = _parsed(line)
            match message.get("type"):
                case "stage":
                    emit(_stage(message))
                case "progress":
                    emit(_download(message, time.monotonic() - started))
                case "result":
                    return _answer(kind, message)
                case "error":
                    raise _error(message)


@contextlib.contextmanager
def _worker(
    python: Path,
) -> Iterator[tuple[subprocess.Popen[str], queue.Queue[str | None], list[str]]]:
    """A worker process in a group of its own, gone with its children when the block ends."""
    process = subprocess.Popen(
        [python, "-m", "models.worker", WITH_PARENT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=_SOURCES,
        env={**os.environ, "PYTHONPATH": str(_SOURCES)},
    )
    lines: queue.Queue[str | None] = queue.Queue()
    tail: list[str] = []
    readers = [
        threading.Thread(target=_read_lines, args=(process.stdout, lines), daemon=True),
        threading.Thread(target=_keep_tail, args=(process.stderr, tail), daemon=True),
    ]
    for reader in readers:
        reader.start()
    try:
        yield process, lines, tail
    finally:
        _end(process)
        for reader in readers:
            reader.join()
        for stream in (process.stdin, process.stdout, process.stderr):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()


def _read_lines(stream: IO[str], lines: queue.Queue[str | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _keep_tail(stream: IO[str], tail: list[str]) -> None:
    for line in stream:
        log.debug("worker: %s", line.rstrip())
        tail.append(line)
        del tail[:-_TAIL_LINES]


def _end(process: subprocess.Popen[str]) -> None:
    """End the worker's whole group; a finished worker's children are ended too."""
    for number, limit in ((signal.SIGTERM, _TERMINATE_S), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(limit)


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


def _ended_early(
    process: subprocess.Popen[str],
    tail: list[str],
    order: protocol.ExportOrder | protocol.ReferenceOrder,
) -> FarmError:
    code = process.wait()
    why = f"signal {-code}" if code < 0 else f"exit code {code}"
    killed = " (was this machine out of memory?)" if code == -signal.SIGKILL else ""
    return ExportError(
        f"{order.task} of {order.request.model.name}: the worker ended with {why}{killed}."
        f" It said: {''.join(tail).strip() or 'nothing'}",
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


def _pip_stage(emit: Emit, stop: threading.Event, started: float) -> Callable[[str], None]:
    """Show how a toolchain's environment is built, and allow to end it."""

    def on_line(line: str) -> None:
        if stop.is_set():
            raise Interrupted("building the toolchain was cancelled; the next run begins it anew")
        emit(StageEvent("toolchain", 0, 0, time.monotonic() - started, line[:120]))

    return on_line


def _bytes_stage(emit: Emit, stop: threading.Event, started: float) -> Callable[[int, int], None]:
    """Show a download that happens in this process, and allow to end it."""

    def on_bytes(done: int, total: int) -> None:
        if stop.is_set():
            raise Interrupted("the download was cancelled; the next run goes on where it was")
        message = {"done_bytes": done, "total_bytes": total}
        emit(_download(message, time.monotonic() - started))

    return on_bytes


def waiting(emit: Emit, stop: threading.Event) -> Callable[[float], None]:
    """Show the wait for another process that works on the same key, and allow to end it."""

    def on_wait(seconds: float) -> None:
        if stop.is_set():
            raise Interrupted("cancelled while another process works on the same thing")
        emit(StageEvent("waiting", 0, 0, seconds, "another process works on it"))

    return on_wait


def _adopt(store: ContentStore, staging: Path, files: dict[str, str]) -> None:
    for sha256, name in files.items():
        ref = store.adopt(staging / Path(name).name)
        if ref.sha256 != sha256:
            raise ExportError(f"{name} changed while it was moved into the content store")


def _threads() -> int:
    """Threads of a worker: what Ray gave this task, else every core."""
    return int(os.environ.get("OMP_NUM_THREADS") or 0) or (os.cpu_count() or 1)
