"""Requests about a run from other hosts of its cluster, through an actor with the run's name.

The actor is a mailbox: it keeps no event and decides nothing. The run's process answers, as it does
over the socket in its folder, and the actor ends with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import ray
from ray import exceptions as ray_errors
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from farm.core.errors import ConfigError, StoreError

log = logging.getLogger(__name__)

_NAME = "farm-run-"
#: Longest time until a run answers, seconds.
_ANSWER_S = 30.0
#: A run that ended still answers those who watch it for so long, seconds.
_LAST_S = 0.5
#: The name of a run is free again so long after its controller was killed, seconds.
_NAME_S = 10.0

Answers = Callable[[Mapping[str, object]], Awaitable[list[bytes]]]


@contextlib.asynccontextmanager
async def relayed(run_id: str, answers: Answers) -> AsyncIterator[None]:
    """Let the hosts of the cluster ask a run inside the block; without that it goes on, too."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options: dict[str, Any] = {
        "name": _NAME + run_id,
        "num_cpus": 0,
        "max_concurrency": 256,
        "scheduling_strategy": here,
    }
    mailbox = await _named(options)
    if mailbox is None:
        yield
        return
    serving = asyncio.ensure_future(_serve(mailbox, answers))
    try:
        yield
    finally:
        # Who watches has the last events then.
        with contextlib.suppress(TimeoutError, ray_errors.RayError):
            await asyncio.wait_for(mailbox.close.remote(), 2 * _LAST_S)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        ray.kill(mailbox)


async def _named(options: dict[str, Any]) -> Any:
    """Start the mailbox; None where the one of a controller that was killed keeps its name."""
    end = time.monotonic() + _NAME_S
    while True:
        try:
            return ray.remote(_Mailbox).options(**options).remote()
        except ValueError as error:
            if time.monotonic() > end:
                log.warning("other hosts can't reach this run: %s", error)
                return None
            await asyncio.sleep(_LAST_S)


def names() -> list[str]:
    """Return the ids of the runs that go on in this cluster."""
    found = ray.util.list_named_actors()
    return sorted(name.removeprefix(_NAME) for name in found if name.startswith(_NAME))


def ask(run_id: str, request: Mapping[str, object]) -> list[bytes]:
    """Ask a run of this cluster.

    Raises:
        ConfigError: No such run goes on here.
        StoreError: It ended before it answered, or doesn't answer.
    """
    try:
        mailbox = ray.get_actor(_NAME + run_id)
    except ValueError:
        known = ", ".join(names()) or "none"
        raise ConfigError(f"no run {run_id!r} goes on in this cluster, which has {known}") from None
    try:
        lines: list[bytes] = ray.get(mailbox.ask.remote(dict(request)), timeout=_ANSWER_S)
    except ray_errors.GetTimeoutError:
        raise StoreError(f"run {run_id} does not answer within {_ANSWER_S:.0f} s") from None
    except ray_errors.RayError as error:
        raise StoreError(f"run {run_id} ended before it answered") from error
    return lines


async def _serve(mailbox: Any, answers: Answers) -> None:
    """Answer what comes; one request doesn't wait for another."""
    at_work: set[asyncio.Task[None]] = set()
    try:
        while True:
            for number, request in await mailbox.asked.remote():
                task = asyncio.ensure_future(_reply(mailbox, number, request, answers))
                at_work.add(task)
                task.add_done_callback(at_work.discard)
    except ray_errors.RayError as error:
        log.warning("other hosts can't reach this run any more: %s", error)
    finally:
        for task in at_work:
            task.cancel()


async def _reply(
    mailbox: Any, number: int, request: Mapping[str, object], answers: Answers
) -> None:
    with contextlib.suppress(ray_errors.RayError):
        await mailbox.reply.remote(number, await answers(request))


class _Mailbox:
    """The actor."""

    def __init__(self) -> None:
        self._asked: asyncio.Queue[tuple[int, dict[str, object]]] = asyncio.Queue()
        self._open: dict[int, asyncio.Future[list[bytes]]] = {}
        self._number = 0
        self._asked_at = -math.inf

    async def ask(self, request: dict[str, object]) -> list[bytes]:
        self._number, self._asked_at = self._number + 1, time.monotonic()
        number, answer = self._number, asyncio.get_running_loop().create_future()
        self._open[number] = answer
        self._asked.put_nowait((number, request))
        try:
            lines: list[bytes] = await answer
            return lines
        finally:
            del self._open[number]

    async def asked(self) -> list[tuple[int, dict[str, object]]]:
        found = [await self._asked.get()]
        while not self._asked.empty():
            found.append(self._asked.get_nowait())
        return found

    async def reply(self, number: int, lines: list[bytes]) -> None:
        answer = self._open.get(number)
        if answer is not None and not answer.done():
            answer.set_result(lines)

    async def close(self) -> None:
        """Wait for the answers that are on their way, and for those who ask again for the rest."""
        if time.monotonic() - self._asked_at < 2 * _LAST_S:
            await asyncio.sleep(_LAST_S)
        while self._open:
            await asyncio.wait(self._open.values())
