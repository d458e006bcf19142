"""Deployed versions on a device, as typed calls of farm-helper's verb `deployment`.

Every change is refused unless the lease is ours, and can be asked for twice.
"""

from __future__ import annotations

from collections.abc import Sequence

from farm.core.deployment import Installed, InstalledFile
from farm.core.lease import LeaseOwner
from farm.core.runner import DeployFile
from farm.site.device.answer import Answer
from farm.site.device.helper import DeviceHelper
from farm.site.parsers.text import clean_text


def list_installed(helper: DeviceHelper) -> tuple[Installed, ...]:
    """Look at every version on the device; what is in use is marked.

    Raises:
        TransportError: It can't be reached.
    """
    return tuple(_installed(line) for line in helper.lines("deployment", helper.root, "list"))


def install(
    helper: DeviceHelper, name: str, version: str, files: Sequence[DeployFile], lease: LeaseOwner
) -> None:
    """Make the folder of a version, whole or not at all, of objects that are there.

    Raises:
        TransferError: An object is missing.
        DeviceError: That version is in use and has other files.
        LeaseError: The device isn't ours.
    """
    links = "".join(
        f"{file.object.sha256} {'700' if file.executable else '600'} {file.path}\n"
        for file in files
    )
    words = ("deployment", helper.root, "install", name, version, *lease.fence)
    helper.lines(*words, stdin=links.encode())


def switch(
    helper: DeviceHelper, name: str, version: str, expected: str | None, lease: LeaseOwner
) -> str:
    """Put a version in use, by one rename; return the one before.

    Args:
        helper: Of the device.
        name: Name of the deployment.
        version: What shall be in use; empty: nothing.
        expected: What has to be in use now, unless the switch is done already; None: anything.
        lease: Ours.

    Raises:
        DeviceError: Another version is in use, or there is no such version.
        LeaseError: The device isn't ours.
    """
    action = ("switch", name, version) if version else ("unset", name)
    seen = () if expected is None else ("--expect", expected)
    (answer,) = helper.lines("deployment", helper.root, *action, *seen, *lease.fence)
    return clean_text(answer.text("before"))


def remove(helper: DeviceHelper, name: str, version: str, lease: LeaseOwner) -> None:
    """Remove a version that isn't in use; nothing happens when there is none.

    Raises:
        DeviceError: It is in use.
        LeaseError: The device isn't ours.
    """
    helper.lines("deployment", helper.root, "remove", name, version, *lease.fence)


def folder_of(helper: DeviceHelper, name: str, version: str) -> str:
    """Folder of a version on the device."""
    return f"{helper.root}/deployments/{name}/{version}"


def _installed(line: Answer) -> Installed:
    return Installed(
        name=clean_text(line.text("name")),
        version=clean_text(line.text("version")),
        current=line.truth("current"),
        files=tuple(
            InstalledFile(
                clean_text(f.text("path")),
                clean_text(f.text("sha256")),
                f.code("size"),
                f.code("mode"),
            )
            for f in line.answers("files")
        ),
        installed_unix=line.size("installed_unix"),
    )
