"""Signals that end a run in order: its cells are accounted for and its report is written."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

from farm.host.signals import ending_signals

#: Ends a run; says why it can't, and nothing where it can.
End = Callable[[], str]


@contextlib.contextmanager
def interrupts(
    interrupt: Callable[[], None], elsewhere: Callable[[End], None] = lambda _end: None
) -> Iterator[list[str]]:
    """Call a function at each signal; yields a list that then isn't empty.

    Args:
        interrupt: The function.
        elsewhere: Only the main thread has signals: a run in another one gives this what does the
            same.
    """
    loop = asyncio.get_running_loop()
    seen: list[str] = []

    def take(name: str) -> None:
        seen.append(name)
        interrupt()

    def end() -> str:
        take(signal.SIGINT.name)
        return ""

    if threading.current_thread() is not threading.main_thread():
        elsewhere(end)
        try:
            yield seen
        finally:
            elsewhere(lambda: "the run has done all its work")
        return

    before = {number: signal.getsignal(number) for number in ending_signals()}
    for number in before:
        loop.add_signal_handler(number, take, number.name)
    try:
        yield seen
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
