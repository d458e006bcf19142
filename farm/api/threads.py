"""A run in a thread of its own, for callers that have an event loop already, such as notebooks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path
from typing import TypeVar

from farm.core.errors import ConfigError, StoreError
from farm.core.view import RunStarted, ViewEvent
from farm.run import control

_T = TypeVar("_T")

Emit = Callable[[ViewEvent], None]

#: Pause before a run is told again to end: the first time may be too early.
_AGAIN_S = 0.5


def in_thread(work: Callable[[Emit], _T], emit: Emit) -> _T:
    """Do the work of a run elsewhere; Ctrl-C here ends it in order, as one that was interrupted.

    Raises:
        KeyboardInterrupt: Ctrl-C, and the run had come to its own end before it could be told.
    """
    started: list[RunStarted] = []
    ended: Future[_T] = Future()

    def tell(event: ViewEvent) -> None:
        if isinstance(event, RunStarted):
            started.append(event)
        emit(event)

    def do() -> None:
        try:
            ended.set_result(work(tell))
        except BaseException as error:  # whatever it is, the caller has to get it
            ended.set_exception(error)

    try:
        threading.Thread(target=do, name="farm-run").start()
        # Not `result()` at once: a signal just before it blocks would be seen when it returns.
        while not ended.done():
            wait([ended], _AGAIN_S)
        return ended.result()
    except KeyboardInterrupt:
        told = False
        while not ended.done():
            told = told or (bool(started) and _interrupted(started[0]))
            wait([ended], _AGAIN_S)
        result = ended.result()
        if not told:
            raise
        return result


def _interrupted(run: RunStarted) -> bool:
    """End the run as a signal would, which would reach the main thread, and that is ours."""
    try:
        control.cancel(Path(run.folder))
    except (ConfigError, StoreError):  # it can't be ended yet, or any more
        return False
    return True
