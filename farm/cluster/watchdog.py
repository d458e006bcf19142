"""Ends a process whose Ray doesn't start.

A process of its own: Ray's native start may block while it holds the interpreter, so that no
thread of the starting process runs any more.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from farm.cluster.ray_processes import end, stopped_ray_of
from farm.cluster.start_failure import cannot_start
from farm.core.errors import PlanError
from farm.core.printable import printable

#: A C handler gets the signal's number as its argument. With `_exit` as the handler this signal
#: ends a process at once, whatever it is blocked in, with the exit code of PlanError.
_END = signal.SIGQUIT
assert PlanError.exit_code == _END, "the exit code is the signal's number"


@contextlib.contextmanager
def limited(limit_s: float, cluster: str) -> Iterator[None]:
    """End this process when the block takes longer than `limit_s`, with the likely cause."""
    libc = ctypes.CDLL(None)
    libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    libc.signal.restype = ctypes.c_void_p
    sources = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (sources, os.environ.get("PYTHONPATH"))))
    watchdog = subprocess.Popen(
        [
            sys.executable,
            "-P",
            "-m",
            "farm.cluster.watchdog",
            str(os.getpid()),
            str(limit_s),
            cluster,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    previous = libc.signal(_END, ctypes.cast(libc._exit, ctypes.c_void_p))
    try:
        yield
    finally:
        watchdog.communicate()
        libc.signal(_END, previous)


def main(pid: int, limit_s: float, cluster: str) -> None:
    """Wait for the end of standard input; after the limit say why and end the process."""
    if select.select([sys.stdin], [], [], limit_s)[0]:
        return
    if cluster == "local":
        error = cannot_start(f"it did not start within {limit_s:.0f} s")
    else:
        error = PlanError(f"no Ray cluster answered at {cluster} within {limit_s:.0f} s")
    os.write(2, f"farm: {printable(error.message)}\n".encode())
    own = stopped_ray_of(pid) if cluster == "local" else []
    os.kill(pid, _END)
    end(own)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3])
