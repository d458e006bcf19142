"""The thermal gate: a device that is too warm is waited for, visibly and not for ever."""

from __future__ import annotations

import time
from collections.abc import Callable

from farm.clock import Deadline
from farm.core.device import DeviceFacts, ThermalLimits
from farm.core.rules.classes import DeviceClass
from farm.core.telemetry import Start
from farm.site.device.connection import Snapshot
from farm.site.job.progress import PROGRESS_S
from farm.site.parsers.system import is_processor

#: Warmest zone with which a board begins, degrees Celsius: small ones cap their clocks at 80-85.
ZONE_MAX_C = 70.0
#: Between two looks, seconds.
LOOK_S = 5.0


def too_warm(
    facts: DeviceFacts,
    hottest: tuple[str, float] | None,
    limits: ThermalLimits,
    kind: DeviceClass,
) -> str | None:
    """Say why a device is too warm to measure; "" when it isn't, None when it can't tell."""
    limit, status, battery = limits.battery_max_c, facts.thermal_status, facts.battery_c
    if status is not None and status > 0:
        return f"thermal status {status}"
    if limit is not None and battery is not None and battery > limit:
        return f"battery {battery:.1f} °C, limit {limit:g}"
    # Only sensors on the die say whether a board is about to lower its clocks.
    zone = hottest if kind == "board" and hottest and is_processor(hottest[0]) else None
    if zone is not None and zone[1] > ZONE_MAX_C:
        return f"{zone[0]} {zone[1]:.1f} °C, limit {ZONE_MAX_C:g}"
    known = status is not None or zone is not None or (limit is not None and battery is not None)
    return "" if known else None


def heat(start: Start, limits: ThermalLimits) -> tuple[float, float | None] | None:
    """Degrees Celsius that a launch began with, and their limit; None: the device doesn't tell."""
    if start.battery_c is not None:
        return start.battery_c, limits.battery_max_c
    if start.hottest is not None and is_processor(start.hottest[0]):
        return start.hottest[1], ZONE_MAX_C
    return None


def _unread(facts: DeviceFacts, hottest: tuple[str, float] | None, kind: DeviceClass) -> str:
    """Why a device can't tell how warm it is; "" where there is no more to say."""
    if kind == "board" and hottest is not None:
        return f"no thermal zone of the processor (the warmest is {hottest[0]})"
    head = "thermal_status: "
    found = (line.removeprefix(head) for line in facts.unread if line.startswith(head))
    return "" if kind == "board" else next(found, "")


def paced(
    say: Callable[..., None], beat: Callable[[], None], deadline: Deadline
) -> Callable[[str, float], None]:
    """Return a `wait` for cool_down: it shows its text and renews the lease while it sleeps.

    Args:
        say: Takes the text as `detail`.
        beat: Called a few times a second; raises when the job was cancelled.
        deadline: No wait lasts longer.
    """

    def wait(text: str, seconds: float) -> None:
        rest = Deadline(min(seconds, deadline.remaining_s))
        while not rest.passed:
            say(detail=text)
            time.sleep(min(PROGRESS_S, rest.remaining_s))
            beat()

    return wait


def cool_down(
    launch: int,
    kind: DeviceClass,
    limits: ThermalLimits,
    look: Callable[[], Snapshot],
    wait: Callable[[str, float], None],
    now: Callable[[], float] = time.monotonic,
) -> Start:
    """Look how warm a device is, and wait while it is too warm, at most `limits.wait_max_s`.

    Servers and virtual machines are not looked at: no temperature of theirs says whether they
    are about to slow down.

    Args:
        launch: The launch that is about to begin.
        kind: Class of the device.
        limits: What is too warm, and the bound.
        look: Probes the device.
        wait: Shows a text and sleeps for so many seconds.
        now: A clock, seconds.
    """
    if kind in ("server", "vm"):
        return Start(launch, 0.0, "", blind=False)
    began = now()
    while True:
        snapshot = look()
        facts = snapshot.facts
        hottest = snapshot.hottest
        hot = too_warm(facts, hottest, limits, kind)
        waited = now() - began
        left = limits.wait_max_s - waited
        if not hot or left <= 0:
            return Start(
                launch=launch,
                waited_s=waited if waited >= LOOK_S else 0.0,
                hot=hot or "",
                blind=hot is None,
                thermal_status=facts.thermal_status,
                battery_c=facts.battery_c,
                hottest=hottest,
                capped=snapshot.capped,
                unread="" if hot is not None else _unread(facts, hottest, kind),
            )
        wait(f"cooling down: {hot} (waits {left:.0f} s at most)", min(LOOK_S, left))
