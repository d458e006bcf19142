"""What a deployment does next, given all that has happened. Pure; every crash is only a pause.

A stage prepares all of its devices (copy and smoke check, nothing in use changes), then switches
them, waits, and checks them again. A failure ends the deployment: what the stage switched goes
back, or stays where `stop` was asked for. Each step can be done twice: what is done stays so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Step = Literal["prepare", "switch", "check", "restore"]
#: `back`: a person wants everything undone that this deployment switched.
Kind = Literal["began", "ok", "failed", "back"]
OnFailure = Literal["rollback", "stop"]
Outcome = Literal["deployed", "rolled_back", "rollback_incomplete", "stopped"]


@dataclass(frozen=True, slots=True)
class Target:
    """A device, and the version that it gets."""

    device: str
    version: str


@dataclass(frozen=True, slots=True)
class RolloutPlan:
    """What was decided at the start of a deployment."""

    targets: tuple[Target, ...]
    #: Up to which target each stage goes.
    ends: tuple[int, ...]
    #: Between the switch and the check of a stage, seconds.
    wait_s: float = 0.0
    on_failure: OnFailure = "rollback"

    @property
    def stages(self) -> tuple[tuple[Target, ...], ...]:
        """The targets of each stage."""
        starts = (0, *self.ends)
        return tuple(self.targets[a:b] for a, b in zip(starts, self.ends, strict=False))


@dataclass(frozen=True, slots=True)
class StepEvent:
    """Something that happened, as the journal keeps it."""

    #: Wall clock, seconds.
    at: float
    #: Counts the processes that worked on the deployment, from 1.
    session: int
    kind: Kind
    step: Step = "prepare"
    device: str = ""
    #: For people: why it failed, or what was found.
    detail: str = ""
    #: Of a `prepare` that went well: the version in use before; empty: none.
    previous: str = ""
    #: Of a `switch` that went well; empty where the device doesn't tell.
    boot_id: str = ""
    pushed_bytes: int = 0
    #: Of a `prepare` that went well: whether its service was there before; None: not told.
    was_served: bool | None = None


@dataclass(frozen=True, slots=True)
class Do:
    """Do a step on a device."""

    step: Step
    device: str
    version: str
    #: Version in use before this deployment; empty: none.
    previous: str = ""
    boot_id: str = ""
    #: Whether its service was there before this deployment; None: not told.
    was_served: bool | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing until then, by the wall clock."""

    until: float
    stage: int


@dataclass(frozen=True, slots=True)
class Finished:
    """Nothing is left to do."""

    outcome: Outcome
    #: Stage that failed, from 1; 0: none.
    stage: int = 0
    #: Devices and why, of whatever failed, rollbacks included.
    failures: tuple[tuple[str, str], ...] = ()


class DeviceView:
    """What the events say of one device."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.previous: str | None = None
        self.switch_began = False
        self.switched_at: float | None = None
        self.boot_id = ""
        self.was_served: bool | None = None
        self.checked = False
        self.failure = ""
        self.restored = False
        #: Session and reason of the last restore that failed.
        self.not_restored: tuple[int, str] | None = None

    def take(self, event: StepEvent) -> None:
        """Take in an event of this device."""
        match event.step, event.kind:
            case "prepare", "ok":
                self.previous, self.was_served = event.previous, event.was_served
            case "switch", "began":
                self.switch_began = True
            case "switch", "ok":
                self.switched_at, self.boot_id = event.at, event.boot_id
            case "check", "ok":
                self.checked = True
            case "restore", "ok":
                self.restored, self.not_restored = True, None
            case "restore", "failed":
                self.not_restored = (event.session, event.detail)
            case _, "failed":
                self.failure = f"{event.step}: {event.detail}"

    @property
    def changed(self) -> bool:
        """Whether this deployment switched it, or may have, and it isn't undone."""
        return self.switch_began and not self.restored

    def do(self, step: Step) -> Do:
        """Return a step of this device."""
        previous = self.previous or ""
        device, version = self.target.device, self.target.version
        return Do(step, device, version, previous, self.boot_id, self.was_served)


def views(plan: RolloutPlan, events: Iterable[StepEvent]) -> dict[str, DeviceView]:
    """Return what is known of each device, in the plan's order."""
    found = {target.device: DeviceView(target) for target in plan.targets}
    for event in events:
        if event.device in found:
            found[event.device].take(event)
    return found


def decide(
    plan: RolloutPlan, events: Sequence[StepEvent], now: float, session: int
) -> tuple[Do, ...] | Wait | Finished:
    """Return the next steps, which may be done at once; a wait; or the end.

    Args:
        plan: What was decided at the start.
        events: Everything that happened, in order.
        now: Wall clock, seconds.
        session: Of this process. A rollback that failed in an earlier one is tried again.
    """
    seen = views(plan, events)
    if any(event.kind == "back" for event in events):
        return _undo([seen[target.device] for target in plan.targets], 0, session, rollback=True)
    for number, stage in enumerate(plan.stages, start=1):
        devices = [seen[target.device] for target in stage]
        if any(device.failure for device in devices):
            return _undo(devices, number, session, rollback=plan.on_failure == "rollback")
        if steps := _forward(devices):
            return steps
        switched = max(device.switched_at or 0.0 for device in devices)
        unchecked = tuple(device.do("check") for device in devices if not device.checked)
        if unchecked and now < switched + plan.wait_s:
            return Wait(switched + plan.wait_s, number)
        if unchecked:
            return unchecked
    return Finished("deployed")


def _forward(devices: Sequence[DeviceView]) -> tuple[Do, ...]:
    """All are prepared before any is switched."""
    unprepared = tuple(device.do("prepare") for device in devices if device.previous is None)
    return unprepared or tuple(d.do("switch") for d in devices if d.switched_at is None)


def _undo(
    devices: Sequence[DeviceView], stage: int, session: int, *, rollback: bool
) -> tuple[Do, ...] | Finished:
    failures = [(d.target.device, d.failure) for d in devices if d.failure]
    if not rollback:
        return Finished("stopped", stage, tuple(failures))
    open_ = [device for device in devices if device.changed]
    again = [d for d in open_ if d.not_restored is None or d.not_restored[0] < session]
    if again:
        return tuple(device.do("restore") for device in again)
    failures += [
        (d.target.device, f"restore: {d.not_restored[1]}") for d in open_ if d.not_restored
    ]
    outcome: Outcome = "rollback_incomplete" if open_ else "rolled_back"
    return Finished(outcome, stage, tuple(failures))


def forecast_s(plan: RolloutPlan, prepare_s: float, check_s: float, workers: int) -> float:
    """Return about how long a deployment takes when nothing fails, seconds.

    Args:
        plan: The plan.
        prepare_s: Copy, smoke check and switch of one device.
        check_s: Check of one device after its stage's wait.
        workers: Devices that are worked on at once.
    """
    total = 0.0
    for stage in plan.stages:
        rounds = -(-len(stage) // workers)
        total += rounds * (prepare_s + check_s) + plan.wait_s
    return total
