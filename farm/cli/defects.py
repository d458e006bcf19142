"""The last fence: an error that none of ours foresaw becomes a paragraph, a file and exit 70."""

from __future__ import annotations

import os
import platform
import traceback
from pathlib import Path

from farm.clock import utc_now

EXIT_DEFECT = 70


def describe(error: BaseException, home: Path) -> str:
    """Keep the traceback in a file under FARM_HOME and return what to show.

    Where the file can't be written the traceback is part of the text.
    """
    trace = "".join(traceback.format_exception(error))
    what = " ".join(traceback.format_exception_only(error)[0].split())
    notes = "".join(f" {note}" for note in getattr(error, "__notes__", ()))
    try:
        path = _keep(trace, home)
    except OSError:
        return (
            f"{trace}farm: a defect of farm itself: {what}.{notes} Please report it with the"
            " command and the lines above."
        )
    return (
        f"farm: a defect of farm itself: {what}.{notes} The traceback is in {path}: please report"
        " it with that file and the command."
    )


def _keep(trace: str, home: Path) -> Path:
    folder = home / "defects"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{utc_now().replace(':', '')}-{os.getpid()}.txt"
    path.write_text(f"{platform.platform()}, Python {platform.python_version()}\n{trace}", "utf-8")
    return path
