"""`python -m models.worker`: one task in a process of its own, in any toolchain's interpreter.

One JSON request on stdin, JSON lines on stdout:
    {"type": "stage", "name", "index", "count", "elapsed_s", "detail"}
    {"type": "progress", "done_bytes", "total_bytes"}
    {"type": "result", "result": {...}}
    {"type": "error", "kind": "ExportError", "message", "context"}
Whatever libraries print goes to stderr.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import sys
import threading
import time
from typing import Any, TextIO

import pydantic

from farm import codec
from farm.core.errors import ConfigError, ExportError, FarmError, StoreError
from models.orders import ExportOrder, InstallAnswer, InstallOrder, Order, ReferenceOrder

log = logging.getLogger(__name__)

#: Seconds between two progress lines of a download.
_PROGRESS_S = 0.2

#: Argument: the request is one line, and standard input stays open as long as the caller lives.
#: The process has to lead a group of its own.
WITH_PARENT = "--with-parent"


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


def main() -> int:
    """Run one task; the exit code is 0 exactly when a result was written."""
    # Libraries print to file descriptor 1 from C as well: it becomes stderr for all of them.
    protocol = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    report = Reporter(protocol)
    try:
        if WITH_PARENT in sys.argv[1:]:
            text = sys.stdin.readline()
            threading.Thread(target=_end_with_parent, daemon=True).start()
        else:
            text = sys.stdin.read()
        report.result(perform(read_order(text), report))
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
    sys.exit(main())
