"""Inventory and run config to begin with, and comments that teach: found devices to text. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import yaml

from farm.core.device import Device
from farm.core.printable import one_line

_HEAD = """\
# Devices by name: `farm run CONFIG --inventory {file}`. Every one of them has to be there, or the
# run ends with exit code 3 and an alarm. `expect` makes a device whose system changed unfit; take
# the line out where updates are fine. `farm schema inventory` has every key.
devices:
"""
_TAIL = """\
# adb: auto would take every further phone that is attached. local: this machine.
defaults: {{adb: none, local: {local}}}
"""
RUN_CONFIG = """\
# What to run: `farm run farm.yaml --inventory lab.yaml`. `farm plan` shows it, `farm models` and
# `farm recipes` list what can be named, `farm schema config` has every key.
name: {name}
models: [smollm2-135m]
matrix: {{recipe: [xnnpack-8da4w], threads: [auto]}}
devices: [{{each: ""}}]                    # every device of the inventory; any: 2 takes two of them
workload: {{prefill: [128], decode: [64], budget_s: 120}}
correctness: {{tokens: 256, prompt: "What is the capital of France?", max_new_tokens: 32}}
# auto: a speed is held to the smallest loss that the budget can decide; `farm plan` says which.
gates: {{perplexity: "<= 1.02x host", regress: auto}}
require: {{judged: "90%", speed: "90%"}}
"""


def inventory_text(devices: Sequence[Device], file: str) -> str:
    """Write found devices as an inventory.

    Args:
        devices: As `farm devices` found them; the local one becomes `defaults.local`.
        file: Name of the file, for the comment.

    Returns:
        YAML that `farm.config.load.load_inventory` reads back to the same devices.
    """
    text, names = _HEAD.format(file=file), set[str]()
    local = False
    entries = []
    for device in devices:
        if device.entry.transport == "local":
            local = True
            continue
        name = _unused(_name(device), names)
        names.add(name)
        entries.append(_comment(device) + _listed(_entry(device, name)))
    if not entries:
        text = text.rstrip("\n") + " []\n"
    return text + "".join(entries) + _TAIL.format(local=str(local).lower())


def run_config_text(name: str) -> str:
    """Return a run config to begin with, called like its folder."""
    return RUN_CONFIG.format(name=_slug(name) or "farm")


def _entry(device: Device, name: str) -> dict[str, Any]:
    entry, facts = device.entry, device.facts
    found: dict[str, Any] = {"name": name, "transport": entry.transport}
    for key in ("site", "serial", "adb_server", "host", "user", "port", "identity",
                "known_hosts", "root"):  # fmt: skip
        value = getattr(entry, key)
        if value not in (None, ""):
            found[key] = value
    if entry.labels:
        found["labels"] = dict(entry.labels)
    expect = dict(entry.expect)
    if facts is not None and facts.os:
        expect.setdefault("os", facts.os)
    if expect:
        found["expect"] = expect
    return found


def _name(device: Device) -> str:
    """The entry's own name; of a phone that is named by its serial, its model."""
    entry, facts = device.entry, device.facts
    if entry.name == entry.serial and facts is not None and facts.model:
        return _slug(facts.model.lower()) or _slug(entry.name)
    return _slug(entry.name) or entry.transport


def _slug(text: str) -> str:
    """Text as a name of a config; may be empty."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", text).strip("-._+")[:60]


def _unused(name: str, used: Iterable[str]) -> str:
    found, n = name, 2
    while found in used:
        found, n = f"{name}-{n}", n + 1
    return found


def _comment(device: Device) -> str:
    facts = device.facts
    if facts is None:
        return f"  # {one_line(f'{device.state}: {device.remedy or device.reason}')}\n"
    words = (facts.model, facts.soc, facts.os, facts.abi)
    return f"  # {one_line(', '.join(str(word) for word in words if word))}\n"


def _listed(entry: dict[str, Any]) -> str:
    lines = yaml.safe_dump(entry, sort_keys=False, allow_unicode=True, width=1000).splitlines()
    return "".join(f"  {'- ' if n == 0 else '  '}{line}\n" for n, line in enumerate(lines))
