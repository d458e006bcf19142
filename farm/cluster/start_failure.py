"""Why Ray doesn't start on this host: the limits that are too tight, and its texts cut short."""

from __future__ import annotations

import os
import re
import resource
import secrets
import shutil
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

from farm.core.errors import PlanError
from farm.host.limits import read_limits, usable_cpus

#: What Ray's processes, one site agent and one worker take on one host, measured.
_MEMORY_BYTES = 1 << 30
_TASKS = 300
_SHM_BYTES = 128 << 20
#: Programs that want each processor, from which on a start may take longer than it is given.
_LOAD = 4
#: A Unix socket's path has at most 107 bytes; Ray's lie this deep under its temporary folder.
_SOCKET_BYTES = 107
_SOCKET_DEPTH = len("/ray/session_2026-01-02_03-04-05_678901_1234567/sockets/plasma_store")
#: What `likely_causes` looks at.
LOOKED_AT = "memory, tasks, /dev/shm, temporary folder and loopback network"
#: Lines of a foreign text that are quoted, and characters of each.
_LINES, _CHARACTERS = 3, 300

#: What Ray says when it gives up.
_RAYS_LIMIT = "timed out during startup"
_NOISE = re.compile(r"^(\s|\[|\*\*\*|Traceback|@ |File |During handling)|^\s*$")
_TELLING = re.compile(
    r"error|fail|can't|cannot|unable|denied|no space|exceed|refused|killed|timed out", re.IGNORECASE
)


def cannot_start(detail: str) -> PlanError:
    """Return the error of a local start that failed or took too long.

    Args:
        detail: What was seen, in one sentence; Ray's own texts go through `telling` first.
    """
    causes = [*likely_causes(), *_load()]
    cause = (
        f"Likely cause: {'; '.join(causes)}."
        if causes
        else f"No limit of this host explains it ({LOOKED_AT} were looked at, and its load)."
    )
    logs = ray_folder(os.environ) / "session_latest" / "logs"
    return PlanError(
        f"Ray can't start on this machine: {detail}. {cause} Ray's logs are in {logs}."
        " `--cluster none` runs the same work without Ray."
    )


def impatient(text: str) -> bool:
    """Whether Ray gave up a start of its own that was slow, and nothing here is too tight for it.

    Its raylet ends when its agent is not up within 30 s, which has no setting. A busy host needs
    longer the first time, when nothing of Ray has been read from the disk yet.
    """
    return _RAYS_LIMIT in text and not any(likely_causes())


def too_busy() -> str:
    """Say why Ray gave up a slow start."""
    load, cpus = os.getloadavg()[0], usable_cpus()
    return (
        f"Ray gives up a start after 30 s, and this host was busy (load {load:.0f} on {cpus} CPUs)"
    )


def too_busy_twice() -> str:
    """Say it where the next start was given up, too."""
    return f"{too_busy()}, twice: try again when less goes on here"


def telling(text: str) -> str:
    """Cut a long foreign text to the few lines that say what is wrong."""
    lines = [line.strip() for line in text.splitlines() if not _NOISE.search(line)]
    lines = lines or [line.strip() for line in text.splitlines() if line.strip()]
    chosen = [line for line in lines if _TELLING.search(line)] or lines
    cut = [
        line if len(line) <= _CHARACTERS else f"{line[:_CHARACTERS]}..." for line in chosen[:_LINES]
    ]
    return " / ".join(cut).rstrip(".") or "it gave no reason"


def ray_folder(environment: Mapping[str, str]) -> Path:
    """Folder in which Ray keeps sessions, sockets and logs, by its own rule."""
    base = environment.get("RAY_TMPDIR") or environment.get("TMPDIR") or "/tmp"
    return Path(base) / "ray"


def likely_causes(root: Path = Path("/"), folder: Path | None = None) -> Iterator[str]:
    """Yield each limit of this host that is too tight for Ray, with the remedy.

    Args:
        root: Where `proc`, `sys` and `dev` are; another folder in tests.
        folder: Ray's folder; None: by the environment.
    """
    limits = read_limits(root)
    if limits.memory_bytes is not None and limits.memory_bytes < _MEMORY_BYTES:
        yield (
            f"the control group allows {limits.memory_bytes >> 20} MiB of memory, Ray needs about"
            f" {_MEMORY_BYTES >> 20} MiB (in a container: docker run --memory 2g)"
        )
    if limits.tasks is not None and limits.tasks < _TASKS:
        yield (
            f"the control group allows {limits.tasks} tasks, Ray needs about {_TASKS}"
            " (in a container: docker run --pids-limit 1000)"
        )
    # Root isn't counted.
    most = resource.getrlimit(resource.RLIMIT_NPROC)[0] if os.geteuid() else resource.RLIM_INFINITY
    if most != resource.RLIM_INFINITY and most < _TASKS:
        yield f"this user may have {most} tasks, Ray needs about {_TASKS} (ulimit -u 1000)"
    yield from _shared_memory(root / "dev" / "shm")
    yield from _temporary_folder(ray_folder(os.environ) if folder is None else folder)
    yield from _loopback()


def _load() -> Iterator[str]:
    load, cores = os.getloadavg()[0], usable_cpus()
    if load > _LOAD * cores:
        yield f"{load:.0f} programs want {cores} processors (begin again when there are fewer)"


def _shared_memory(path: Path) -> Iterator[str]:
    remedy = "in a container: docker run --shm-size 2g"
    if not path.exists():
        return  # Ray uses a folder there
    fault = _unwritable(path)
    if fault is not None:
        yield f"{path} can't be written: {fault} ({remedy})"
    elif (free := shutil.disk_usage(path).free) < _SHM_BYTES:
        yield f"{path} has {free >> 20} MiB free, Ray needs {_SHM_BYTES >> 20} MiB ({remedy})"


def _temporary_folder(folder: Path) -> Iterator[str]:
    if len(os.fsencode(folder.parent)) + _SOCKET_DEPTH > _SOCKET_BYTES:
        yield (
            f"the path of the temporary folder {folder.parent} is too long for a Unix socket: set"
            " TMPDIR to a shorter one"
        )
    place = next(path for path in (folder, *folder.parents) if path.exists())
    fault = _unwritable(place)
    if fault is not None:
        yield f"{place} can't be written: {fault} (set TMPDIR to a folder of your own)"


def _unwritable(folder: Path) -> str | None:
    """Try to write a file; returns why it can't be."""
    probe = folder / f".farm-{secrets.token_hex(4)}"
    try:
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        return error.strerror or str(error)
    return None


def _loopback() -> Iterator[str]:
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = server.getsockname()
            socket.create_connection(address, timeout=2.0).close()
    except OSError as error:
        yield (
            f"the loopback network 127.0.0.1 can't be used: {error.strerror or error} (ip link set"
            " lo up)"
        )
