"""Make a device quiet for measurements and put everything back later.

The old values are kept in FARM_HOME before the first one is changed, by the device's identity;
a second preparation keeps them and doesn't store the prepared values as old ones.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from farm.clock import utc_now
from farm.commands.hold import borrowed
from farm.core.device import DeviceEntry
from farm.core.errors import ConfigError
from farm.protocols import Transport
from farm.site.device.connection import Connection
from farm.site.look.facts import parse_facts
from farm.site.look.settings import Setting, SettingRefused, settings_of
from farm.state.json_file import changed_state, read_state


@dataclass(frozen=True, slots=True)
class Change:
    """One setting before and after."""

    name: str
    #: None when it couldn't be read.
    old: str | None
    new: str | None
    #: Why it isn't as it should be; empty when it is.
    problem: str = ""


def change_device(home: Path, entry: DeviceEntry, undo_it: bool, me: str) -> list[Change]:
    """Make a device quiet, or put everything back, on the host that it hangs on.

    Args:
        home: FARM_HOME of that host, which keeps the old values.
        entry: The device.
        undo_it: Put the old values back.
        me: The person, as `user_and_host` names them where they sit.

    Raises:
        LeaseError: Somebody else has it.
        FarmError: As `prepare` and `undo`.
    """
    with (
        contextlib.closing(Connection(entry, home)) as connection,
        borrowed(connection.helper, "prepare", me),
    ):
        return undo(connection, home) if undo_it else prepare(connection, home)


def prepare(connection: Connection, home: Path) -> list[Change]:
    """Change the settings of a device; one that it refuses is skipped, and says why.

    Raises:
        ConfigError: The device has no settings that farm knows.
        TransportError: It can't be reached; what was changed can be undone.
        StoreError: The old values can't be kept; nothing was changed.
    """
    raw = connection.raw_facts()
    facts = parse_facts(raw)
    settings = settings_of(facts, raw.probe)
    if not settings:
        raise ConfigError(
            f"{connection.entry.name} has nothing to prepare: its kernel shows no CPU governor"
        )
    transport = connection.transport
    found: dict[str, str] = {}
    problems: dict[str, str] = {}
    for setting in settings:
        try:
            found[setting.name] = setting.read(transport)
        except SettingRefused as error:
            problems[setting.name] = error.message
    with changed_state(_file(home)) as data:
        kept = data.setdefault(facts.identity, {"since": utc_now(), "old": {}})
        kept["name"] = connection.entry.name
        for name, value in found.items():
            kept["old"].setdefault(name, value)
    return [
        _changed(setting, transport, found[setting.name], setting.wanted)
        if setting.name in found
        else Change(setting.name, None, None, problems[setting.name])
        for setting in settings
    ]


def undo(connection: Connection, home: Path) -> list[Change]:
    """Put the old values back; what the device refuses stays kept for another try.

    Raises:
        ConfigError: It wasn't prepared from this FARM_HOME.
        TransportError: It can't be reached.
    """
    raw = connection.raw_facts()
    facts = parse_facts(raw)
    old: Mapping[str, str] = read_state(_file(home)).get(facts.identity, {}).get("old", {})
    if not old:
        raise ConfigError(
            f"{connection.entry.name} was not prepared from here: nothing to undo in {_file(home)}"
        )
    changes = _restored(settings_of(facts, raw.probe), old, connection.transport)
    with changed_state(_file(home)) as data:
        kept = data.get(facts.identity, {"old": {}})
        for change in changes:
            if not change.problem:
                kept["old"].pop(change.name, None)
        if not kept["old"]:
            data.pop(facts.identity, None)
    return changes


def _restored(
    settings: Sequence[Setting], old: Mapping[str, str], transport: Transport
) -> list[Change]:
    changes = []
    for setting in reversed(settings):
        if setting.name not in old:
            continue
        try:
            now = setting.read(transport)
        except SettingRefused as error:
            changes.append(Change(setting.name, None, None, error.message))
            continue
        changes.append(_changed(setting, transport, now, old[setting.name]))
    return changes


def _changed(setting: Setting, transport: Transport, now: str, value: str) -> Change:
    """Write a value and look whether it stayed."""
    if now == value:
        return Change(setting.name, now, now)
    try:
        setting.write(transport, value)
        after = setting.read(transport)
    except SettingRefused as error:
        return Change(setting.name, now, now, error.message)
    problem = "" if after == value else f"the device kept {after!r} instead of {value!r}"
    return Change(setting.name, now, after, problem)


def _file(home: Path) -> Path:
    return home / "prepared.json"
