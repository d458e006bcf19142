"""Classes of devices: what a device must be able to tell before its numbers may be trusted."""

from __future__ import annotations

from typing import Literal, get_args

from farm.core.abi import family_of_abi
from farm.core.device import DeviceFacts

DeviceClass = Literal["phone", "board", "server", "vm"]

_BOARD_NAMES = ("raspberry pi", "jetson", "orange pi", "rockchip", "rk35", "beagle")


def device_class(facts: DeviceFacts, labels: tuple[tuple[str, str], ...] = ()) -> DeviceClass:
    """Decide a device's class; a label `class` overrules what the facts suggest."""
    labelled = dict(labels).get("class")
    for known in get_args(DeviceClass):
        if labelled == known:
            found: DeviceClass = known
            return found
    if facts.sdk is not None or facts.libc == "bionic" or (facts.os or "").startswith("Android"):
        return "phone"
    name = f"{facts.model or ''} {facts.soc or ''}".lower()
    if any(word in name for word in _BOARD_NAMES):
        return "board"
    if facts.virtualised:
        return "vm"
    small = family_of_abi(facts.abi) in ("arm", "riscv") and (facts.cores or 0) <= 16
    return "board" if small else "server"
