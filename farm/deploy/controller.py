"""Performs what `core.rules.rollout` decides, and writes down what came of it. Decides nothing."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import Protocol

from farm.core.errors import FarmError, Interrupted
from farm.core.rules.rollout import Do, Finished, StepEvent, Wait, decide
from farm.deploy.door import Prepared
from farm.deploy.record import Record

log = logging.getLogger(__name__)

#: Devices that are worked on at once.
WORKERS = 8
#: Longest sleep between two looks at the clock, seconds: the wall clock may be set meanwhile.
_NAP_S = 5.0


class DeviceDoor(Protocol):
    """One device, as `farm.deploy.door.Door` describes it."""

    def prepare(self) -> Prepared:
        """Copy, check, make the version's folder."""

    def switch(self, previous: str) -> str:
        """Put the version in use; return the boot id."""

    def check(self, boot_id: str) -> str:
        """Check what is in use; return what was found."""

    def restore(self, previous: str, was_served: bool | None) -> None:
        """Put back what was in use, and its service as it was."""

    def cancel(self, error: FarmError) -> None:
        """End what goes on, from any thread."""


class Rollout:
    """Carries one deployment to its end.

    Args:
        record: Its journal.
        doors: Of each device.
        show: Takes a line for each thing that happened: device and words.
        workers: Devices that are worked on at once.
        now: The wall clock, seconds.
    """

    def __init__(
        self,
        record: Record,
        doors: Mapping[str, DeviceDoor],
        show: Callable[[str, str], None],
        workers: int = WORKERS,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._record, self._doors, self._show = record, doors, show
        self._workers, self._now = workers, now
        self._stop = threading.Event()

    def run(self) -> Finished:
        """Go on from wherever it is, to the end.

        Raises:
            Interrupted: `interrupt` was called; the journal knows how to go on.
            StoreError: The journal can't be written: nothing more is done.
        """
        plan = self._record.saved.rollout
        waited = -1
        with ThreadPoolExecutor(self._workers, thread_name_prefix="farm-deploy") as pool:
            while True:
                self._check_stop()
                next_ = decide(plan, self._record.events, self._now(), self._record.session)
                match next_:
                    case Finished():
                        return next_
                    case Wait(until=until, stage=stage):
                        if waited != stage:
                            left = until - self._now()
                            self._show("", f"stage {stage}: waiting {left:.0f} s before its check")
                            waited = stage
                        self._stop.wait(min(_NAP_S, max(0.0, until - self._now())))
                    case steps:
                        self._perform(pool, steps)

    def interrupt(self) -> None:
        """End it now, from any thread; steps that run are broken off and done again later."""
        self._stop.set()
        for door in self._doors.values():
            door.cancel(Interrupted("the deployment was interrupted"))

    def _perform(self, pool: ThreadPoolExecutor, steps: tuple[Do, ...]) -> None:
        self._record.add([self._event("began", step) for step in steps])
        running: dict[Future[StepEvent], Do] = {pool.submit(self._do, step): step for step in steps}
        for done in as_completed(running):
            event = done.result()  # a defect of farm ends all; the journal has what began
            if self._stop.is_set() and event.kind == "failed":
                continue  # broken off, not failed
            self._record.add([event])
            self._show(event.device, f"{event.step}: {event.detail or event.kind}")

    def _do(self, step: Do) -> StepEvent:
        door = self._doors[step.device]
        try:
            match step.step:
                case "prepare":
                    made = door.prepare()
                    return self._event(
                        "ok",
                        step,
                        detail=made.detail,
                        previous=made.previous,
                        pushed_bytes=made.pushed_bytes,
                        was_served=made.was_served,
                    )
                case "switch":
                    boot_id = door.switch(step.previous)
                    return self._event("ok", step, detail=f"{step.version} in use", boot_id=boot_id)
                case "check":
                    return self._event("ok", step, detail=door.check(step.boot_id))
                case "restore":
                    door.restore(step.previous, step.was_served)
                    back = step.previous or "nothing, as before"
                    return self._event("ok", step, detail=f"{back} in use")
        except FarmError as error:
            return self._event("failed", step, detail=error.message)

    def _event(self, kind: str, step: Do, **more: object) -> StepEvent:
        return StepEvent(
            at=self._now(),
            session=self._record.session,
            kind=kind,  # type: ignore[arg-type]
            step=step.step,
            device=step.device,
            **more,  # type: ignore[arg-type]
        )

    def _check_stop(self) -> None:
        if self._stop.is_set():
            name = self._record.saved.deployment_id
            raise Interrupted(
                f"interrupted; `farm deploy --resume {name}` goes on, with --back it undoes what"
                " was switched"
            )
