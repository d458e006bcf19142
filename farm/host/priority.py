"""The priority that programs of this process start with."""

from __future__ import annotations

import contextlib
import os


def niceness() -> int:
    """Return how far this thread, and what it starts, stands behind other programs; 0 is usual."""
    return os.getpriority(os.PRIO_PROCESS, 0)


def usual_priority() -> None:
    """Take back what another program gave away of this process's priority, where that is allowed.

    A Ray that somebody else started gives its workers niceness 15. Without the right to undo it
    the niceness stays, and the guard `priority` of what is measured here fires.
    """
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):  # not allowed, or the thread ended
            if os.getpriority(os.PRIO_PROCESS, int(thread)) > 0:
                os.setpriority(os.PRIO_PROCESS, int(thread), 0)
