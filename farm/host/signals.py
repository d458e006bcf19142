"""Signals that end a command: Ctrl-C, the service manager, a terminal that was closed."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator


def ending_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that end a command; `nohup` leaves SIGHUP ignored, and so do we."""
    hangup = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
    return (signal.SIGINT, signal.SIGTERM, *hangup)


@contextlib.contextmanager
def handled_by(handler: Callable[[int, object], None]) -> Iterator[None]:
    """Let a function take these signals while the block runs. Main thread only."""
    previous = {number: signal.signal(number, handler) for number in ending_signals()}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


def interrupt(_number: int, _frame: object) -> None:
    """Handle a signal as Ctrl-C is handled at this moment: asyncio, for one, has its own way.

    Raises:
        KeyboardInterrupt: Where that is Python's own way, or Ctrl-C is ignored.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)
