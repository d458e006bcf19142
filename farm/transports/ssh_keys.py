"""Host keys: strictly checked, recorded only when a person says so.

Keys come from OpenSSH's own files, from the file an inventory entry names, and from farm's,
which `trust` writes. A key that any of them holds is accepted.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import paramiko

from farm.core.device import DeviceEntry
from farm.core.errors import ConnectError
from farm.paths import farm_home

Standing = Literal["trusted", "unknown", "changed"]


@dataclass(frozen=True, slots=True)
class HostKey:
    """The key that a host showed."""

    #: How known_hosts files call the host.
    host: str
    #: For example `ssh-ed25519`.
    algorithm: str
    #: `SHA256:...`, as `ssh-keygen -l` prints it.
    fingerprint: str
    #: Line for a known_hosts file.
    line: str
    #: What the known_hosts files say of it.
    standing: Standing


def farm_known_hosts() -> Path:
    """File in which farm records the keys that people trusted."""
    return farm_home() / "known_hosts"


def known_hosts_files(entry: DeviceEntry) -> tuple[Path, ...]:
    """Files in which a host key of this entry may stand."""
    files = [
        farm_known_hosts(),
        Path("~/.ssh/known_hosts").expanduser(),
        Path("/etc/ssh/ssh_known_hosts"),
    ]
    if entry.known_hosts:
        files.insert(0, Path(entry.known_hosts).expanduser())
    return tuple(files)


class KnownHosts:
    """What several known_hosts files say together.

    Raises:
        ConnectError: A file exists but can't be read.
    """

    def __init__(self, files: tuple[Path, ...]) -> None:
        self._stores: list[tuple[Path, paramiko.HostKeys]] = []
        for path in files:
            if not path.is_file():
                continue
            try:
                self._stores.append((path, paramiko.HostKeys(str(path))))
            except (OSError, UnicodeDecodeError) as error:
                raise ConnectError(f"{path}: can't read known hosts: {error}") from error

    def algorithms(self, host: str) -> tuple[str, ...]:
        """Key types known for a host: asked for first, or another key would look like a change."""
        found = [key.get_name() for _, key in self._keys(host)]
        return tuple(dict.fromkeys(found))

    def judge(self, host: str, key: paramiko.PKey) -> HostKey:
        """Compare the key that a host showed with what is recorded."""
        recorded = [known for _, known in self._keys(host)]
        standing: Standing = "changed" if recorded else "unknown"
        if any(known == key for known in recorded):
            standing = "trusted"
        line = f"{host} {key.get_name()} {key.get_base64()}"
        return HostKey(host, key.get_name(), key.fingerprint, line, standing)

    def files_of(self, host: str) -> tuple[Path, ...]:
        """Files that hold a key of this host."""
        return tuple(dict.fromkeys(path for path, _ in self._keys(host)))

    def _keys(self, host: str) -> list[tuple[Path, paramiko.PKey]]:
        found = []
        for path, store in self._stores:
            keys = store.lookup(host)
            if keys is not None:
                found += [(path, key) for key in keys.values()]
        return found


def check(entry: DeviceEntry, host: str, key: paramiko.PKey) -> None:
    """Refuse a host key that no person has confirmed.

    Raises:
        ConnectError: It is unknown, or another one is recorded.
    """
    known = KnownHosts(known_hosts_files(entry))
    shown = known.judge(host, key)
    if shown.standing == "trusted":
        return
    name = entry.name
    what = f"{shown.algorithm} {shown.fingerprint}"
    remedy = f"Compare it with the device, then run: farm devices trust {name}"
    message = f"{name}: host key of {host} is unknown: {what}. "
    if shown.standing == "changed":
        files = ", ".join(str(path) for path in known.files_of(host))
        remedy = f"If it was set up anew, run: farm devices trust {name}"
        message = (
            f"{name}: HOST KEY OF {host} HAS CHANGED to {what}; {files} says otherwise. Either "
            f"the device was set up anew or somebody is in between. "
        )
    raise ConnectError(
        message + remedy,
        device=name,
        fingerprint=shown.fingerprint,
        host_key=shown.standing,
        state="untrusted",
        remedy=remedy,
    )


def record(key: HostKey) -> None:
    """Write a key to farm's file in place of any older ones of that host.

    Raises:
        ConnectError: The file can't be written.
    """
    path = farm_known_hosts()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        kept = [line for line in lines if line.split(" ", 1)[0] != key.host]
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        part.write_text("\n".join([*kept, key.line]) + "\n", "utf-8")
        part.chmod(0o600)
        part.replace(path)
    except OSError as error:
        raise ConnectError(f"can't record a host key in {path}: {error}") from error
