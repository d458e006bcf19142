"""Signals that end a run in order: its cells are accounted for and its report is written."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator

from farm.host.signals import ending_signals


@contextlib.contextmanager
def interrupts(interrupt: Callable[[], None]) -> Iterator[list[str]]:
    """Call a function at each signal; yields a list that then isn't empty."""
    loop = asyncio.get_running_loop()
    seen: list[str] = []

    def take(name: str) -> None:
        seen.append(name)
        interrupt()

    before = {number: signal.getsignal(number) for number in ending_signals()}
    for number in before:
        loop.add_signal_handler(number, take, number.name)
    try:
        yield seen
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
