"""Bursts are packets like any other: another implementation reads them, and keys may change."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import paramiko
import pytest

from farm.transports import ssh_burst
from farm.transports.ssh_burst import BurstPacketizer

HOST_KEY = paramiko.RSAKey.generate(1024)
GCM, CTR = "aes128-gcm@openssh.com", "aes128-ctr"


class Sink(paramiko.ServerInterface):
    """A server that lets everybody in."""

    def check_auth_none(self, username: str) -> int:
        return paramiko.common.AUTH_SUCCESSFUL

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.common.OPEN_SUCCEEDED


@contextmanager
def connected(cipher: str) -> Iterator[tuple[paramiko.Channel, paramiko.Channel]]:
    """A channel between two of paramiko's transports, ours with bursts."""
    here, there = socket.socketpair()
    server = paramiko.Transport(there)
    server.add_server_key(HOST_KEY)
    client = paramiko.Transport(here, packetizer_class=BurstPacketizer)
    client.get_security_options().ciphers = (cipher,)
    try:
        server.start_server(event=threading.Event(), server=Sink())
        client.start_client(timeout=20)
        client.auth_none("nobody")
        sending = client.open_session(timeout=20)
        receiving = server.accept(20)
        assert receiving is not None
        receiving.settimeout(20)
        yield sending, receiving
    finally:
        client.close()
        server.close()


def send_all(channel: paramiko.Channel, data: bytes) -> list[int]:
    """Send everything; sizes of the bursts."""
    rest, sizes = memoryview(data), []
    while rest:
        sizes.append(ssh_burst.send(channel, rest[: ssh_burst.BURST_BYTES]))
        rest = rest[sizes[-1] :]
    return sizes


def received(channel: paramiko.Channel) -> bytes:
    pieces = []
    while piece := channel.recv(1 << 16):
        pieces.append(piece)
    return b"".join(pieces)


def transfer(cipher: str, data: bytes) -> tuple[bytes, list[int]]:
    with connected(cipher) as (sending, receiving):
        sizes: list[int] = []

        def send() -> None:
            sizes.extend(send_all(sending, data))
            sending.shutdown_write()

        sender = threading.Thread(target=send)
        sender.start()
        found = received(receiving)
        sender.join(20)
        return found, sizes


@pytest.mark.parametrize("cipher", [GCM, "aes256-gcm@openssh.com", CTR])
@pytest.mark.parametrize("size", [0, 1, 15, 32_704, 32_705, 3_000_001])
def test_what_was_sent_arrives(cipher: str, size: int) -> None:
    data = os.urandom(size)
    found, _ = transfer(cipher, data)
    assert found == data


@pytest.mark.parametrize("cipher", [GCM, CTR])
def test_keys_change_on_the_way(cipher: str) -> None:
    """Twice, each time while bursts are sent: a part is twice what one set of keys may carry."""
    data = os.urandom(4 << 20)
    changed = []
    with connected(cipher) as (sending, receiving):
        transport = sending.get_transport()
        transport.packetizer.REKEY_BYTES = 1 << 20

        def send() -> None:
            for half in (data[: 2 << 20], data[2 << 20 :]):
                keys = transport.H
                send_all(sending, half)
                deadline = time.monotonic() + 20
                while keys == transport.H and time.monotonic() < deadline:
                    time.sleep(0.001)
                changed.append(keys != transport.H)
            sending.shutdown_write()

        sender = threading.Thread(target=send)
        sender.start()
        assert received(receiving) == data
        sender.join(20)
    assert changed == [True, True]


def test_a_burst_is_many_packets() -> None:
    _, sizes = transfer(GCM, bytes(4 << 20))
    assert max(sizes) == ssh_burst.BURST_BYTES


def test_a_shut_window_times_out_and_a_closed_channel_says_so() -> None:
    with connected(GCM) as (sending, _receiving):
        sending.settimeout(0.05)
        data = memoryview(bytes(ssh_burst.BURST_BYTES))
        while sending.out_window_size:
            ssh_burst.send(sending, data)
        with pytest.raises(TimeoutError):
            ssh_burst.send(sending, data)
        sending.close()
        with pytest.raises(OSError, match="closed"):
            ssh_burst.send(sending, data)
