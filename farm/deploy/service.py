"""A deployment that starts with its device: a systemd user unit around the runner's socket.

Only where somebody asked for it, and only on Linux devices that have a user manager.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from farm.core.command import Command, Completed
from farm.core.deployment import Manifest
from farm.core.errors import DeviceUnfit, RunnerError
from farm.core.rules import service_unit as unit
from farm.site.device.helper import DeviceHelper
from farm.site.parsers.text import clean_text

_LIMIT_S = 60.0

#: Over ssh no session tells the user manager's address.
_MANAGER = (
    'export XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-/run/user/$(id -u)}"; exec systemctl --user "$@"'
)
#: Waits until the service listens; a big model loads for a while.
_LISTENS = (
    'i=0; while [ $i -lt 240 ]; do [ -S "$1" ] && exit 0; i=$((i+1)); sleep 0.25; done; exit 1'
)


def require_manager(helper: DeviceHelper) -> None:
    """Refuse a device that can't start a service of ours.

    Raises:
        DeviceUnfit: It has no systemd user manager that answers.
    """
    done = _systemctl(helper, "is-system-running")
    # `degraded` answers too, with another exit code: what counts is that there is an answer.
    if done.stdout.strip() in (b"running", b"degraded", b"starting", b"maintenance"):
        return
    said = clean_text((done.stderr or done.stdout)[:200]) or "no systemctl"
    raise DeviceUnfit(
        f"{helper.device}: --service needs a systemd user manager, and none answers ({said})."
        " Remedy: `loginctl enable-linger` there, or deploy without --service",
        device=helper.device,
    )


def start(helper: DeviceHelper, manifest: Manifest) -> None:
    """Install the unit and start it with what is in use; it starts at every boot.

    Raises:
        RunnerError: It doesn't come up.
        TransportError: The device is gone.
    """
    name = manifest.name
    folder = _home(helper) + "/.config/systemd/user"
    helper.transport.run(Command(("mkdir", "-p", folder, f"{helper.root}/run")))
    helper.transport.run(Command(("rm", "-f", unit.socket_path(helper.root, name))))
    with tempfile.TemporaryDirectory() as scratch:
        for content, place in (
            (unit.settings(manifest), unit.settings_path(helper.root, name)),
            (unit.unit_text(manifest, helper.root).encode(), f"{folder}/{unit.unit_name(name)}"),
        ):
            local = Path(scratch, "file")
            local.write_bytes(content)
            helper.transport.push(local, place)
    for words in (
        ("daemon-reload",),
        ("enable", unit.unit_name(name)),
        ("restart", unit.unit_name(name)),
    ):
        done = _systemctl(helper, *words)
        if not done.ok:
            raise RunnerError(
                f"{helper.device}: systemctl --user {' '.join(words)}:"
                f" {clean_text(done.stderr[:300])}",
                device=helper.device,
            )
    socket = unit.socket_path(helper.root, name)
    waited = helper.transport.run(Command(("sh", "-c", _LISTENS, "sh", socket), timeout_s=90.0))
    if not waited.ok:
        raise RunnerError(f"{helper.device}: the service of {name} doesn't listen at {socket}")


def state(helper: DeviceHelper, name: str) -> tuple[str, str]:
    """Return `active` and the like, and how often its manager started it again; empty: not told.

    Raises:
        TransportError: The device is gone.
    """
    shown = ("show", unit.unit_name(name), "--property=ActiveState", "--property=NRestarts")
    done = _systemctl(helper, *shown)
    found = dict(line.partition("=")[::2] for line in done.text.splitlines())
    return found.get("ActiveState", ""), found.get("NRestarts", "")


def require_steady(helper: DeviceHelper, name: str) -> None:
    """Refuse a service that isn't up, or that its manager had to start again since `start`.

    Raises:
        RunnerError: It is so, or the manager doesn't tell.
        TransportError: The device is gone.
    """
    found, restarts = state(helper, name)
    if (found, restarts) == ("active", "0"):
        return
    count = f"restarted {restarts} times" if restarts else "restarted nobody knows how often"
    raise RunnerError(
        f"{helper.device}: the service of {name} is {found or 'in no known state'}, and was"
        f" {count} since the switch; `journalctl --user -u {unit.unit_name(name)}` there says why",
        device=helper.device,
    )


def stop(helper: DeviceHelper, name: str) -> None:
    """End the service of a deployment and remove its unit; nothing happens where there is none."""
    place = f"{_home(helper)}/.config/systemd/user/{unit.unit_name(name)}"
    if helper.transport.stat(place) is None:
        return
    _systemctl(helper, "disable", "--now", unit.unit_name(name))
    rest = (unit.socket_path(helper.root, name), unit.settings_path(helper.root, name))
    helper.transport.run(Command(("rm", "-f", place, *rest)))
    _systemctl(helper, "daemon-reload")


def is_installed(helper: DeviceHelper, name: str) -> bool:
    """Whether a deployment has a unit on the device."""
    place = f"{_home(helper)}/.config/systemd/user/{unit.unit_name(name)}"
    return helper.transport.stat(place) is not None


def _systemctl(helper: DeviceHelper, *words: str) -> Completed:
    return helper.transport.run(Command(("sh", "-c", _MANAGER, "sh", *words), timeout_s=_LIMIT_S))


def _home(helper: DeviceHelper) -> str:
    return helper.transport.run(Command(("sh", "-c", 'echo "$HOME"'))).text.strip()
