"""Blocking work of an agent, beside its event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def in_thread(work: Callable[[], T]) -> T:
    """Run blocking work in a thread of its own; never in the default executor."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def deliver(value: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(value)  # type: ignore[arg-type]

    def tell(value: T | None, error: BaseException | None) -> None:
        # Where the loop was closed meanwhile nobody waits.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(deliver, value, error)

    def run() -> None:
        try:
            value = work()
        except BaseException as error:
            tell(None, error)
        else:
            tell(value, None)

    threading.Thread(target=run, name="farm-site", daemon=True).start()
    return await future
