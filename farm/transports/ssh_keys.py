"""Host keys: strictly checked, recorded only when a person says so.

Keys come from OpenSSH's own files, from the file an inventory entry names, and from farm's,
which `trust` writes. A key that any of them holds is accepted, unless one of them revokes it. Files
are read line by line: one that can't be read says nothing of the others.
"""

from __future__ import annotations

import base64
import hmac
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import paramiko

from farm.core.device import DeviceEntry
from farm.core.errors import ConnectError
from farm.files import write_whole
from farm.paths import farm_home
from farm.transports.files import home_path, named_path

Standing = Literal["trusted", "unknown", "changed", "revoked"]
_REVOKED, _AUTHORITY = "@revoked", "@cert-authority"


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


def known_hosts_files(
    entry: DeviceEntry, named: tuple[Path, ...] | None = None
) -> tuple[Path, ...]:
    """Files in which a host key of this entry may stand.

    Args:
        entry: The device.
        named: What ~/.ssh/config names in place of the user's usual file.
    """
    usual = home_path("~/.ssh/known_hosts")
    own = named if named is not None else ((usual,) if usual else ())
    files = [farm_known_hosts(), *own, Path("/etc/ssh/ssh_known_hosts")]
    if entry.known_hosts:
        files.insert(0, named_path(entry.known_hosts, entry.name, "known_hosts"))
    return tuple(files)


@dataclass(frozen=True, slots=True)
class _Line:
    """One line of a known_hosts file."""

    path: Path
    number: int
    #: `@revoked`, `@cert-authority`, or empty.
    marker: str
    #: Names and patterns, with commas between them, or one hashed name.
    hosts: str
    algorithm: str
    #: The key itself; None when it can't be read.
    key: bytes | None

    def __str__(self) -> str:
        return f"{self.path}:{self.number}"

    def is_of(self, host: str) -> bool:
        """Whether it speaks of this host, as OpenSSH decides it."""
        if self.hosts.startswith("|1|"):
            return _is_hash_of(self.hosts, host)
        found = False
        for pattern in self.hosts.lower().split(","):
            if _matches(pattern.removeprefix("!"), host.lower()):
                if pattern.startswith("!"):
                    return False
                found = True
        return found


class KnownHosts:
    """What several known_hosts files say together.

    Raises:
        ConnectError: A file exists but can't be read.
    """

    def __init__(self, files: tuple[Path, ...]) -> None:
        self._lines: list[_Line] = []
        for path in files:
            if not path.is_file():
                continue
            try:
                text = path.read_bytes().decode("utf-8", "replace")
            except OSError as error:
                raise ConnectError(f"{path}: can't read known hosts: {error}") from error
            rows = (_line(path, number, row) for number, row in enumerate(text.split("\n"), 1))
            self._lines += [row for row in rows if row is not None]

    def algorithms(self, host: str) -> tuple[str, ...]:
        """Key types known for a host: asked for first, or another key would look like a change."""
        return tuple(dict.fromkeys(line.algorithm for line in self._keys(host)))

    def judge(self, host: str, key: paramiko.PKey) -> HostKey:
        """Compare the key that a host showed with what is recorded."""
        recorded = self._keys(host)
        standing: Standing = "changed" if recorded else "unknown"
        if any(line.key == key.asbytes() for line in recorded):
            standing = "trusted"
        if self.revoked_in(host, key) is not None:
            standing = "revoked"
        line = f"{host} {key.get_name()} {key.get_base64()}"
        return HostKey(host, key.get_name(), key.fingerprint, line, standing)

    def files_of(self, host: str) -> tuple[Path, ...]:
        """Files that hold a key of this host."""
        return tuple(dict.fromkeys(line.path for line in self._keys(host)))

    def revoked_in(self, host: str, key: paramiko.PKey) -> str | None:
        """File and line that revoke this key of this host; None where none does."""
        lines = (line for line in self._of(host, _REVOKED) if line.key == key.asbytes())
        return next(map(str, lines), None)

    def not_honoured(self, host: str) -> str:
        """Lines about this host that say nothing to us, and why; empty where there are none."""
        authorities = ", ".join(map(str, self._of(host, _AUTHORITY)))
        broken = [line for line in self._lines if line.key is None and line.is_of(host)]
        notes = [f"{authorities} names a certificate authority, which farm doesn't honour"]
        notes = notes if authorities else []
        notes += [f"{line} can't be read" for line in broken]
        return "; ".join(notes)

    def _keys(self, host: str) -> list[_Line]:
        return self._of(host, "")

    def _of(self, host: str, marker: str) -> list[_Line]:
        lines = (line for line in self._lines if line.marker == marker and line.key is not None)
        return [line for line in lines if line.is_of(host)]


def _line(path: Path, number: int, text: str) -> _Line | None:
    """Read one line; None for a comment and for what is no entry at all."""
    words = text.split()
    marker = words.pop(0) if words and words[0].startswith("@") else ""
    if len(words) < 2 or words[0].startswith("#"):
        return None
    key = _key(words[1], words[2] if len(words) > 2 else "")
    return _Line(path, number, marker, words[0], words[1], key)


def _key(algorithm: str, text: str) -> bytes | None:
    """The key of an entry; None when it is cut or of another kind than it says."""
    try:
        key = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    parts, rest = [], key
    while len(rest) >= 4:
        size = int.from_bytes(rest[:4], "big")
        parts.append(rest[4 : 4 + size])
        if len(parts[-1]) != size:
            return None
        rest = rest[4 + size :]
    return key if not rest and len(parts) > 1 and parts[0] == algorithm.encode() else None


def _is_hash_of(hashed: str, host: str) -> bool:
    try:
        return hmac.compare_digest(paramiko.HostKeys.hash_host(host, hashed), hashed)
    except (ValueError, AssertionError, IndexError):
        return False  # a hash of another kind, or cut


def _matches(pattern: str, host: str) -> bool:
    # Brackets stand for themselves: `[host]:port`.
    parts = (".*" if c == "*" else "." if c == "?" else re.escape(c) for c in pattern)
    return re.fullmatch("".join(parts), host) is not None


def check(
    entry: DeviceEntry,
    host: str,
    key: paramiko.PKey,
    named: tuple[Path, ...] | None = None,
) -> None:
    """Refuse a host key that no person has confirmed, or that was revoked.

    Args:
        entry: The device.
        host: How known_hosts files call the host, which may be one on the way to the device.
        key: What it showed.
        named: As in `known_hosts_files`.

    Raises:
        ConnectError: It is unknown, revoked, or another one is recorded.
    """
    known = KnownHosts(known_hosts_files(entry, named))
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
    if shown.standing == "revoked":
        remedy = "Give the device a new host key: this one may not be used any more"
        message = (
            f"{name}: host key of {host} is revoked by {known.revoked_in(host, key)}: {what}. "
        )
    elif notes := known.not_honoured(host):
        message += f"{notes}. "
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
        ConnectError: The file can't be written, or the key is revoked.
    """
    path = farm_known_hosts()
    if key.standing == "revoked":
        raise ConnectError(
            f"the host key {key.fingerprint} of {key.host} is revoked in a known_hosts file: "
            "give the device a new one"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        kept = [line for line in lines if line.split(" ", 1)[0] != key.host]
        write_whole(path, "\n".join([*kept, key.line]) + "\n", mode=0o600)
    except OSError as error:
        raise ConnectError(f"can't record a host key in {path}: {error}") from error
