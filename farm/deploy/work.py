"""A deployment carried out: begun, or gone on with after its process was killed."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import runners
from farm import paths, transports
from farm.core.errors import ConfigError
from farm.core.rules.rollout import Finished, StepEvent, decide, views
from farm.deploy import record as journal
from farm.deploy.controller import DeviceDoor, Rollout
from farm.deploy.door import Door
from farm.deploy.record import Assigned, Record, SavedDeployment
from farm.deploy.release import Release
from farm.deploy.site_door import SiteDoor
from farm.host.signals import handled_by
from farm.planning.reach import Reach
from farm.site.context import SiteContext
from farm.store.objects import ContentStore

#: Takes the device and what happened there; no device: the deployment itself.
Show = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class DeviceOutcome:
    """How one device of a deployment stands."""

    device: str
    version: str
    #: Version in use before; None: never asked.
    previous: str | None
    #: `new`, `old`, `unknown` (a switch or a rollback broke off).
    in_use: str
    checked: bool
    pushed_bytes: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Ended:
    """A deployment that came to its end."""

    saved: SavedDeployment
    finished: Finished
    devices: tuple[DeviceOutcome, ...]


def begin(saved: SavedDeployment, home: Path, show: Show, reach: Reach | None = None) -> Ended:
    """Start a deployment.

    Raises:
        Interrupted: Ctrl-C; it can be gone on with.
        StoreError: Its journal can't be written.
    """
    return _carry_out(journal.create(home, saved), home, show, reach or Reach(home))


def resume(
    deployment: str,
    home: Path,
    show: Show,
    reach: Reach | None = None,
    *,
    back: bool = False,
) -> Ended:
    """Go on with a deployment that was killed; with `back` undo what it switched.

    Raises:
        ConfigError: There is no such deployment, or it has devices of sites that aren't reached.
        StoreError: Another process works on it.
        Interrupted: Ctrl-C.
    """
    record = Record(journal.find(home, deployment))
    reach = reach or Reach(home)
    away = {one.entry.site for one in record.saved.assigned} - {"", *reach.sites}
    if away:
        record.close()
        raise ConfigError(
            f"{record.folder.name} has devices of {', '.join(sorted(away))}, which"
            " are other hosts: give --cluster ADDRESS of a cluster that has them"
        )
    if back:
        record.add([StepEvent(at=time.time(), session=record.session, kind="back")])
    return _carry_out(record, home, show, reach)


def outcomes(saved: SavedDeployment, events: list[StepEvent]) -> tuple[DeviceOutcome, ...]:
    """How every device stands, by what happened."""
    found = []
    for device, view in views(saved.rollout, events).items():
        if view.restored or not view.switch_began:
            in_use = "old"
        elif view.switched_at is not None and view.not_restored is None:
            in_use = "new"
        else:
            in_use = "unknown"
        reason = view.failure or ("" if view.not_restored is None else view.not_restored[1])
        pushed = sum(e.pushed_bytes for e in events if e.device == device and e.kind == "ok")
        found.append(
            DeviceOutcome(
                device, view.target.version, view.previous, in_use, view.checked, pushed, reason
            )
        )
    return tuple(found)


def state_of(saved: SavedDeployment, events: list[StepEvent]) -> str:
    """How a deployment stands, in a word; `open` when a process has to go on with it."""
    session = max((event.session for event in events), default=0)
    now = decide(saved.rollout, events, time.time(), session)
    return now.outcome if isinstance(now, Finished) else "open"


def _carry_out(record: Record, home: Path, show: Show, reach: Reach) -> Ended:
    saved = record.saved
    store = ContentStore(paths.store_root(home))
    context = SiteContext(home, store, transports.open, runners.find)
    with record, store.in_use(f"farm deploy {saved.deployment_id}"):

        def door(one: Assigned) -> DeviceDoor:
            release = Release(one.manifest, one.runner)
            common = (f"deploy-{saved.deployment_id}", record.session, saved.keep)
            if one.entry.site:
                return SiteDoor(
                    one.entry, release, saved.canary, reach, *common, served=saved.service
                )
            tell = partial(show, one.entry.name)
            return Door(
                one.entry, release, saved.canary, context, *common, tell, served=saved.service
            )

        doors = {one.entry.name: door(one) for one in saved.assigned}
        rollout = Rollout(record, doors, show)
        with _interrupting(rollout):
            finished = rollout.run()
        return Ended(saved, finished, outcomes(saved, record.events))


@contextlib.contextmanager
def _interrupting(rollout: Rollout) -> Iterator[None]:
    """Let Ctrl-C and the like end the steps that run, however often they come.

    A thread does it: a handler that waits for a lock waits for ever where it, or the handler of
    the signal before, broke into whoever holds that lock.
    """
    wakes, wake = os.pipe()

    def end() -> None:
        if os.read(wakes, 1) == b"!":
            rollout.interrupt()

    thread = threading.Thread(target=end, name="farm-interrupt", daemon=True)
    thread.start()

    def told(_number: int, _frame: object) -> None:
        os.write(wake, b"!")

    try:
        with handled_by(told):
            yield
    finally:
        os.write(wake, b".")  # closing alone doesn't tell it where a child has the pipe, too
        thread.join()
        os.close(wake)
        os.close(wakes)
