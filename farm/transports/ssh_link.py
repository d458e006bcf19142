"""The socket below an SSH connection: it ends itself when the far side falls silent.

A frozen or partitioned device leaves TCP standing, and paramiko waits for ever. Here silence
after a question has a limit, and a reader or writer past it meets the end of the stream.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from typing import Any, Protocol

import paramiko

from farm.clock import Deadline
from farm.transports.limits import ANSWER_S

#: How paramiko says that a link broke.
BROKEN = (paramiko.SSHException, EOFError, OSError)
#: How often the far side is asked while a call runs, seconds.
_ASK_EVERY_S = 3.0
#: What a jump host's channel takes at once.
_CHANNEL_BYTES = 1 << 15
_NO_LINGER = struct.pack("ii", 1, 0)


class _Socket(Protocol):
    """A socket, or a paramiko channel through a jump host."""

    def recv(self, size: int, /) -> bytes: ...
    def send(self, data: bytes, /) -> int: ...
    def settimeout(self, value: float | None, /) -> None: ...
    def close(self) -> None: ...


class Link:
    """Socket for paramiko with a limit on silence.

    Args:
        sock: Connected; the link owns it.
    """

    def __init__(self, sock: _Socket) -> None:
        self._sock = sock
        # paramiko looks at its socket under this name.
        self._closed = False
        #: Moment by which something must have arrived; None when nothing is expected.
        self._due: float | None = None
        #: How long a write may wait without a byte, and until when at all; None for no limit.
        self._stall_s: float | None = None
        self._deadline: Deadline | None = None
        self._written_at = 0.0
        #: Whether a write didn't go through in time.
        self.write_late = False
        #: Why the link ended itself; empty while it didn't.
        self.silence = ""

    def expect(self) -> None:
        """Start the limit on silence: a question was asked."""
        if self._due is None:
            self._due = time.monotonic() + ANSWER_S

    def limit_writes(self, stall_s: float | None, deadline: Deadline | None) -> None:
        """Limit what is written from now on: time without a byte, and in total."""
        self._stall_s, self._deadline = stall_s, deadline
        self._written_at = time.monotonic()

    def recv(self, size: int) -> bytes:
        """Receive; an overdue answer looks like the end of the stream."""
        try:
            data = self._sock.recv(size)
        except TimeoutError:
            if self._overdue():
                return b""
            raise
        self._due = None
        return data

    def send(self, data: bytes | memoryview) -> int:
        """Send, perhaps only the first part; after a limit passed it fails for good."""
        try:
            # The kernel reads a piece of a burst where it stands, a channel wants bytes.
            if isinstance(self._sock, socket.socket):
                size = self._sock.send(data)
            else:
                size = self._sock.send(bytes(data[:_CHANNEL_BYTES]))
        except TimeoutError:
            stalled = time.monotonic() - self._written_at
            late = self._stall_s is not None and stalled > self._stall_s
            late = late or (self._deadline is not None and self._deadline.passed)
            self.write_late = self.write_late or late
            if late or self._overdue():
                raise ConnectionResetError("the far side takes nothing any more") from None
            raise
        self._written_at = time.monotonic()
        return size

    def settimeout(self, value: float | None) -> None:
        """Set how long recv and send block at most."""
        self._sock.settimeout(value)

    def close(self) -> None:
        """End the connection, also under a thread that waits on it."""
        self._closed = True
        if isinstance(self._sock, socket.socket):
            with contextlib.suppress(OSError):
                # What the kernel still holds must not reach the device after we gave up:
                # it would grow a file that is about to be resumed.
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
                self._sock.shutdown(socket.SHUT_RDWR)
        # Closing a channel writes to its jump host, which may be closed already.
        with contextlib.suppress(*BROKEN):
            self._sock.close()

    def getpeername(self) -> Any:
        """Address of the far side."""
        return self._sock.getpeername()  # type: ignore[attr-defined]

    def _overdue(self) -> bool:
        if self._due is None or time.monotonic() < self._due:
            return False
        self.silence = f"no answer for {ANSWER_S:g} s"
        return True


class Pulse:
    """Asks the far side whether it is there, as long as a call runs."""

    def __init__(self, transport: paramiko.Transport, link: Link) -> None:
        self._transport = transport
        self._link = link
        self._stop = threading.Event()
        #: Number of calls that run; only then is the device disturbed.
        self.calls = 0
        self._thread = threading.Thread(target=self._beat, name="farm-ssh-pulse", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread soon; it doesn't outlive the connection."""
        self._stop.set()

    def _beat(self) -> None:
        while not self._stop.wait(_ASK_EVERY_S) and self._transport.is_active():
            if not self.calls:
                continue
            self._link.expect()
            try:
                # Any answer will do, and sshd refuses what it doesn't know.
                self._transport.global_request("keepalive@openssh.com", wait=True)
            except BROKEN:
                return
