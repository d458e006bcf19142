"""The last fence: an error that none of ours foresaw becomes a paragraph, a file and exit 70.

One that says that this host gives no more of something is no defect of farm: exit 3.
"""

from __future__ import annotations

import errno
import os
import platform
import traceback
from pathlib import Path

from farm.clock import utc_now
from farm.core.errors import FarmError

EXIT_DEFECT, EXIT_LIMIT = 70, 3

_TASKS = "this user or container may start no more tasks (ulimit -u, docker run --pids-limit)"
_FILES = "too many files are open at once (ulimit -n 4096)"
_MEMORY = "there is not enough memory (ulimit -v, docker run --memory)"
_SPACE = "no space is left (df -h; TMPDIR and FARM_HOME may name another disk)"
_LIMITS = {
    errno.EAGAIN: _TASKS,
    errno.EMFILE: _FILES,
    errno.ENFILE: _FILES,
    errno.ENOMEM: _MEMORY,
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
}


def limit_of_host(error: BaseException) -> str:
    """Say which limit of this host an error tells of, with the remedy; empty: of none."""
    if isinstance(error, MemoryError):
        return f"{_MEMORY}."
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        return f"{_TASKS}: {error}."  # the interpreter has no other type for it
    found = _LIMITS.get(error.errno or 0) if isinstance(error, OSError) else None
    return f"{found}: {error}." if found else ""


def describe(error: BaseException) -> str:
    """Keep the traceback in a file under FARM_HOME and return what to show.

    Where the file can't be written the traceback is part of the text.
    """
    if isinstance(error, ImportError):
        error.add_note(_lacking(os.environ.get("PYTHONPATH")))
    trace = "".join(traceback.format_exception(error))
    what = " ".join(traceback.format_exception_only(error)[0].split())
    notes = "".join(f" {note}" for note in getattr(error, "__notes__", ()))
    try:
        path = _keep(trace)
    except (OSError, FarmError, ImportError):
        return (
            f"{trace}farm: a defect of farm itself: {what}.{notes} Please report it with the"
            " command and the lines above."
        )
    return (
        f"farm: a defect of farm itself: {what}.{notes} The traceback is in {path}: please report"
        " it with that file and the command."
    )


def _lacking(search_path: str | None) -> str:
    """Say what keeps a module from being imported."""
    if search_path:
        return f"Modules in PYTHONPATH={search_path} may hide those that farm needs: unset it."
    return "Packages of farm are missing or broken: `make run` installs them as pinned."


def _keep(trace: str) -> Path:
    from farm.paths import farm_home  # its package may be what is missing

    folder = farm_home() / "defects"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{utc_now().replace(':', '')}-{os.getpid()}.txt"
    path.write_text(f"{platform.platform()}, Python {platform.python_version()}\n{trace}", "utf-8")
    return path
