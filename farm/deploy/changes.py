"""Older versions put in use again, and versions removed. Every device on its own thread."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from farm.clock import utc_now
from farm.core.deployment import Installed, current_of
from farm.core.device import Device, DeviceEntry
from farm.core.errors import ConfigError, FarmError
from farm.core.lease import LeaseOwner
from farm.deploy import service
from farm.deploy.fleet import at_its_host, check_whole, each
from farm.deploy.past import Change, write_down
from farm.planning.reach import Reach
from farm.site.device import deployments
from farm.site.device.connection import Connection
from farm.site.device.helper import DeviceHelper
from farm.site.device.lease import LeaseKeeper, user_and_host


@dataclass(frozen=True, slots=True)
class Changed:
    """What came of a change on one device."""

    device: str
    change: Change | None
    failure: str = ""


def rollback(
    devices: Sequence[Device], name: str, version: str, home: Path, reach: Reach
) -> tuple[Changed, ...]:
    """Put an older version in use: the given one, else the newest before the one in use.

    It is hashed in full before; a device that lacks it, or where it is damaged, stays as it is.
    """
    return _change_all(devices, home, reach, _back, name, version)


def remove(
    devices: Sequence[Device],
    name: str,
    version: str,
    home: Path,
    reach: Reach,
    *,
    everything: bool,
) -> tuple[Changed, ...]:
    """Remove a version that isn't in use; with `everything` all of them, the one in use too."""
    return _change_all(devices, home, reach, _away, name, "" if everything else version)


def _change_all(
    devices: Sequence[Device],
    home: Path,
    reach: Reach,
    work: Callable[[DeviceHelper, LeaseOwner, str, str], Change],
    name: str,
    version: str,
) -> tuple[Changed, ...]:
    by = user_and_host()

    def change(device: Device) -> Changed:
        try:
            done = at_its_host(reach, device, _changed, work, by, name, version)
        except FarmError as error:
            return Changed(device.name, None, error.message)
        if done.change is not None:
            # At once: whatever fails on others, and whoever ends this meanwhile.
            write_down(home, done.change)
        return done

    return each(devices, change)


# -- what is done on the host that a device hangs on; it travels there


def _back(helper: DeviceHelper, owner: LeaseOwner, name: str, version: str) -> Change:
    installed = deployments.list_installed(helper)
    current = current_of(installed, name)
    target = _chosen(installed, name, current, version, helper.device)
    manifest = check_whole(helper, installed, name, target.version, owner)
    deployments.switch(helper, name, target.version, current, owner)
    if service.is_installed(helper, name):
        service.start(helper, manifest)
    return Change(utc_now(), owner.owner, helper.device, name, "rollback", target.version, current)


def _away(helper: DeviceHelper, owner: LeaseOwner, name: str, version: str) -> Change:
    """Without a version all of them go."""
    installed = [one for one in deployments.list_installed(helper) if one.name == name]
    current = current_of(tuple(installed), name)
    known = [one.version for one in installed]
    if not known or (version and version not in known):
        has = ", ".join(known) or "none"
        raise ConfigError(f"{helper.device} has no {version or 'version'} of {name}: {has}")
    if not version:
        service.stop(helper, name)
        deployments.switch(helper, name, "", None, owner)
    for one in [version] if version else known:
        deployments.remove(helper, name, one, owner)
    return Change(utc_now(), owner.owner, helper.device, name, "remove", version, current)


def _changed(
    home: Path,
    entry: DeviceEntry,
    work: Callable[[DeviceHelper, LeaseOwner, str, str], Change],
    by: str,
    name: str,
    version: str,
) -> Changed:
    # A lease of its own: two that change the same device at once exclude each other.
    owner = LeaseOwner(by, f"deployments-{os.getpid()}-{secrets.token_hex(2)}", 1)
    keeper = LeaseKeeper(owner)
    with contextlib.closing(Connection(entry, home)) as connection:
        keeper.take(connection.helper)
        try:
            return Changed(entry.name, work(connection.helper, owner, name, version))
        finally:
            keeper.release(connection.helper)


def _chosen(
    installed: Sequence[Installed], name: str, current: str, version: str, device: str
) -> Installed:
    mine = [one for one in installed if one.name == name]
    if not version and not current:
        raise ConfigError(
            f"{device}: nothing of {name} is in use; name the --version that shall be"
        )
    if version:
        found = [one for one in mine if one.version == version]
    else:
        now = next((one.installed_unix for one in mine if one.version == current), None)
        older = [
            one
            for one in mine
            if one.version != current and (now is None or one.installed_unix <= now)
        ]
        found = sorted(older, key=lambda one: one.installed_unix)[-1:]
    if not found:
        names = ", ".join(one.version for one in mine if one.version != current) or "no other"
        raise ConfigError(
            f"{device} has no {version or 'older version'} of {name} to go back to; it has {names}"
        )
    return found[0]
