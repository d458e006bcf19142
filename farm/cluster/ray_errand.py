"""A short piece of work on the host of a site: hold a device, prepare it. No job, no outcome."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
from ray import exceptions as ray_errors

from farm.clock import Deadline
from farm.core.errors import FarmError, Interrupted

#: How often somebody looks whether it shall end, seconds.
_LOOK_S = 0.5

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Failed:
    """The error of an errand, sent as data so that Ray doesn't wrap it."""

    error: FarmError


def run_at(
    site: str,
    work: Callable[..., T],
    *arguments: object,
    limit_s: float,
    ended: threading.Event | None = None,
) -> T:
    """Call a function of farm on the host of a site, with that host's FARM_HOME first.

    Args:
        site: Name of the site; its farm was compared with ours (`start` does that).
        work: A function of a module, so that it travels by its name.
        arguments: What it is called with, after FARM_HOME.
        limit_s: Longest time for all of it.
        ended: Set to end it early, with the process that it runs in.

    Raises:
        FarmError: What `work` raises, or the site doesn't answer in time.
        Interrupted: `ended` was set.
    """
    options = {"num_cpus": 0, "resources": {f"site:{site}": 0.001}, "max_retries": 0}
    reference = ray.remote(_errand).options(**options).remote(work, arguments)
    limit = Deadline(limit_s)
    while not ray.wait([reference], timeout=min(_LOOK_S, limit.remaining_s))[0]:
        if ended is not None and ended.is_set():
            ray.cancel(reference, force=True)
            raise Interrupted(f"site {site}: ended early")
        if limit.passed:
            ray.cancel(reference, force=True)
            raise FarmError(f"site {site} did not answer within {limit_s:.0f} s")
    try:
        done = ray.get(reference)
    except ray_errors.RayError as error:
        raise FarmError(f"site {site}: {str(error).strip().splitlines()[-1]}") from error
    if isinstance(done, _Failed):
        raise done.error
    result: T = done
    return result


def _errand(work: Callable[..., Any], arguments: tuple[object, ...]) -> Any:
    from farm.cluster.bound import forget_preload
    from farm.host.priority import usual_priority
    from farm.paths import farm_home

    forget_preload()
    usual_priority()
    try:
        return work(farm_home(), *arguments)
    except FarmError as error:
        return _Failed(error)
