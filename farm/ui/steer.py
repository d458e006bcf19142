"""What keys do to the live view: filter, sort, choose, log, cancel, help. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from farm.core.printable import one_line
from farm.ui.view import DeviceView, RunView

Order = Literal["state", "name", "rate", "time"]
_ORDERS: tuple[Order, ...] = ("state", "name", "rate", "time")
#: Keys in the order of the help, with what they do.
HELP = (
    ("/", "filter devices and cells; Enter keeps the filter, Esc clears it"),
    ("s", f"sort by the next of {', '.join(_ORDERS)}"),
    ("up, down", "choose a device; also k and j"),
    ("l", "log of the chosen device's cell; again, or Esc: back"),
    ("c", "cancel the cell of the chosen device: it is asked first"),
    ("?", "this help; again, or Esc: back"),
    ("Ctrl-C", "end the run in order, with its report; in `farm watch`: leave"),
)


@dataclass(frozen=True, slots=True)
class Steering:
    """What a person chose."""

    words: str = ""
    #: The filter is being typed.
    typing: bool = False
    order: Order = "state"
    #: Name of the chosen device; empty: none.
    chosen: str = ""
    shows: Literal["", "help", "log"] = ""
    #: Cell whose cancelling waits for a yes; empty: none.
    asks: str = ""
    #: Answer to the last key; empty: none.
    said: str = ""


def matches(device: DeviceView, words: str) -> bool:
    """Whether every word of a filter stands in a device's name, cell, stage or trouble."""
    text = f"{device.name} {device.cell or 'idle'} {device.stage} {device.error}".lower()
    return all(word in text for word in words.lower().split())


def pressed(now: Steering, key: str, devices: Sequence[DeviceView]) -> tuple[Steering, str]:
    """Take a key.

    Args:
        now: Before it.
        key: A character, or up, down, enter, escape, backspace.
        devices: Those that are listed, in their order.

    Returns:
        What holds afterwards, and the cell to cancel; empty: none.
    """
    now = replace(now, said="")
    if now.asks:
        if key in ("y", "Y"):
            return replace(now, asks="", said=f"cancelling {now.asks}"), now.asks
        return replace(now, asks="", said="not cancelled"), ""
    if now.typing:
        return _typed(now, key), ""
    match key:
        case "/":
            return replace(now, typing=True, shows=""), ""
        case "s":
            order = _ORDERS[(_ORDERS.index(now.order) + 1) % len(_ORDERS)]
            return replace(now, order=order, said=f"sorted by {order}"), ""
        case "up" | "down" | "k" | "j":
            return _moved(now, 1 if key in ("down", "j") else -1, devices), ""
        case "l" | "enter":
            return _shown(now, "log", devices), ""
        case "?" | "h":
            return replace(now, shows="" if now.shows == "help" else "help"), ""
        case "c":
            return _asked(now, devices), ""
        case "escape":
            return replace(now, shows="", words="" if not now.shows else now.words), ""
    return now, ""


def listed(view: RunView, steering: Steering) -> list[DeviceView]:
    """Devices that the filter lets through."""
    found = view.devices.values()
    return [d for d in found if not steering.words or matches(d, steering.words)]


def _typed(now: Steering, key: str) -> Steering:
    match key:
        case "enter":
            return replace(now, typing=False)
        case "escape":
            return replace(now, typing=False, words="")
        case "backspace":
            return replace(now, words=now.words[:-1])
    return replace(now, words=one_line(now.words + key, 60)) if len(key) == 1 else now


def _moved(now: Steering, step: int, devices: Sequence[DeviceView]) -> Steering:
    names = [device.name for device in devices]
    if not names:
        return replace(now, said="no device has begun yet")
    if now.chosen not in names:
        return replace(now, chosen=names[0])
    place = min(max(names.index(now.chosen) + step, 0), len(names) - 1)
    return replace(now, chosen=names[place])


def _shown(now: Steering, what: Literal["log"], devices: Sequence[DeviceView]) -> Steering:
    if now.shows == what:
        return replace(now, shows="")
    chosen = _chosen(now, devices)
    if chosen is None:
        return replace(now, said="choose a device first, with up and down")
    return replace(now, shows=what, chosen=chosen.name)


def _asked(now: Steering, devices: Sequence[DeviceView]) -> Steering:
    chosen = _chosen(now, devices)
    if chosen is None:
        return replace(now, said="choose a device first, with up and down")
    if chosen.cell is None:
        return replace(now, said=f"{chosen.name} has no cell now")
    return replace(now, asks=chosen.cell)


def _chosen(now: Steering, devices: Sequence[DeviceView]) -> DeviceView | None:
    """The chosen device; where there is only one it needs no choosing."""
    if not now.chosen and len(devices) == 1:
        return devices[0]
    return next((device for device in devices if device.name == now.chosen), None)
