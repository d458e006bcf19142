"""The control channel of a run: a Unix socket in its folder, for `farm watch` and `farm cancel`.

Lines of JSON. `{"events": AFTER}` is answered by every event after that number, until the run
ends; `{"cancel": true}` ends the run as Ctrl-C does, `{"cancel": CELL, "by": WHO}` one cell of it;
both are answered by one line. The socket is its owner's alone (0600). On a cluster the same
requests come through farm.cluster.ray_relay.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from farm import codec
from farm.core.errors import ConfigError, FarmError, StoreError
from farm.core.events import JobFinished, JobProgress, JobStarted
from farm.core.runtime import AttemptId
from farm.core.view import DeviceNote, RunEnded, TaskFinished, TaskProgress, ViewEvent
from farm.run.interrupts import End

log = logging.getLogger(__name__)

SOCKET = "control"
#: Longest request, bytes.
_LINE = 1 << 20
#: Longest time for a client to send its request, seconds.
_REQUEST_S = 10.0
CancelCell = Callable[[str, str], str]
_KINDS: dict[str, Any] = {kind.__name__: kind for kind in get_args(ViewEvent)}


def to_line(seq: int, event: ViewEvent) -> bytes:
    """Write an event as one line; what a device measured is left to the report."""
    data = _finished_data(event) if isinstance(event, JobFinished) else codec.to_data(event)
    made = {"seq": seq, "kind": type(event).__name__, "event": data}
    return json.dumps(made, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def from_line(line: bytes) -> tuple[int, ViewEvent]:
    """Read an event.

    Raises:
        FarmError: It is none of this version of farm.
    """
    try:
        made = json.loads(line)
        kind, data = made["kind"], made["event"]
        if kind == JobFinished.__name__:
            error = None if data["error"] is None else FarmError(data["error"])
            attempt = codec.from_data(AttemptId, data["attempt_id"])
            return made["seq"], JobFinished(attempt, data["device"], data["at"], None, error)
        event: ViewEvent = codec.from_data(_KINDS[kind], data)
        return made["seq"], event
    except (ValueError, KeyError, TypeError) as error:
        raise FarmError(
            f"the run's control socket sent what this farm can't read ({error}): is the run of"
            " another version?"
        ) from error


def _finished_data(event: JobFinished) -> dict[str, Any]:
    return {
        "attempt_id": codec.to_data(event.attempt_id),
        "device": event.device,
        "at": event.at,
        "error": None if event.error is None else str(event.error),
    }


class EventLog:
    """The events of a run, numbered from 1; what newer ones make pointless is forgotten.

    It holds one event of progress for each task and device at work, so that it grows with the
    plan and not with the length of the run.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[object, ...], tuple[int, ViewEvent]] = {}
        self._seq = 0

    def add(self, event: ViewEvent) -> None:
        """Keep an event. Called in the loop's own thread."""
        self._seq += 1
        key = _key(self._seq, event)
        self._kept.pop(key, None)
        self._kept[key] = (self._seq, event)
        if isinstance(event, JobFinished):
            self._kept.pop(("progress", event.device), None)
        if isinstance(event, TaskFinished):
            self._kept.pop(("task", event.kind, event.name), None)

    def after(self, seq: int) -> list[tuple[int, ViewEvent]]:
        """The events after a number, oldest first."""
        found = []
        for item in reversed(self._kept.values()):
            if item[0] <= seq:
                break
            found.append(item)
        return found[::-1]


def _key(seq: int, event: ViewEvent) -> tuple[object, ...]:
    match event:
        case JobProgress():
            return ("progress", event.device)
        case TaskProgress():
            return ("task", event.kind, event.name)
        case DeviceNote():
            return ("note", event.device)
        case JobStarted():
            return ("started", event.device)
        case JobFinished():
            return ("finished", event.device)
    return ("event", seq)


@contextlib.contextmanager
def _reachable(path: Path) -> Iterator[str]:
    """Name a socket in 107 bytes, which is what a Unix socket's address may have."""
    if len(os.fsencode(path)) < 100:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


class ControlServer:
    """Serves one run while it goes on.

    Args:
        folder: The run's folder.
    """

    #: Pause between looks for new events, seconds: what a person sees is no later than that.
    LOOK_S = 0.2

    def __init__(self, folder: Path) -> None:
        self._path = folder / SOCKET
        self._log = EventLog()
        self._ended = asyncio.Event()
        self._clients: set[asyncio.Task[None]] = set()
        #: Ends a cell, given its id and who wants that; says why it can't.
        self._cancel_cell: CancelCell = _not_yet
        #: Ends the run. Signals reach the main thread, which is somebody else's if we aren't in it.
        main = threading.current_thread() is threading.main_thread()
        self._end: End = _signalled if main else lambda: _not_yet("", "")

    def cancels(self, cancel_cell: CancelCell) -> None:
        """Let single cells be cancelled from now on."""
        self._cancel_cell = cancel_cell

    def ends(self, end: End) -> None:
        """Let the run be ended by this from now on, and not by a signal."""
        self._end = end

    def emit(self, event: ViewEvent) -> None:
        """Let those who watch see an event."""
        self._log.add(event)
        if isinstance(event, RunEnded):
            self._ended.set()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Serve inside the block; a run whose folder can't have a socket goes on without one."""
        try:
            server = await self._listen()
        except OSError as error:
            log.warning(
                "`farm watch` and `farm cancel` can't reach this run: no socket at %s: %s",
                self._path, error,
            )  # fmt: skip
            yield
            return
        try:
            yield
        finally:
            self._ended.set()
            server.close()
            if self._clients:
                await asyncio.wait(self._clients, timeout=1.0)
            for client in self._clients:
                client.cancel()
            self._path.unlink(missing_ok=True)

    async def _listen(self) -> asyncio.Server:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._path.unlink(missing_ok=True)  # of a run that was killed; the lock is ours
            with _reachable(self._path) as name:
                mask = os.umask(0o177)
                try:
                    listener.bind(name)
                finally:
                    os.umask(mask)
            return await asyncio.start_unix_server(self._serve, sock=listener, limit=_LINE)
        except BaseException:
            listener.close()
            raise

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "a handler runs in a task of its own"
        self._clients.add(task)
        try:
            async with asyncio.timeout(_REQUEST_S):
                request = json.loads(await reader.readline())
            match request:
                case {"events": int(after)}:
                    await self._send_events(writer, after)
                case _:
                    writer.write(self._ended_by(request))
                    await writer.drain()
        except (OSError, ValueError, TimeoutError) as error:
            log.debug("a client of the control socket: %s", error)  # it went away, or is no farm
        finally:
            self._clients.discard(task)
            writer.close()

    async def answer(self, request: Mapping[str, object]) -> list[bytes]:
        """Answer a request of another host: the events there are, after a moment if there are none.

        Args:
            request: As over the socket; events come with the number of the last one that is known.
        """
        match request:
            case {"events": int(after)}:
                if not (found := self._log.after(after)) and not self._ended.is_set():
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._ended.wait(), 5 * self.LOOK_S)
                    found = self._log.after(after)
                return [to_line(seq, event) for seq, event in found]
        return [self._ended_by(request)]

    def _ended_by(self, request: Mapping[str, object]) -> bytes:
        """End the run, or a cell of it; return the answer."""
        match request:
            case {"cancel": True}:
                problem = self._end()
            case {"cancel": str(cell_id), "by": str(by)}:
                problem = self._cancel_cell(cell_id, by)
            case _:
                problem = "ask for events or cancel"
        made = {"error": problem} if problem else {"cancelled": True}
        return json.dumps(made, separators=(",", ":")).encode() + b"\n"

    async def _send_events(self, writer: asyncio.StreamWriter, after: int) -> None:
        while True:
            last = self._ended.is_set()
            for seq, event in self._log.after(after):
                writer.write(to_line(seq, event))
                after = seq
            await writer.drain()
            if last:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), self.LOOK_S)


def watch(folder: Path, after: int = 0) -> Iterator[ViewEvent]:
    """Yield the events of a run until it ends, or is killed.

    Raises:
        StoreError: Nobody serves it.
    """
    with _connected(folder, {"events": after}) as lines:
        for line in lines:
            yield from_line(line)[1]


def cancel(folder: Path, cell_id: str = "", by: str = "") -> None:
    """End a run in order, as Ctrl-C there does, or one cell of it.

    Args:
        folder: The run.
        cell_id: The cell; empty for the run.
        by: Who wants that, for the cell's reason.

    Raises:
        StoreError: Nobody serves it.
        ConfigError: It has no such cell, or the cell has ended.
    """
    with _connected(folder, cancelling(cell_id, by)) as lines:
        check_cancelled(list(lines), f"in {folder}")


def cancelling(cell_id: str, by: str) -> dict[str, object]:
    """Return the request that ends a cell, or the run."""
    return {"cancel": cell_id, "by": by} if cell_id else {"cancel": True}


def check_cancelled(answer: Sequence[bytes], run: str) -> None:
    """Read the answer to a cancellation.

    Raises:
        StoreError: There is none.
        ConfigError: It was refused.
    """
    said = [json.loads(line) for line in answer]
    if problem := next((one["error"] for one in said if "error" in one), ""):
        raise ConfigError(str(problem))
    if not any(one.get("cancelled") for one in said):
        raise StoreError(f"the run {run} ended before it answered")


def _signalled() -> str:
    """Do what Ctrl-C does, wherever the run is."""
    os.kill(os.getpid(), signal.SIGINT)
    return ""


def _not_yet(_cell_id: str, _by: str) -> str:
    return "the run has not begun its cells yet: try again in a moment"


@contextlib.contextmanager
def _connected(folder: Path, request: Mapping[str, object]) -> Iterator[Iterator[bytes]]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            with _reachable(folder / SOCKET) as name:
                client.connect(name)
        except OSError as error:
            raise StoreError(
                f"no run is going on in {folder} ({error.strerror}); `farm report {folder.name}`"
                " shows one that ended"
            ) from error
        client.sendall(json.dumps(request).encode() + b"\n")
        with client.makefile("rb") as file:
            yield iter(file)
