"""One stream through an adb server: a socket that is polled with limits instead of blocking.

Knows the framing of the adb server's requests; not what a device does with a service.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from farm.core.errors import ConfigError, DeviceLost
from farm.transports.limits import Wait

#: Longest request that the server's four hexadecimal digits of length can announce.
_REQUEST_BYTES = 0xFFFF
#: A stream this long without a byte makes us ask whether the device still answers.
QUIET_S = 3.0


class ServerRefused(Exception):
    """The adb server answered FAIL; the text is its reason. Doesn't leave the adb transport."""


@dataclass
class Patience(Wait):
    """Limits of a wait for a stream, and a probe of the device while the stream is quiet.

    A frozen device keeps its place in the server's list and its streams just stop, so a
    quiet stream alone says nothing: `probe` asks the device something else.
    """

    #: Raises DeviceLost when the device doesn't answer.
    probe: Callable[[], None] | None = None
    _last_byte: float = field(default_factory=time.monotonic)
    _asked: float = field(default_factory=time.monotonic)

    def wait(self, stream: Stream, *, read: bool, write: bool) -> tuple[bool, bool]:
        """Return whether the stream can be read and written; at least one is true.

        Raises:
            TransportTimeout: The deadline passed, or nothing moved for `stall_s`.
            DeviceLost: The probe got no answer, or the stream was closed.
        """
        self._last_byte = self._asked = time.monotonic()
        while True:
            ready = stream.poll(read=read, write=write, timeout_s=self._next_s())
            if any(ready):
                return ready
            self.check(self._last_byte)
            self._ask_if_quiet(stream)

    def _next_s(self) -> float:
        limits = [self.left_s(3600.0)]
        if self.stall_s is not None:
            limits.append(self._last_byte + self.stall_s - time.monotonic())
        if self.probe is not None:
            limits.append(self._asked + QUIET_S - time.monotonic())
        return max(0.0, min(limits))

    def _ask_if_quiet(self, stream: Stream) -> None:
        if self.probe is not None and time.monotonic() - self._asked >= QUIET_S:
            try:
                self.probe()
            except DeviceLost:
                # Bytes that arrived during the probe show that the device is alive too.
                if not stream.poll(read=True, write=False, timeout_s=0)[0]:
                    raise
            self._asked = time.monotonic()


class Stream:
    """A connection to the adb server that becomes a stream of a device.

    Args:
        sock: A connected socket; the stream owns it.
        device: Name of the device, for errors.
    """

    def __init__(self, sock: socket.socket, device: str) -> None:
        self._sock = sock
        self._device = device
        self._poll = select.poll()
        sock.setblocking(False)

    @classmethod
    def connect(cls, address: tuple[str, int], device: str, timeout_s: float) -> Stream:
        """Connect to an adb server.

        Raises:
            OSError: Nothing listens there, or it didn't answer in time.
        """
        sock = socket.create_connection(address, timeout=timeout_s)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return cls(sock, device)

    def poll(self, *, read: bool, write: bool, timeout_s: float) -> tuple[bool, bool]:
        """Wait until the stream can be read or written; (False, False) when the time is over."""
        if self._sock.fileno() < 0:
            raise self._gone("was closed")
        mask = (select.POLLIN if read else 0) | (select.POLLOUT if write else 0)
        self._poll.register(self._sock, mask)
        events = self._poll.poll(timeout_s * 1000)
        if not events:
            return False, False
        # An end or an error shows when it is read or written.
        ended = bool(events[0][1] & (select.POLLHUP | select.POLLERR))
        return (
            read and (ended or bool(events[0][1] & select.POLLIN)),
            write and (ended or bool(events[0][1] & select.POLLOUT)),
        )

    def send(self, data: bytes | memoryview) -> int:
        """Send what fits without waiting."""
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise self._gone(str(error.strerror or error)) from error

    def receive(self, size: int) -> bytes | None:
        """Take what is there without waiting: None when nothing is, empty at the end."""
        try:
            return self._sock.recv(size)
        except BlockingIOError:
            return None
        except OSError as error:
            raise self._gone(str(error.strerror or error)) from error

    def send_all(self, data: bytes | memoryview, patience: Patience) -> None:
        """Send everything.

        Raises:
            TransportTimeout, DeviceLost: See `Patience.wait`.
        """
        rest = memoryview(data)
        rest = rest[self.send(rest) :]
        while rest:
            patience.wait(self, read=False, write=True)
            rest = rest[self.send(rest) :]

    def read_some(self, size: int, patience: Patience) -> bytes:
        """Read at least one byte; empty at the end of the stream."""
        while (piece := self.receive(size)) is None:
            patience.wait(self, read=True, write=False)
        return piece

    def read_exactly(self, size: int, patience: Patience) -> bytes:
        """Read so many bytes.

        Raises:
            TransportTimeout: See `Patience.wait`.
            DeviceLost: The stream ended before.
        """
        data = bytearray()
        while len(data) < size:
            piece = self.read_some(size - len(data), patience)
            if not piece:
                raise self._gone("ended")
            data += piece
        return bytes(data)

    def request(self, text: bytes, patience: Patience) -> None:
        """Send a request to the server and wait for its OKAY.

        Raises:
            ServerRefused: It answered FAIL.
            ConfigError: The request is longer than the server takes.
        """
        if len(text) > _REQUEST_BYTES:
            raise ConfigError(
                f"a command of {len(text)} bytes is too long for adb: pass data as input or file"
            )
        self.send_all(b"%04x" % len(text) + text, patience)
        answer = self.read_exactly(4, patience)
        if answer == b"OKAY":
            return
        if answer != b"FAIL":
            raise self._gone(f"answered {answer!r}, which isn't the adb protocol")
        size = int(self.read_exactly(4, patience), 16)
        raise ServerRefused(self.read_exactly(size, patience).decode("utf-8", "replace"))

    def interrupt(self) -> None:
        """End every wait on the stream, from any thread; the owner still has to close it."""
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # It had ended by itself.

    def close(self) -> None:
        """Give the socket back. Only for the thread that uses the stream."""
        self._sock.close()

    def _gone(self, how: str) -> DeviceLost:
        return DeviceLost(f"the adb stream to {self._device} {how}", device=self._device)
