"""Keeps Ray's sockets on one address of this host.

Ray listens on the loopback address, or on all interfaces. A library of ours, preloaded into its
processes, puts the address that was named in the place of "all". It has to be there when a process
starts, so a command that joins a cluster starts itself again with it.
"""

from __future__ import annotations

import ipaddress
import os
import shlex
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil

from farm.core.errors import ConfigError, PlanError
from farm.paths import native_cache
from runners.build.compiler import host_abi
from runners.build.native import build_bind

#: Address of a cluster that only this host reaches. Ray takes 127.0.0.1 for "all hosts", too.
LOOPBACK = "127.0.0.2"
#: Ray's own, for a head.
PORT = 6379

_VARIABLE = "FARM_BIND_ADDRESS"
_PRELOAD = "LD_PRELOAD"
_LIBRARY = "libfarm-bind.so"


def address_of(address: str | None, interface: str | None) -> str:
    """Return the one IPv4 address of this host that the options name; else the loopback one.

    Raises:
        ConfigError: None, several, or one that isn't this host's.
    """
    if address is not None and interface is not None:
        raise ConfigError("give --address or --interface, not both")
    if interface is not None:
        known = psutil.net_if_addrs()
        if interface not in known:
            raise ConfigError(f"no interface {interface!r}; there are: {', '.join(sorted(known))}")
        found = [a.address for a in known[interface] if a.family == socket.AF_INET]
        if len(found) != 1:
            several = ", ".join(found) or "none"
            raise ConfigError(
                f"interface {interface} has not one IPv4 address but: {several}; give --address"
            )
        address = found[0]
    if address in (None, "localhost", "127.0.0.1"):
        return LOOPBACK
    assert address is not None, "it is one of the two"
    try:
        value = ipaddress.IPv4Address(address)
    except ValueError:
        raise ConfigError(f"--address {address!r}: write one IPv4 address of this host") from None
    if value.is_unspecified:
        raise ConfigError(
            f"--address {address} is every interface of this host, also those that you don't think"
            " of: name the one that the other hosts reach"
        )
    try:
        with socket.socket() as probe:
            probe.bind((address, 0))
    except OSError as error:
        raise ConfigError(f"--address {address} is not this host's: {error.strerror}") from error
    return address


def way_to(cluster: str) -> str:
    """Return this host's address on the way to a cluster (`HOST:PORT`), which has to answer.

    Raises:
        ConfigError: It is no address.
        PlanError: Nothing answers there.
    """
    host, port = split(cluster)
    try:
        with socket.create_connection((host, port), timeout=5.0) as link:
            own: str = link.getsockname()[0]
    except OSError as error:
        raise PlanError(
            f"no cluster answers at {cluster}: {error.strerror or error}. Is its head up (`farm"
            " cluster status` there), is this the address that `farm cluster up` printed, and does"
            " a firewall let it through?"
        ) from error
    # Through the loopback interface a connection to 127.0.0.2 comes from 127.0.0.1.
    return LOOPBACK if own.startswith("127.") else own


def split(cluster: str) -> tuple[str, int]:
    """Return host and port of `HOST:PORT`.

    Raises:
        ConfigError: It is something else.
    """
    host, _, port = cluster.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise ConfigError(
            f"--cluster {cluster!r}: write `local`, `none`, or the address that `farm cluster up`"
            f" printed, for example 10.0.0.5:{PORT}"
        )
    return host, int(port)


def bound_environment(environment: Mapping[str, str], address: str, home: Path) -> dict[str, str]:
    """Return an environment in which a program listens on that address instead of on all.

    Raises:
        UnknownName, RunnerError: The library can't be built on this host.
    """
    library = str(build_bind(host_abi(), native_cache(home)))
    others = [part for part in environment.get(_PRELOAD, "").split() if part != library]
    return {**environment, _PRELOAD: " ".join((library, *others)), _VARIABLE: address}


def is_bound(address: str) -> bool:
    """Whether the sockets of this process are kept on that address."""
    if os.environ.get(_VARIABLE) != address:
        return False
    try:
        return _LIBRARY in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def restarted_bound(address: str, home: Path) -> None:
    """Start this command again with its sockets kept on an address; returns where they are.

    Raises:
        UnknownName, RunnerError: As `bound_environment`.
        PlanError: The library was not loaded, although the environment asks for it.
    """
    if not is_bound(address):
        environment = bound_environment(os.environ, address, home)
        if os.environ.get(_PRELOAD) == environment[_PRELOAD]:
            raise not_bound(address)
        sys.stdout.flush()
        sys.stderr.flush()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
    forget_preload()


def require_bound(address: str, home: Path) -> None:
    """As `restarted_bound`, for a program that isn't farm's own to start again.

    Raises:
        UnknownName, RunnerError: As `bound_environment`.
        ConfigError: Its sockets aren't kept on that address; says how it is started.
    """
    if not is_bound(address):
        made = bound_environment(os.environ, address, home)
        raise ConfigError(
            f"this program would listen on every interface of this host, not only on {address}."
            f" Start it with {_PRELOAD}={shlex.quote(made[_PRELOAD])} {_VARIABLE}={address}, or use"
            " `farm run --cluster`, which does that itself"
        )
    forget_preload()


def check_bound(address: str) -> None:
    """Refuse to go on in a process that would listen on every interface.

    Raises:
        PlanError: It would.
    """
    if not is_bound(address):
        raise not_bound(address)


def not_bound(address: str) -> PlanError:
    """Return the error of a process that listens, or would, on more than that address."""
    return PlanError(
        f"Ray would listen on every interface of this host, not only on {address}: the library that"
        f" prevents it ({_LIBRARY}) can't be loaded. Is FARM_HOME mounted `noexec`, or is there a"
        " blank or a colon in its path?"
    )


def forget_preload() -> None:
    """Keep the library from programs that this process starts: runners, adb, compilers."""
    kept = [part for part in os.environ.get(_PRELOAD, "").split() if _LIBRARY not in part]
    os.environ.pop(_PRELOAD, None)
    if kept:
        os.environ[_PRELOAD] = " ".join(kept)
