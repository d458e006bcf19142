"""Where an SSH device is: the inventory's entry, completed from the user's ~/.ssh/config."""

from __future__ import annotations

import getpass
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from farm.core.device import DeviceEntry
from farm.core.errors import ConfigError
from farm.transports.files import named_path
from farm.transports.ssh_settings import Settings, expand, own_tokens

_PORT = 22
_NO_NAME = "this account has none (no entry in passwd, and neither LOGNAME nor USER is set)"
#: More hops than this are a loop in the config.
_MAX_HOPS = 8
#: `[user@]host[:port]`, the host in brackets where it is an IPv6 address with a port.
_JUMP = re.compile(r"(?:ssh://)?(?:([^@]+)@)?(?:\[([^\]]+)\](?::(\w+))?|([^:]+)(?::(\w+))?)/?")
_FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}
#: Files that OpenSSH tries when none is named; one that isn't there is no news.
USUAL_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
_USUAL = (*USUAL_KEYS, "id_ecdsa_sk", "id_ed25519_sk", "id_xmss", "id_dsa")


@dataclass(frozen=True, slots=True)
class Target:
    """A host to log in to, and the hosts to pass on the way there."""

    host: str
    port: int
    user: str
    #: Key files to try, in order, before other keys of the agent and the usual files; a public one
    #: names a key that the agent holds.
    identities: tuple[Path, ...] = ()
    #: Name under which its host key is recorded; None is its address.
    key_alias: str | None = None
    #: Jump hosts, the nearest to us first.
    hops: tuple[Target, ...] = ()
    #: No other key than `identities` is tried.
    identities_only: bool = False
    #: Certificates of those keys.
    certificates: tuple[Path, ...] = ()
    #: Socket of the agent; None is that of the environment, empty is no agent.
    agent: str | None = None
    #: Files with host keys in place of ~/.ssh/known_hosts; None where nothing is said of them.
    known_hosts: tuple[Path, ...] | None = None
    family: int = socket.AF_UNSPEC
    #: Command whose standard input and output are the connection.
    proxy: str | None = None

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
    identity = (named_path(entry.identity, entry.name, "identity"),) if entry.identity else ()
    name = entry.host
    if name.startswith("[") and name.endswith("]"):
        name = name[1:-1]
    settings = Settings(config_file)
    return _target(settings, name, user=entry.user, port=entry.port, identities=identity)


def _target(
    settings: Settings,
    name: str,
    *,
    user: str | None,
    port: int | None,
    identities: tuple[Path, ...] = (),
    depth: int = 0,
) -> Target:
    if depth > _MAX_HOPS:
        raise ConfigError(f"ProxyJump of {name} passes more than {_MAX_HOPS} hosts: is it a loop?")
    found = settings.of(name, user, port)
    host = _one(found, "hostname") or name
    number = port or _port(_one(found, "port") or str(_PORT), name)
    login = user or _one(found, "user") or _own_name(name)
    alias = _one(found, "hostkeyalias")
    tokens = {"h": host, "n": name, "p": str(number), "r": login, "k": alias or name}
    tokens |= own_tokens()

    def paths(key: str) -> tuple[Path, ...]:
        texts = (text for text in found.get(key, ()) if text.lower() != "none")
        return tuple(named_path(expand(text, tokens, name), name, key) for text in texts)

    own = paths("identityfile")
    if all(path.name in _USUAL for path in own):
        own = tuple(path for path in own if path.is_file())
    agent = _one(found, "identityagent")
    command = _one(found, "proxycommand")
    return Target(
        host=host,
        port=number,
        user=login,
        identities=identities + own,
        key_alias=alias,
        hops=_hops(settings, _one(found, "proxyjump"), depth),
        identities_only=_one(found, "identitiesonly") == "yes",
        certificates=paths("certificatefile"),
        agent=_agent(agent, tokens, name, said="identityagent" in found),
        known_hosts=paths("userknownhostsfile") or None,
        family=_FAMILIES.get(_one(found, "addressfamily") or "", socket.AF_UNSPEC),
        proxy=None if command is None else expand(command, tokens, name, variables=False),
    )


def _one(found: Mapping[str, Sequence[str]], key: str) -> str | None:
    """First value of a setting; None where it isn't set, or set to `none`."""
    values = found.get(key, ())
    return values[0] if values and values[0].lower() != "none" else None


def _agent(text: str | None, tokens: dict[str, str], name: str, *, said: bool) -> str | None:
    if text is None:
        return "" if said else None
    if text == "SSH_AUTH_SOCK":
        return None
    text = f"${{{text[1:]}}}" if text.startswith("$") and not text.startswith("${") else text
    return str(named_path(expand(text, tokens, name), name, "IdentityAgent"))


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


def _hops(settings: Settings, text: str | None, depth: int) -> tuple[Target, ...]:
    hops: list[Target] = []
    for word in (text or "").split(",") if text else ():
        match = _JUMP.fullmatch(word.strip())
        if match is None:
            raise ConfigError(f"~/.ssh/config: ProxyJump '{word}' isn't [user@]host[:port]")
        user, address, service, name, port = match.groups()
        place = address or name
        number = service or port
        hop = _target(
            settings,
            place,
            user=user,
            port=_port(number, place) if number else None,
            depth=depth + 1,
        )
        hops += [*hop.hops, hop]
    return tuple(hops)
