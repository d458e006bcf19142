"""What a piece of a device that fails or is blind means for runs and their numbers."""

from __future__ import annotations

HELD = "what needs the lease was not tried; check again once the device is free"

_FAILURES = {
    "transport": "no run can use the device through this connection",
    "helper": "no run can use the device: nothing can be started or verified there",
    "lease": "two runs could use the device at once",
    "sensors": "no number measured there can be trusted: what the device does meanwhile is unknown",
}
_UNREAD = {
    "governor": "whether clocks may rise isn't known; report has no governor",
    "libc": "a runner with its own C library is used",
    "battery_c": "no limit on the battery's warmth can hold",
    "battery_level": "",
    "thermal_status": "a phone can't say that it throttles: `hot_start` has to rely on sensors",
    "temperatures": "nothing says how warm it starts: speeds of a phone or board are unverified",
    "energy": "no joules per token",
    "SELinux": "whether a policy forbids a program is found out by starting it",
    "storage_free_bytes": "room for artifacts is found out by filling it",
    "ram_bytes": "a model that doesn't fit is found out by running it",
}
_GUARDS = {
    "clock_cap": "a lowered clock isn't noticed: speeds are unverified",
    "hidden_cap": "a limit below the clocks isn't noticed: speeds are unverified",
    "load": "other programs aren't noticed: speeds are unverified",
    "hot_start": "a warm start isn't noticed: speeds are unverified",
    "under_voltage": "a weak supply isn't noticed: speeds are unverified",
    "power_mode": "another power mode isn't noticed: speeds are unverified",
}


def of_failure(area: str) -> str:
    """Meaning of a failure."""
    return _FAILURES.get(area, "")


def of_unread(name: str) -> str:
    """Meaning of a fact that can't be read."""
    return _UNREAD.get(name, "the report doesn't tell it")


def of_guard(name: str) -> str:
    """Meaning of a guard that can't look."""
    return _GUARDS.get(name, "speeds are unverified")
