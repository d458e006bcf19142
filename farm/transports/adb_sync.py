"""adb's file service: stat, send and receive over one stream, 64 KiB at a time.

Knows nothing of connecting. Paths are bytes on the wire, whatever they hold.
"""

from __future__ import annotations

import os
import stat as stat_bits
import struct
from collections.abc import Callable
from typing import BinaryIO

from farm.core.command import FileStat
from farm.core.errors import DeviceLost, StorageFull, TransferError
from farm.transports.adb_wire import Patience, Stream
from farm.transports.files import LocalSink, storage_error
from farm.transports.output import Meter

#: Most that a DATA message may carry.
DATA_BYTES = 1 << 16
_MESSAGE_BYTES = 8 + DATA_BYTES
#: Messages handed to the kernel at once.
_BATCH = 16
#: Longest path that adbd takes.
_PATH_BYTES = 1024
_STAT = struct.Struct("<4sIQQIIIIQqqq")
_NO_ENTRY, _NOT_A_FOLDER = 2, 20


class SyncSession:
    """A stream on which the device speaks the file service.

    Args:
        stream: Opened on service `sync:`; the session owns it.
        device: Name of the device, for errors.
    """

    def __init__(self, stream: Stream, device: str) -> None:
        self.stream = stream
        self._device = device

    def stat(self, remote: str, patience: Patience) -> tuple[FileStat, int] | None:
        """Look at what a path leads to: its values and full mode; None when nothing is there.

        Raises:
            TransferError: It can't be looked at.
            DeviceLost, TransportTimeout: As `Patience.wait`.
        """
        self._request(b"STA2", self._path(remote), patience)
        kind = self.stream.read_exactly(len(b"STA2"), patience)
        if kind == b"FAIL":  # Android 7 and older know this question by another name
            raise self._error(
                f"{self._device}: its adbd can't tell of files (stat_v2): farm needs Android 8"
            )
        if kind != b"STA2":
            raise DeviceLost(f"{self._device} answered {kind!r} to a stat", device=self._device)
        answer = kind + self.stream.read_exactly(_STAT.size - len(kind), patience)
        _, error, _, _, mode, _, _, _, size, _, mtime, _ = _STAT.unpack(answer)
        if error in (_NO_ENTRY, _NOT_A_FOLDER):
            return None
        if error:
            raise self._error(f"{remote}: {os.strerror(error)}")
        return FileStat(size, stat_bits.S_IMODE(mode), mtime), mode

    def send(
        self,
        source: BinaryIO,
        remote: str,
        meter: Meter,
        patience: Patience,
        *,
        on_begun: Callable[[], None] | None = None,
    ) -> None:
        """Write a file from its start. adbd makes it readable for all: set its mode after.

        Args:
            source: The file of this host.
            remote: Its place on the device; adbd removes it when the transfer breaks.
            meter: Counts what was sent.
            patience: How long to wait.
            on_begun: Called once, when the first bytes are on their way.

        Raises:
            StorageFull: No space left on the device.
            TransferError: The device refused it.
            DeviceLost, TransportTimeout: As `Patience.wait`.
        """
        self._request(b"SEND", self._path(remote) + b",%d" % (stat_bits.S_IFREG | 0o600), patience)
        batch = bytearray(_BATCH * _MESSAGE_BYTES)
        try:
            while size := _fill(batch, source):
                self._send_watching(memoryview(batch)[:size], remote, meter, patience)
                if on_begun is not None:
                    on_begun()
                    on_begun = None
            mtime = int(os.fstat(source.fileno()).st_mtime) & 0xFFFFFFFF
            self.stream.send_all(struct.pack("<4sI", b"DONE", mtime), patience)
        except DeviceLost:
            # adbd sends the reason, then closes the stream.
            self._raise_pending(remote, patience)
            raise
        self._expect_okay(remote, patience)

    def receive(self, remote: str, sink: LocalSink, meter: Meter, patience: Patience) -> None:
        """Read a file.

        Raises:
            TransferError: The device can't read it, or it is larger than the sink takes.
            DeviceLost, TransportTimeout: As `Patience.wait`.
        """
        self._request(b"RECV", self._path(remote), patience)
        while True:
            kind, size = struct.unpack("<4sI", self.stream.read_exactly(8, patience))
            if kind == b"DONE":
                return
            if kind == b"FAIL":
                raise self._failure(remote, size, patience)
            if kind != b"DATA":
                raise DeviceLost(f"{self._device} sent {kind!r} in a file", device=self._device)
            while size:
                piece = self.stream.read_some(size, patience)
                if not piece:
                    raise DeviceLost(f"{self._device} ended within a file", device=self._device)
                sink.write(piece)
                meter.add(len(piece))
                size -= len(piece)

    def _send_watching(
        self, data: memoryview, remote: str, meter: Meter, patience: Patience
    ) -> None:
        """Send messages, and stop when the device has something to say against them."""
        at = 0
        while at < len(data):
            before = at
            at += self.stream.send(data[at:])
            meter.add(_payload(at) - _payload(before))
            # Asked once a batch while it flows, and whenever the device makes us wait.
            readable = self.stream.poll(read=True, write=False, timeout_s=0)[0]
            if at < len(data) and not readable:
                readable, _ = patience.wait(self.stream, read=True, write=True)
            if readable:
                self._expect_okay(remote, patience)
                raise self._error(f"{remote}: the device ended the transfer early")

    def _expect_okay(self, remote: str, patience: Patience) -> None:
        kind, size = struct.unpack("<4sI", self.stream.read_exactly(8, patience))
        if kind == b"FAIL":
            raise self._failure(remote, size, patience)
        if kind != b"OKAY":
            raise DeviceLost(f"{self._device} answered {kind!r} to a file", device=self._device)

    def _raise_pending(self, remote: str, patience: Patience) -> None:
        readable, _ = self.stream.poll(read=True, write=False, timeout_s=0.2)
        if readable:
            self._expect_okay(remote, patience)

    def _failure(self, remote: str, size: int, patience: Patience) -> TransferError | StorageFull:
        text = self.stream.read_exactly(min(size, 4096), patience).decode("utf-8", "replace")
        return storage_error(f"{remote}: {text}", self._device)

    def _request(self, kind: bytes, path: bytes, patience: Patience) -> None:
        self.stream.send_all(struct.pack("<4sI", kind, len(path)) + path, patience)

    def _path(self, remote: str) -> bytes:
        path = os.fsencode(remote)
        if len(path) > _PATH_BYTES or b"\0" in path:
            raise self._error(f"'{remote[:80]}' can't be a path on the device")
        return path

    def _error(self, text: str) -> TransferError:
        return TransferError(text, device=self._device)


def _fill(batch: bytearray, source: BinaryIO) -> int:
    """Fill a buffer with DATA messages; return how much of it is used."""
    view = memoryview(batch)
    at = 0
    while at + _MESSAGE_BYTES <= len(batch):
        size: int = source.readinto(view[at + 8 : at + _MESSAGE_BYTES])  # type: ignore[attr-defined]
        if not size:
            break
        struct.pack_into("<4sI", batch, at, b"DATA", size)
        at += 8 + size
        if size < DATA_BYTES:
            break
    return at


def _payload(at: int) -> int:
    """File bytes among the first bytes of a batch."""
    return max(0, at - 8 * -(-at // _MESSAGE_BYTES))
