"""One node of a cluster on this host: a process that is started, remembered and ended.

The process is `ray start --block`: when it ends, so does all that it started. Only what this
FARM_HOME started is ever ended; `ray stop` would end every Ray of the host.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from farm.clock import Deadline
from farm.cluster.bound import bound_environment, not_bound
from farm.cluster.ray_environment import QUIET
from farm.cluster.start_failure import (
    impatient,
    likely_causes,
    telling,
    too_busy,
    too_busy_twice,
)
from farm.core.errors import PlanError
from farm.paths import cluster_folder
from farm.state.json_file import changed_state, read_state

log = logging.getLogger(__name__)

#: Memory of the object store: events and small results travel through it, logits never do.
OBJECT_STORE_BYTES = 128 << 20
#: Longest time for a node to be part of its cluster, seconds; 4 s on an idle host.
START_S = 90.0
#: Longest time for a node to end by itself.
STOP_S = 15.0
_TAIL_BYTES = 8192
_KINDS = ("head", "site")


@dataclass(frozen=True, slots=True)
class Started:
    """A node that was started here."""

    #: `head` or `site`.
    kind: str
    #: Of the cluster, `HOST:PORT`.
    cluster: str
    #: What its sockets are bound to.
    address: str
    #: Name of the site; empty for a head.
    name: str
    token: str
    pid: int
    #: When the process began, so that another one of its number isn't taken for it.
    created: float

    @property
    def process(self) -> psutil.Process | None:
        """The process; None when it has ended."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.created) < 1.0
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


def running(kind: str, home: Path) -> Started | None:
    """Return the node of that kind that this FARM_HOME started and that runs; None: none does."""
    found = _read(read_state(_record(kind, home)))
    return found if found is not None and found.process is not None else None


def log_file(kind: str, home: Path) -> Path:
    """Where the node's own output goes."""
    return cluster_folder(home) / f"{kind}.log"


def start_node(
    kind: str,
    words: Sequence[str],
    home: Path,
    *,
    cluster: str,
    address: str,
    name: str,
    token: Path,
    ready: Callable[[], bool],
) -> Started:
    """Start a node and wait until it is part of its cluster.

    Args:
        kind: `head` or `site`.
        words: Arguments of `ray start` beside those that every node has.
        home: FARM_HOME.
        cluster: Address of the cluster.
        address: What its sockets are bound to.
        name: Name of the site; empty for a head.
        token: File of the token.
        ready: Tells whether it is part of the cluster; asked some times a second.

    Raises:
        PlanError: One runs already, it doesn't start, or it listens on another address too; the
            message says why.
    """
    assert kind in _KINDS, kind
    with changed_state(_record(kind, home)) as record:
        before = _read(record)
        if before is not None and before.process is not None:
            what = f"site {before.name}" if before.name else "a head"
            stop = "farm site stop" if kind == "site" else "farm cluster down"
            raise PlanError(
                f"this host already runs {what} of the cluster {before.cluster} (process"
                f" {before.pid}); `{stop}` ends it"
            )
        process = _spawn(kind, words, home, address)
        try:
            if not _wait(kind, process, home, ready):
                log.warning("%s: the %s starts once more", too_busy(), kind)
                process = _spawn(kind, words, home, address)
                _wait(kind, process, home, ready, again=True)
            _check_sockets(psutil.Process(process.pid), address)
        except BaseException:
            if process.poll() is None:  # else it ended by itself, and the error says why
                _end(psutil.Process(process.pid))
            raise
        created = psutil.Process(process.pid).create_time()
        made = Started(kind, cluster, address, name, str(token), process.pid, created)
        record.clear()
        record.update(asdict(made))
    return made


def stop_node(kind: str, home: Path) -> Started | None:
    """End the node of that kind with all that it started; returns it, or None: none ran."""
    found = running(kind, home)
    with changed_state(_record(kind, home)) as record:
        record.clear()
    if found is not None and (process := found.process) is not None:
        _end(process)
    return found


def attend(started: Started, home: Path) -> None:
    """Wait until the node ends; an interruption of this process ends it.

    Raises:
        PlanError: It ended by itself.
    """
    process = started.process
    try:
        if process is not None:
            process.wait()
    finally:
        stop_node(started.kind, home)
    raise PlanError(f"the {started.kind} ended: {_why(started.kind, home)}")


def _spawn(kind: str, words: Sequence[str], home: Path, address: str) -> subprocess.Popen[bytes]:
    environment = bound_environment(os.environ, address, home)
    environment["FARM_HOME"] = str(home)
    environment["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"] = "0"  # an agent never is idle
    environment.pop(QUIET, None)  # a node's own warnings go to its logs
    path = log_file(kind, home)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("wb") as out:
        return subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "ray.scripts.scripts", "start", "--block"),
                *("--node-ip-address", address),
                *("--object-store-memory", str(OBJECT_STORE_BYTES)),
                *("--include-log-monitor", "false", "--disable-usage-stats"),
                *words,
            ],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=path.parent,
            start_new_session=True,
        )


def _wait(
    kind: str,
    process: subprocess.Popen[bytes],
    home: Path,
    ready: Callable[[], bool],
    *,
    again: bool = False,
) -> bool:
    """Wait until a node is part of its cluster.

    Returns:
        False when Ray gave its start up for being slow, and it is not `again` that it starts.
    """
    limit = Deadline(START_S)
    while process.poll() is None and not limit.passed:
        if ready():
            return True
        time.sleep(0.2)
    ended = process.poll() is not None
    if ended and impatient(_output(kind, home)):
        if not again:
            return False
        raise PlanError(f"the {kind} did not start: {too_busy_twice()}")
    late = "did not start" if ended else f"did not start within {START_S:.0f} s"
    causes = "; ".join(likely_causes())
    raise PlanError(
        f"the {kind} {late}: {_why(kind, home)}" + (f" Likely cause: {causes}." if causes else "")
    )


def _check_sockets(process: psutil.Process, address: str) -> None:
    """Look at the sockets of a node that has started: all have to be on its address.

    Raises:
        PlanError: One isn't. The loader only warns where it can't preload a library.
    """
    for one in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            for found in one.net_connections(kind="inet"):
                if found.status != psutil.CONN_LISTEN:
                    continue
                if found.laddr.ip.removeprefix("::ffff:") != address:
                    raise not_bound(address)


def _why(kind: str, home: Path) -> str:
    """Return the telling end of a node's output, and where the rest is."""
    return f"{telling(_output(kind, home))}. Its output is in {log_file(kind, home)}."


def _output(kind: str, home: Path) -> str:
    try:
        return log_file(kind, home).read_bytes()[-_TAIL_BYTES:].decode("utf-8", "replace")
    except OSError:
        return ""


def _end(process: psutil.Process) -> None:
    """End a node: kindly, then what is left of it by force."""
    everything = [process]
    with contextlib.suppress(psutil.NoSuchProcess):
        everything += process.children(recursive=True)
        process.terminate()
    _gone, left = psutil.wait_procs(everything, timeout=STOP_S)
    for other in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            other.kill()
    psutil.wait_procs(left, timeout=2.0)


def _record(kind: str, home: Path) -> Path:
    return cluster_folder(home) / f"{kind}.json"


def _read(record: dict[str, object]) -> Started | None:
    if not record:
        return None
    return Started(**json.loads(json.dumps(record)))
