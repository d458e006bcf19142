"""The keys that a login tries, in which order, and what became of each."""

from __future__ import annotations

import base64
import contextlib
import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm

from farm.transports.files import home_path
from farm.transports.ssh_config import USUAL_KEYS, Target

log = logging.getLogger(__name__)

#: A key and where it comes from.
Found = tuple[paramiko.PKey, str]


class _Agent(paramiko.agent.AgentSSH):
    """The agent at a socket that the configuration names."""

    def __init__(self, path: str) -> None:
        super().__init__()
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(path)
            self._connect(sock)  # type: ignore[attr-defined]
        except BaseException:
            sock.close()
            raise

    def close(self) -> None:
        """End the connection to it."""
        self._close()  # type: ignore[attr-defined]


class Keyring:
    """Keys for one place: files that are named, the agent's, the usual files.

    Args:
        place: Where to log in.
    """

    def __init__(self, place: Target) -> None:
        self._place = place
        #: What was tried, and what couldn't be.
        self.tried: list[str] = []
        self._agent = self._reached()
        self._held = () if self._agent is None else self._agent.get_keys()

    def close(self) -> None:
        """Let go of the agent."""
        if self._agent is not None:
            self._agent.close()

    def candidates(self) -> Iterator[Found]:
        """Yield keys in the order in which they are tried; what can't be used is noted."""
        place = self._place
        offered = set()
        for path in place.identities:
            for key, source in self._named(path):
                offered.add(key.asbytes())
                yield key, source
        if not place.identities_only:
            for key in self._held:
                if key.asbytes() not in offered:
                    yield key, f"agent key {key.fingerprint}"
        if place.identities_only and place.identities:
            return
        folder = home_path("~/.ssh")
        for path in [folder / name for name in USUAL_KEYS] if folder else []:
            if path not in place.identities and path.is_file():
                yield from self._named(path)

    def _named(self, path: Path) -> Iterator[Found]:
        """A key that a file names: the agent's where it holds it, else the file's own."""
        if not path.is_file() and not path.with_name(f"{path.name}.pub").is_file():
            self.tried.append(f"{path} doesn't exist")
            return
        public = _public(path)
        for key in self._held:
            if public is not None and key.asbytes() == public:
                yield key, f"{path} (held by the agent)"
                return
        if public is not None and _public_text(path) is not None:
            self.tried.append(f"{path} is a public key, and no agent holds its private one")
            return
        found = self._load(path)
        if found is None:
            return
        for certificate in (*self._place.certificates, path.with_name(f"{path.name}-cert.pub")):
            if certificate.is_file():
                yield from self._certified(path, certificate, found)
        yield found, str(path)

    def _certified(self, path: Path, certificate: Path, key: paramiko.PKey) -> Iterator[Found]:
        with contextlib.suppress(OSError, ValueError, paramiko.SSHException):
            signed = paramiko.PKey.from_path(path)
            signed.load_certificate(str(certificate))
            if signed.asbytes() == key.asbytes():
                yield signed, f"{path} with {certificate}"
                return
        self.tried.append(f"{certificate} is no certificate of {path}")

    def _load(self, path: Path) -> paramiko.PKey | None:
        try:
            return paramiko.PKey.from_path(path)
        except (paramiko.PasswordRequiredException, TypeError):
            self.tried.append(f"{path} has a passphrase: load it with ssh-add")
        except (OSError, ValueError, UnsupportedAlgorithm, paramiko.SSHException) as error:
            self.tried.append(f"{path}: {error}")
        return None

    def _reached(self) -> paramiko.Agent | _Agent | None:
        where = self._place.agent
        if where == "":
            return None
        try:
            return paramiko.Agent() if where is None else _Agent(where)
        except (OSError, paramiko.SSHException) as error:
            self.tried.append(f"ssh-agent{f' {where}' if where else ''}: {error}")
            return None


def _public(path: Path) -> bytes | None:
    """The public key that a file is, or that lies beside it."""
    return _public_text(path) or _public_text(path.with_name(f"{path.name}.pub"))


def _public_text(path: Path) -> bytes | None:
    try:
        words = path.read_text("utf-8", "replace").split()
    except OSError:
        return None
    if len(words) < 2 or not words[0].startswith(("ssh-", "ecdsa-", "sk-")):
        return None
    try:
        return base64.b64decode(words[1], validate=True)
    except ValueError:
        return None
