"""Where an SSH device is: the inventory's entry, completed from the user's ~/.ssh/config."""

from __future__ import annotations

import getpass
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paramiko

from farm.core.device import DeviceEntry
from farm.core.errors import ConfigError

_PORT = 22
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
    config = _load(config_file or Path("~/.ssh/config").expanduser())
    identity = (Path(entry.identity).expanduser(),) if entry.identity else ()
    port = None if entry.port == _PORT else entry.port
    return _target(config, entry.host, user=entry.user, port=port, identities=identity)


def _load(path: Path) -> paramiko.SSHConfig:
    if not path.is_file():
        return paramiko.SSHConfig()
    try:
        return paramiko.SSHConfig.from_path(str(path))
    except (OSError, UnicodeDecodeError, paramiko.ssh_exception.ConfigParseError) as error:
        raise ConfigError(f"{path}: {error}", file=str(path)) from error


def _target(
    config: paramiko.SSHConfig,
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
        found: dict[str, Any] = dict(config.lookup(name))
    except (paramiko.ssh_exception.CouldNotCanonicalize, ImportError) as error:
        raise ConfigError(f"~/.ssh/config, host {name}: {error}") from error
    # paramiko turns `none` into None.
    if (found.get("proxycommand") or "none").lower() != "none":
        raise ConfigError(f"~/.ssh/config, host {name}: ProxyCommand isn't supported, ProxyJump is")
    own = tuple(Path(path).expanduser() for path in found.get("identityfile", ()))
    return Target(
        host=found.get("hostname", name),
        port=port or int(found.get("port", _PORT)),
        user=user or found.get("user") or getpass.getuser(),
        identities=identities + own,
        key_alias=found.get("hostkeyalias"),
        hops=_hops(config, found.get("proxyjump") or "none", depth),
    )


def _hops(config: paramiko.SSHConfig, text: str, depth: int) -> tuple[Target, ...]:
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
