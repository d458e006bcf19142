"""Processes of models.worker, kept for the next order: importing their libraries takes seconds.

Such a process forks a child for each order, so what one order leaks or breaks ends with it. What
an order is, and what its lines mean, is not known here.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from farm.core import errors
from farm.host.interpreter import without_foreign

log = logging.getLogger(__name__)

#: Time between the request to end and the kill of a worker, seconds.
_TERMINATE_S = 0.5
#: How long a worker without an order is kept, seconds; it holds some 300 MB.
_KEPT_S = 30.0
#: Lines of a worker's standard error that an error message quotes.
_TAIL_LINES = 15
#: The folder that `farm` and `models` are imported from.
_SOURCES = Path(errors.__file__).parents[2]


class Worker:
    """A worker process in a group of its own, started with this process's environment."""

    def __init__(self, python: Path) -> None:
        self._process = subprocess.Popen(
            [python, "-m", "models.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="backslashreplace",
            start_new_session=True,
            cwd=_SOURCES,
            env=worker_environment(),
        )
        #: What it writes; None when it has ended.
        self.lines: queue.Queue[str | None] = queue.Queue()
        #: The end of its standard error, and of its children's.
        self.tail: list[str] = []
        self._readers = [
            threading.Thread(target=self._read_lines, args=(self._process.stdout,), daemon=True),
            threading.Thread(target=self._keep_tail, args=(self._process.stderr,), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def order(self, text: str) -> None:
        """Give it one line to perform. What comes of a worker that is gone stands in its lines."""
        self.tail.clear()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(text + "\n")
            self._process.stdin.flush()

    @property
    def lives(self) -> bool:
        """False when it ended by itself, or was killed while nobody looked."""
        return self._process.poll() is None

    def code(self) -> int:
        """Exit code of a worker whose lines have ended."""
        return self._process.wait()

    def end(self) -> None:
        """End its whole group: the worker, the child with the order, and that one's children."""
        for number, limit in ((signal.SIGTERM, _TERMINATE_S), (signal.SIGKILL, None)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(limit)
        for reader in self._readers:
            reader.join()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()

    def _read_lines(self, stream: IO[str]) -> None:
        for line in stream:
            self.lines.put(line)
        self.lines.put(None)

    def _keep_tail(self, stream: IO[str]) -> None:
        for line in stream:
            log.debug("worker: %s", line.rstrip())
            self.tail.append(line)
            del self.tail[:-_TAIL_LINES]


def worker_environment() -> dict[str, str]:
    """Environment of a process of farm's own: this one's, but Python's settings are its own."""
    kept = without_foreign(os.environ)
    return {**kept, "PYTHONPATH": str(_SOURCES), "PYTHONIOENCODING": "utf-8:backslashreplace"}


_Kind = tuple[Path, tuple[tuple[str, str], ...]]
#: Workers without an order, by interpreter and environment.
_idle: dict[_Kind, list[Worker]] = {}
#: Guards the lists, from tasks' threads and timers.
_lock = threading.Lock()


@contextlib.contextmanager
def lent(python: Path) -> Iterator[Worker]:
    """Lend a worker for one order: an idle one with this interpreter and environment, or a new one.

    The block ends well when the order ended, whatever came of it; after an error the worker is gone
    with its children.
    """
    kind = (python, tuple(sorted(os.environ.items())))
    worker = _take(kind) or Worker(python)
    try:
        yield worker
    except BaseException:
        worker.end()
        raise
    with _lock:
        _idle.setdefault(kind, []).append(worker)
    timer = threading.Timer(_KEPT_S, _let_go, (kind, worker))
    timer.daemon = True
    timer.start()


def _take(kind: _Kind) -> Worker | None:
    with _lock:
        workers = _idle.get(kind, [])
        while workers:
            worker = workers.pop()
            if worker.lives:
                return worker
            worker.end()
    return None


def _let_go(kind: _Kind, worker: Worker) -> None:
    with _lock:
        workers = _idle.get(kind, [])
        if worker not in workers:
            return
        workers.remove(worker)
    worker.end()


@atexit.register
def end_idle() -> None:
    """End the workers that have no order."""
    with _lock:
        workers = [worker for kept in _idle.values() for worker in kept]
        _idle.clear()
    for worker in workers:
        worker.end()
