"""Logging in: through jump hosts, host key checked, keys tried in order.

Every way it can fail becomes a ConnectError with the remedy.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace

import paramiko

from farm.clock import Deadline
from farm.core.device import DeviceEntry
from farm.core.errors import ConnectError
from farm.transports import ssh_keys
from farm.transports.ssh_burst import BurstPacketizer
from farm.transports.ssh_config import Target
from farm.transports.ssh_identity import Keyring
from farm.transports.ssh_link import BROKEN, Link
from farm.transports.ssh_proxy import ProxySocket

#: A frozen device accepts the connection and says nothing.
CONNECT_S = 10.0
_FAST_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
#: paramiko logs tracebacks of every broken connection; ours is the error that is raised.
_LOG_CHANNEL = "farm.transports.ssh.paramiko"
logging.getLogger(_LOG_CHANNEL).setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class Login:
    """An authenticated connection, and the connections to jump hosts that carry it."""

    transport: paramiko.Transport
    link: Link
    carriers: tuple[paramiko.Transport, ...]

    def close(self) -> None:
        """End it and all that carry it."""
        self.link.close()
        for transport in (self.transport, *reversed(self.carriers)):
            transport.close()


#: Told of every link as soon as it exists, so that it can be ended from another thread.
OnLink = Callable[[Link], None]


def log_in(entry: DeviceEntry, target: Target, on_link: OnLink) -> Login:
    """Connect and authenticate.

    Raises:
        ConnectError: It can't be reached, shows a wrong host key, or refuses every key.
    """
    deadline = Deadline(CONNECT_S)
    carriers: list[paramiko.Transport] = []
    try:
        for hop in target.hops:
            carrier = carriers[-1] if carriers else None
            carriers.append(_enter(entry, hop, carrier, deadline, on_link)[0])
        carrier = carriers[-1] if carriers else None
        transport, link = _enter(entry, target, carrier, deadline, on_link)
    except BaseException:
        for opened in reversed(carriers):
            opened.close()
        raise
    return Login(transport, link, tuple(carriers))


def _enter(
    entry: DeviceEntry,
    place: Target,
    carrier: paramiko.Transport | None,
    deadline: Deadline,
    on_link: OnLink,
) -> tuple[paramiko.Transport, Link]:
    transport, link = _greet(entry, place, carrier, deadline, on_link)
    try:
        ssh_keys.check(
            entry, place.known_name, transport.get_remote_server_key(), place.known_hosts
        )
        _authenticate(entry, place, transport, deadline)
    except BaseException:
        transport.close()
        raise
    return transport, link


def shown_key(entry: DeviceEntry, place: Target) -> ssh_keys.HostKey:
    """Ask a host for its key without logging in; jump hosts are logged in to.

    Raises:
        ConnectError: It can't be reached.
    """
    deadline = Deadline(CONNECT_S)
    login: Login | None = None
    if place.hops:
        last = place.hops[-1]
        login = log_in(entry, replace(last, hops=place.hops[:-1]), lambda _: None)
    carrier = None if login is None else login.transport
    try:
        transport, _ = _greet(entry, place, carrier, deadline, lambda _: None)
        try:
            known = ssh_keys.KnownHosts(ssh_keys.known_hosts_files(entry, place.known_hosts))
            return known.judge(place.known_name, transport.get_remote_server_key())
        finally:
            transport.close()
    finally:
        if login is not None:
            login.close()


def _greet(
    entry: DeviceEntry,
    place: Target,
    carrier: paramiko.Transport | None,
    deadline: Deadline,
    on_link: OnLink,
) -> tuple[paramiko.Transport, Link]:
    """Connect and agree on keys; the host isn't trusted yet."""
    sock: socket.socket | paramiko.Channel | None = None
    try:
        sock = _connect(place, carrier, deadline)
        link = Link(sock)
        on_link(link)
        transport = paramiko.Transport(link, packetizer_class=BurstPacketizer)  # type: ignore[arg-type]
    except (OSError, paramiko.SSHException) as error:
        raise _unreachable(entry, place, error) from error
    try:
        transport.set_log_channel(_LOG_CHANNEL)
        _prefer(entry, place, transport)
        transport.banner_timeout = transport.handshake_timeout = max(1.0, deadline.remaining_s)
        transport.start_client(timeout=max(1.0, deadline.remaining_s))
        # start_client returns in silence when its time is over; this raises then.
        transport.get_remote_server_key()
    except BROKEN as error:
        said = sock.said() if isinstance(sock, ProxySocket) else ""
        transport.close()
        if said:
            raise _unreachable(entry, place, OSError(f"ProxyCommand: {said}")) from error
        raise _unreachable(entry, place, error) from error
    return transport, link


def _connect(
    place: Target, carrier: paramiko.Transport | None, deadline: Deadline
) -> socket.socket | paramiko.Channel:
    if carrier is not None:
        destination = (place.host, place.port)
        return carrier.open_channel(
            "direct-tcpip", destination, ("127.0.0.1", 0), timeout=max(1.0, deadline.remaining_s)
        )
    if place.proxy is not None:
        return ProxySocket(place.proxy)
    sock = _dialled(place, deadline)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return sock


def _dialled(place: Target, deadline: Deadline) -> socket.socket:
    """Connect to the first address that answers, of the family that the config asks for."""
    failed: OSError = OSError("it has no address of that family")
    found = socket.getaddrinfo(place.host, place.port, place.family, socket.SOCK_STREAM)
    for family, kind, protocol, _, address in found:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(max(1.0, deadline.remaining_s))
            sock.connect(address)
        except OSError as error:
            failed = error
            sock.close()
            continue
        return sock
    raise failed


def _prefer(entry: DeviceEntry, place: Target, transport: paramiko.Transport) -> None:
    options = transport.get_security_options()
    fast = [name for name in _FAST_CIPHERS if name in options.ciphers]
    options.ciphers = (*fast, *(name for name in options.ciphers if name not in fast))
    known = ssh_keys.KnownHosts(ssh_keys.known_hosts_files(entry, place.known_hosts)).algorithms(
        place.known_name
    )
    # An RSA key is one type in known_hosts and three in the negotiation.
    first = [
        name
        for name in options.key_types
        if name in known or ("ssh-rsa" in known and name.startswith("rsa-sha2"))
    ]
    options.key_types = (*first, *(name for name in options.key_types if name not in first))


def _authenticate(
    entry: DeviceEntry, place: Target, transport: paramiko.Transport, deadline: Deadline
) -> None:
    ring = Keyring(place)
    tried, offered = ring.tried, 0
    remedy = (
        "Put your public key into its ~/.ssh/authorized_keys (ssh-copy-id), or name the right "
        f"file as `identity`; if that is done, its sshd may not let {place.user} in (AllowUsers, "
        "PermitRootLogin)"
    )
    try:
        for key, source in ring.candidates():
            transport.auth_timeout = max(1.0, deadline.remaining_s)
            tried.append(source)
            offered += 1
            try:
                if not transport.auth_publickey(place.user, key):
                    return
                tried.append("the server wants more than a key")
            except paramiko.BadAuthenticationType as error:
                # It takes no keys at all, so there is no sense in offering others.
                tried.append(f"it takes {', '.join(error.allowed_types) or 'nothing'} alone")
                remedy = (
                    "farm logs in with keys: set `PubkeyAuthentication yes` in its sshd_config, "
                    "then put your public key there (ssh-copy-id)"
                )
                break
            except paramiko.AuthenticationException as error:
                if not transport.is_active():
                    raise paramiko.SSHException("the server ended the login") from error
    except BROKEN as error:
        tried.append(str(error) or "the connection ended")
        if offered > 1:
            remedy = (
                f"The server lets nobody try more keys than that ({offered}; its MaxAuthTries): "
                "name the right file as `identity`, its public half where an agent holds the key"
            )
    finally:
        ring.close()
    raise ConnectError(
        f"{entry.name}: {place} accepts none of our keys ({'; '.join(tried) or 'there are none'}). "
        f"{remedy}",
        device=entry.name,
        state="unauthorized",
        remedy=remedy,
    )


def _unreachable(entry: DeviceEntry, place: Target, error: Exception) -> ConnectError:
    remedy = ""
    if isinstance(error, socket.gaierror):
        reason, remedy = "no such host", "check its name, or write its address"
    elif isinstance(error, paramiko.ChannelException):
        reason = f"the jump host before it can't connect to it ({error.text})"
    elif isinstance(error, ConnectionRefusedError):
        reason, remedy = f"nothing listens on port {place.port}", "is sshd running?"
    elif isinstance(error, TimeoutError):
        reason, remedy = "no answer", "is it on, and in this network?"
    else:
        reason = str(error) or type(error).__name__
    text = f"{entry.name}: can't reach {place}: {reason}" + (f": {remedy}" if remedy else "")
    return ConnectError(text, device=entry.name, remedy=remedy)
