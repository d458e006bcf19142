"""What is deployed where, and whether it is still what was deployed."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import pydantic

from farm import codec
from farm.core.artifact import ObjectRef
from farm.core.deployment import CURRENT, MANIFEST, Installed, Manifest
from farm.core.device import Device, DeviceEntry
from farm.core.errors import ConfigError, DeviceError, FarmError
from farm.core.lease import Lease, LeaseOwner
from farm.deploy import service
from farm.deploy.past import Change, Known
from farm.planning.reach import Reach
from farm.site.device import deploy, deployments
from farm.site.device.connection import Connection
from farm.site.device.helper import DeviceHelper

T = TypeVar("T")

_MAX_MANIFEST = 8 << 20
#: Longest time of a look or a change at another host, hashing included; seconds.
_LIMIT_S = 1800.0


@dataclass(frozen=True, slots=True)
class Standing:
    """One version on one device."""

    device: str
    name: str
    version: str
    current: bool
    #: None: the manifest can't be read; `drift` says so.
    manifest: Manifest | None
    #: When it came into use, as this host knows; None: another host did that.
    since: str | None
    #: Files that aren't what was deployed, and how.
    drift: tuple[str, ...]
    #: Why its files weren't hashed; empty: they were, or it isn't in use.
    unread: str = ""


@dataclass(frozen=True, slots=True)
class Looked:
    """A device that was asked, or why it couldn't be."""

    device: str
    standings: tuple[Standing, ...] = ()
    failure: str = ""


def status(devices: Sequence[Device], known: Known, reach: Reach) -> tuple[Looked, ...]:
    """Look at every deployed version of these devices; every byte of what is in use is hashed.

    Not while a run has the device: hashing would be measured too. It says so then.
    """

    def look(device: Device) -> Looked:
        mine = [change for change in known.changes if change.device == device.name]
        ours = known.manifests.get(device.name, ())
        try:
            return at_its_host(reach, device, _looked, mine, ours)
        except FarmError as error:
            return Looked(device.name, failure=error.message)

    return each(devices, look)


# -- what is done on the host that a device hangs on; it travels there


def _looked(
    home: Path, entry: DeviceEntry, known: Sequence[Change], ours: Sequence[Manifest]
) -> Looked:
    with contextlib.closing(Connection(entry, home)) as connection:
        helper = connection.helper
        lease = helper.show_lease()
        busy = lease.text if isinstance(lease, Lease) else ""
        found = deployments.list_installed(helper)
        standings = tuple(_standing(helper, one, known, ours, busy) for one in found)
        return Looked(entry.name, standings)


def at_its_host(reach: Reach, device: Device, work: Callable[..., T], *arguments: object) -> T:
    """Do something where a device hangs.

    Raises:
        FarmError: What it raises, or its host isn't reached.
    """
    site = device.entry.site
    if site and site not in reach.sites:
        raise DeviceError(device.problem or device.state)
    return reach.at(site, work, device.entry, *arguments, limit_s=_LIMIT_S)


def read_manifest(helper: DeviceHelper, name: str, version: str) -> Manifest:
    """Read the manifest of a version on a device.

    Raises:
        TransportError: It can't be reached, or the manifest is gone.
        ConfigError: It isn't a manifest that this farm reads.
    """
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder, MANIFEST)
        path = f"{deployments.folder_of(helper, name, version)}/{MANIFEST}"
        helper.transport.pull(path, local, max_bytes=_MAX_MANIFEST)
        try:
            found = codec.from_json(Manifest, local.read_bytes())
        except pydantic.ValidationError as error:
            raise ConfigError(
                f"{helper.device}: the manifest of {name} {version} can't be read by this farm"
            ) from error
    if (found.name, found.version) != (name, version):
        raise ConfigError(
            f"{helper.device}: the manifest of {name} {version} is of {found.name} {found.version}"
        )
    return found


def check_hashed(
    helper: DeviceHelper,
    installed: Sequence[Installed],
    name: str,
    version: str,
    owner: LeaseOwner,
) -> Installed:
    """Hash all files of a version on a device, whatever stamps say; return it.

    Args:
        helper: Of the device.
        installed: What the device has.
        name: Name of the deployment.
        version: The version.
        owner: Our lease.

    Raises:
        DeviceError: It isn't there, or a file is missing or no object.
        TransferError: A file has other bytes.
    """
    one = next((one for one in installed if (one.name, one.version) == (name, version)), None)
    if one is None:
        raise DeviceError(f"{helper.device}: there is no version {version} of {name}")
    if one.missing:
        raise DeviceError(f"{helper.device}: {name} {version} lacks {one.missing[0]}")
    if odd := [file.path for file in one.files if not file.sha256]:
        raise DeviceError(f"{helper.device}: {odd[0]} of {name} {version} is no link to an object")
    refs = [ObjectRef(file.sha256, file.size_bytes or 0, file.path) for file in one.files]
    deploy.check_intact(helper, refs, owner)
    return one


def check_whole(
    helper: DeviceHelper,
    installed: Sequence[Installed],
    name: str,
    version: str,
    owner: LeaseOwner,
) -> Manifest:
    """Hash a version on a device, and hold it against its manifest, which is returned.

    Raises:
        DeviceError, TransferError: As `check_hashed`, or it isn't what its manifest names.
        ConfigError: Its manifest can't be read by this farm.
    """
    one = check_hashed(helper, installed, name, version, owner)
    manifest = read_manifest(helper, name, version)
    if not one.holds(manifest.files):
        raise DeviceError(f"{helper.device}: {version} isn't what its manifest names")
    return manifest


def _standing(
    helper: DeviceHelper,
    one: Installed,
    known: Sequence[Change],
    ours: Sequence[Manifest],
    busy: str,
) -> Standing:
    if one.version == CURRENT:
        blocked = f"{CURRENT} is no link but something else: nothing is in use, move it away"
        return Standing(helper.device, one.name, CURRENT, False, None, None, (blocked,))
    drift = [f"{path} is missing" for path in one.missing]
    drift += [f"{file.path} is no link to an object" for file in one.files if not file.sha256]
    drift += [f"{file.path} may be changed by others" for file in one.files if file.is_open]
    manifest = None
    try:
        manifest = read_manifest(helper, one.name, one.version)
    except FarmError as error:
        drift.append(f"{MANIFEST}: {error.message}")
    if manifest is not None and not one.holds(manifest.files) and not one.missing:
        drift.append("its files are others than its manifest names")
    if manifest is not None:
        programs = {file.path for file in manifest.files if file.executable}
        fixed = (file for file in one.files if file.path in programs and file.mode is not None)
        drift += [f"{f.path} can't be executed" for f in fixed if not (f.mode or 0) & 0o100]
    deployed = [m for m in ours if (m.name, m.version) == (one.name, one.version)]
    if manifest is not None and deployed and _origin(manifest) not in map(_origin, deployed):
        drift.append(f"{MANIFEST} isn't what this host deployed")
    there = {f.sha256: f for f in one.files if f.sha256 and f.size_bytes is not None}
    if one.current and there and not busy:
        size = sum(file.size_bytes or 0 for file in there.values())
        hashed = helper.have(list(there), size_bytes=size, rehash=True)
        drift += [
            f"{file.path} is {hashed[sha].state}"
            for sha, file in there.items()
            if hashed[sha].state != "ok"
        ]
    if one.current and not busy and service.is_installed(helper, one.name):
        state, _ = service.state(helper, one.name)
        drift += [] if state == "active" else [f"its service is {state or 'in no known state'}"]
    mine = [c for c in known if c.name == one.name and c.action != "remove"]
    in_use = mine[-1].at if one.current and mine and mine[-1].version == one.version else None
    return Standing(
        helper.device,
        one.name,
        one.version,
        one.current,
        manifest,
        in_use,
        tuple(drift),
        f"not hashed: {busy}" if busy and one.current else "",
    )


def _origin(manifest: Manifest) -> Manifest:
    """A manifest without who deployed it when: the same version may be deployed again."""
    return replace(
        manifest, provenance=replace(manifest.provenance, deployed_by="", deployed_at="")
    )


def each(devices: Sequence[Device], work: Callable[[Device], T]) -> tuple[T, ...]:
    """Do something for every device, some at once; in their order."""
    if not devices:
        return ()
    with ThreadPoolExecutor(min(len(devices), 16), thread_name_prefix="farm-fleet") as pool:
        return tuple(pool.map(work, devices))
