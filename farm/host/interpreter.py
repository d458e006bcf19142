"""Python's own settings in the environment, which somebody made for programs of theirs."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

#: They take away help and checks, make warnings of libraries errors, or keep a process from ending.
_FOREIGN = (
    *("PYTHONOPTIMIZE", "PYTHONWARNINGS", "PYTHONDEVMODE", "PYTHONINSPECT"),
    *("PYTHONVERBOSE", "PYTHONDEBUG", "PYTHONPROFILEIMPORTTIME"),
)


def without_foreign(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which Python runs farm's code as it was written."""
    return {name: value for name, value in environment.items() if name not in _FOREIGN}


def restarted_without_foreign() -> None:
    """Start this command again where such settings are in force; returns where none are."""
    kept = without_foreign(os.environ)
    if len(kept) < len(os.environ):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], kept)
