"""Where an SSH device is: the inventory's entry, completed from the user's ~/.ssh/config."""

from __future__ import annotations

import getpass
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paramiko

from farm.core.device import DeviceEntry
from farm.core.errors import ConfigError
from farm.transports.files import home_path, named_path

_PORT = 22
_NO_NAME = "this account has none (no entry in passwd, and neither LOGNAME nor USER is set)"
#: More hops than this are a loop in the config.
_MAX_HOPS = 8


@dataclass(frozen=True, slots=True)
class Target:
    """A host to log in to, and the hosts to pass on the way there."""

    host: str
    port: int
    user: str
    #: Private key files to try, in order, before the agent's keys and the usual files.
    identities: tuple[Path, ...] = ()
    #: Name under which its host key is recorded; None is its address.
    key_alias: str | None = None
    #: Jump hosts, the nearest to us first.
    hops: tuple[Target, ...] = ()

    @property
    def known_name(self) -> str:
        """How known_hosts files call it."""
        name = self.key_alias or self.host
        return name if self.port == _PORT or self.key_alias else f"[{name}]:{self.port}"

    def __str__(self) -> str:
        return f"{self.user}@{self.host}" + ("" if self.port == _PORT else f":{self.port}")


def resolve(entry: DeviceEntry, config_file: Path | None = None) -> Target:
    """Find the host of an entry.

    Args:
        entry: What it says goes before what the config file says.
        config_file: OpenSSH client configuration; None is the user's own.

    Raises:
        ConfigError: The entry has no host, or the config file can't be used.
    """
    if not entry.host:
        raise ConfigError(f"device '{entry.name}' needs `host`")
    config = _load(config_file or home_path("~/.ssh/config"))
    identity = (named_path(entry.identity, entry.name, "identity"),) if entry.identity else ()
    port = None if entry.port == _PORT else entry.port
    return _target(config, entry.host, user=entry.user, port=port, identities=identity)


def _load(path: Path | None) -> paramiko.SSHConfig | None:
    if path is None or not path.is_file():
        return None
    try:
        return paramiko.SSHConfig.from_path(str(path))
    except (OSError, UnicodeDecodeError, paramiko.ssh_exception.ConfigParseError) as error:
        raise ConfigError(f"{path}: {error}", file=str(path)) from error


def _target(
    config: paramiko.SSHConfig | None,
    name: str,
    *,
    user: str | None,
    port: int | None,
    identities: tuple[Path, ...] = (),
    depth: int = 0,
) -> Target:
    if depth > _MAX_HOPS:
        raise ConfigError(f"ProxyJump of {name} passes more than {_MAX_HOPS} hosts: is it a loop?")
    try:
        found: dict[str, Any] = {} if config is None else dict(config.lookup(name))
    except KeyError as error:
        # It fills in the name of our own account, whether or not that is asked for.
        raise ConfigError(f"~/.ssh/config, host {name}: set LOGNAME: {_NO_NAME}") from error
    except (paramiko.ssh_exception.CouldNotCanonicalize, ImportError) as error:
        raise ConfigError(f"~/.ssh/config, host {name}: {error}") from error
    # paramiko turns `none` into None.
    if (found.get("proxycommand") or "none").lower() != "none":
        raise ConfigError(f"~/.ssh/config, host {name}: ProxyCommand isn't supported, ProxyJump is")
    own = tuple(named_path(path, name, "IdentityFile") for path in found.get("identityfile", ()))
    return Target(
        host=found.get("hostname", name),
        port=port or _port(found.get("port", str(_PORT)), name),
        user=user or found.get("user") or _own_name(name),
        identities=identities + own,
        key_alias=found.get("hostkeyalias"),
        hops=_hops(config, found.get("proxyjump") or "none", depth),
    )


def _port(text: str, name: str) -> int:
    """A port, or the name of its service."""
    try:
        port = int(text) if text.isascii() and text.isdigit() else socket.getservbyname(text, "tcp")
    except OSError:
        port = 0
    if not 0 < port < 1 << 16:
        raise ConfigError(
            f"~/.ssh/config, host {name}: Port {text} is neither a port nor a service"
        )
    return port


def _own_name(name: str) -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError) as error:
        raise ConfigError(f"{name}: set `user`: {_NO_NAME}") from error


def _hops(config: paramiko.SSHConfig | None, text: str, depth: int) -> tuple[Target, ...]:
    if text.lower() == "none":
        return ()
    hops: list[Target] = []
    for word in text.split(","):
        user, _, place = word.strip().removeprefix("ssh://").rpartition("@")
        name, colon, port = place.partition(":")
        if not name or (colon and not port.isdecimal()):
            raise ConfigError(f"~/.ssh/config: ProxyJump '{word}' isn't [user@]host[:port]")
        hop = _target(
            config, name, user=user or None, port=int(port) if port else None, depth=depth + 1
        )
        hops += [*hop.hops, hop]
    return tuple(hops)
