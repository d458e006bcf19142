"""adb's shell protocol, version 2: separate outputs, exit code, input, streaming.

Knows nothing of connecting, nor of the command behind the stream.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from farm.core.errors import DeviceLost
from farm.transports.adb_wire import Patience, Stream

_STDIN, _STDOUT, _STDERR, _EXIT, _CLOSE_STDIN = range(5)
_HEADER = struct.Struct("<BI")
_READ_BYTES = 1 << 17
#: Larger pieces are no faster and make the end of a program noticed later.
STDIN_BYTES = 1 << 16
#: Longest packet that is believed; adbd's own limit is 1 MiB.
_PACKET_BYTES = 1 << 24

#: Returns the next piece of standard input, at most STDIN_BYTES; empty at its end.
Source = Callable[[], bytes | memoryview]


def bytes_source(data: bytes) -> Source:
    """Serve bytes in pieces."""
    rest = memoryview(data)

    def take() -> memoryview:
        nonlocal rest
        piece, rest = rest[:STDIN_BYTES], rest[STDIN_BYTES:]
        return piece

    return take


class ShellSession:
    """A program at the far end of a stream.

    Args:
        stream: Opened on service `shell,v2,raw:...`; the session owns it.
        device: Name of the device, for errors.
    """

    def __init__(self, stream: Stream, device: str) -> None:
        self.stream = stream
        self._device = device
        self._incoming = bytearray()

    def send_input(self, data: bytes, patience: Patience) -> None:
        """Send a piece of standard input that more will follow.

        Raises:
            DeviceLost, TransportTimeout: As `Patience.wait`.
        """
        self.stream.send_all(_HEADER.pack(_STDIN, len(data)) + data, patience)

    def communicate(
        self,
        source: Source,
        on_stdout: Callable[[bytes], None],
        on_stderr: Callable[[bytes], None],
        patience: Patience,
    ) -> int:
        """Feed the program and collect what it prints; return its exit code.

        Raises:
            DeviceLost: The stream ended before the program.
            TransportTimeout: As `Patience.wait`.
        """
        outgoing = memoryview(b"")
        open_input = True
        while True:
            if open_input and not outgoing:
                outgoing, open_input = _next_packet(source)
            readable, writable = patience.wait(self.stream, read=True, write=bool(outgoing))
            if readable:
                piece = self.stream.receive(_READ_BYTES)
                if piece == b"":
                    raise DeviceLost(
                        f"the connection to {self._device} broke while a program ran",
                        device=self._device,
                    )
                self._incoming += piece or b""
                code = self._dispatch(on_stdout, on_stderr)
                if code is not None:
                    return code
            if writable:
                outgoing = outgoing[self.stream.send(outgoing) :]

    def _dispatch(
        self, on_stdout: Callable[[bytes], None], on_stderr: Callable[[bytes], None]
    ) -> int | None:
        """Hand out complete packets; return the exit code when it came."""
        at = 0
        code: int | None = None
        while code is None and len(self._incoming) - at >= _HEADER.size:
            kind, size = _HEADER.unpack_from(self._incoming, at)
            if kind > _CLOSE_STDIN or size > _PACKET_BYTES:
                raise DeviceLost(
                    f"{self._device} sent something that isn't adb's shell protocol",
                    device=self._device,
                )
            end = at + _HEADER.size + size
            if len(self._incoming) < end:
                break
            body = bytes(self._incoming[at + _HEADER.size : end])
            at = end
            if kind == _STDOUT:
                on_stdout(body)
            elif kind == _STDERR:
                on_stderr(body)
            elif kind == _EXIT:
                code = body[0] if body else 255
        del self._incoming[:at]
        return code


def _next_packet(source: Source) -> tuple[memoryview, bool]:
    """Return the next packet of input, and whether more may follow."""
    piece = source()
    if piece:
        return memoryview(_HEADER.pack(_STDIN, len(piece)) + bytes(piece)), True
    return memoryview(_HEADER.pack(_CLOSE_STDIN, 0)), False
