"""`python -m models.worker`: tasks, each in a process of its own, in any toolchain's interpreter.

JSON requests on stdin, JSON lines on stdout:
    {"type": "stage", "name", "index", "count", "elapsed_s", "detail"}
    {"type": "progress", "done_bytes", "total_bytes"}
    {"type": "result", "result": {...}}
    {"type": "error", "kind": "ExportError", "message", "context"}
    {"type": "end", "code"}     the process of that request has ended
Whatever libraries print goes to stderr. Standard input stays open as long as the caller lives, and
the process has to lead a group of its own.
"""

from __future__ import annotations

import errno
import gc
import importlib
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn, TextIO

import pydantic

from farm import codec
from farm.core.errors import ConfigError, ExportError, FarmError, StoreError
from models.orders import ExportOrder, InstallAnswer, InstallOrder, Order, ReferenceOrder

log = logging.getLogger(__name__)

#: Seconds between two progress lines of a download.
_PROGRESS_S = 0.2

#: What tasks import at last, whatever the recipe.
_LIBRARIES = {
    "export": ("models.eager.layer_replay", "models.lowering.engine"),
    "reference": ("models.reference.logits",),
}


class Reporter:
    """Writes protocol lines."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._started = time.monotonic()
        self._last_progress = 0.0

    def stage(self, name: str, index: int, count: int, detail: str = "") -> None:
        """Say which stage runs now."""
        elapsed = round(time.monotonic() - self._started, 3)
        self._line("stage", name=name, index=index, count=count, elapsed_s=elapsed, detail=detail)

    def progress(self, done: int, total: int) -> None:
        """Say how much of a download is here; most calls are dropped."""
        now = time.monotonic()
        if now - self._last_progress >= _PROGRESS_S or done == total:
            self._last_progress = now
            self._line("progress", done_bytes=done, total_bytes=total)

    def result(self, value: object) -> None:
        """Hand over the answer."""
        self._line("result", result=codec.to_data(value))

    def error(self, error: FarmError) -> None:
        """Hand over the error that ended the task."""
        context = {key: str(value) for key, value in error.context.items()}
        self._line("error", kind=type(error).__name__, message=str(error), context=context)

    def end(self, code: int) -> None:
        """Say that the process of a request has ended; -N for signal N."""
        self._line("end", code=code)

    def _line(self, line_type: str, **fields: Any) -> None:
        self._out.write(json.dumps({"type": line_type, **fields}, separators=(",", ":")) + "\n")
        self._out.flush()


def read_order(text: str) -> Order:
    """Parse a request.

    Raises:
        ConfigError: It isn't one of this protocol.
    """
    try:
        data = json.loads(text)
        kinds: dict[str, type[Order]] = {
            "export": ExportOrder,
            "reference": ReferenceOrder,
            "install": InstallOrder,
        }
        return codec.from_data(kinds[data["task"]], data)
    except (ValueError, KeyError, TypeError, pydantic.ValidationError) as error:
        raise ConfigError(f"worker: not a request of this protocol: {error}") from error


def perform(order: Order, report: Reporter) -> object:
    """Do a task.

    Raises:
        FarmError: It failed.
    """
    if isinstance(order, ExportOrder):
        from models.exporting.task import run_export

        return run_export(order, report)
    if isinstance(order, InstallOrder):
        from models.toolchain import build_environment

        name = f"installing toolchain {order.toolchain.name}"
        return InstallAnswer(build_environment(order, lambda line: report.stage(name, 0, 0, line)))
    from models.reference.task import run_reference

    return run_reference(order, report)


def _end_with_parent() -> None:
    """End this process group when standard input closes: whoever held it open is gone."""
    sys.stdin.read()
    os.killpg(0, signal.SIGKILL)


def main() -> NoReturn:
    """Perform one request after the other, until whoever makes them is gone."""
    # Libraries print to file descriptor 1 from C as well: it becomes stderr for all of them.
    protocol = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    while line := sys.stdin.readline():
        report = Reporter(protocol)
        report.end(_in_child(line, report))
    # Taking the libraries down in good order would take a second.
    sys.stderr.flush()
    os._exit(0)


def _in_child(line: str, report: Reporter) -> int:
    """Perform a request in a fork, which leaves nothing behind; returns its exit code.

    The libraries are imported before, once for all requests. Nothing is computed with them here:
    threads of theirs would not be there after the fork.
    """
    code = _fenced(report, lambda: _import_libraries(read_order(line)))
    if code:
        return code
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        threading.Thread(target=_end_with_parent, daemon=True).start()
        code = _fenced(report, lambda: report.result(perform(read_order(line), report)))
    except BaseException:
        log.exception("the worker's process failed")
        code = 1
    finally:
        sys.stderr.flush()
        os._exit(code)


def _import_libraries(order: Order) -> None:
    """Import what a task imports later, where that takes seconds."""
    if isinstance(order, InstallOrder) or order.request.model.kind == "pte":
        return
    if isinstance(order, ExportOrder) and order.request.recipe.engine == "none":
        return
    # What they hold stays to the end: it isn't garbage to look for, here or in a fork.
    gc.disable()
    try:
        for name in _LIBRARIES[order.task]:
            importlib.import_module(name)
    finally:
        gc.freeze()
        gc.enable()


def _fenced(report: Reporter, work: Callable[[], None]) -> int:
    """Report the error of a piece of work; 0 when there was none."""
    try:
        work()
    except FarmError as error:
        report.error(error)
        return 1
    except MemoryError:
        report.error(ExportError("not enough memory on this machine for this export"))
        return 1
    except OSError as error:
        log.exception("the worker's task failed")
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            text = (
                "no space is left on the disk of FARM_HOME; free some, or set FARM_HOME elsewhere"
            )
            report.error(StoreError(text))
        else:
            report.error(ExportError(f"{error.strerror or error}: {error.filename or 'a file'}"))
        return 1
    except Exception as error:  # fences one task: torch and executorch raise whatever they like
        log.exception("the worker's task failed")
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        report.error(ExportError(f"the exporter failed: {text[:400]}"))
        return 1
    return 0


if __name__ == "__main__":
    main()
