"""adb's streams against a far side in this process: pieces, garbage, silence."""

from __future__ import annotations

import io
import os
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from farm.clock import Deadline
from farm.core.errors import DeviceLost, StorageFull, TransferError, TransportTimeout
from farm.transports.adb_shell import ShellSession, bytes_source
from farm.transports.adb_sync import SyncSession
from farm.transports.adb_wire import Patience, ServerRefused, Stream
from farm.transports.files import LocalSink
from farm.transports.output import Meter


@pytest.fixture
def ends() -> Iterator[tuple[Stream, socket.socket]]:
    near, far = socket.socketpair()
    stream = Stream(near, "phone")
    far.settimeout(10)
    yield stream, far
    stream.close()
    far.close()


def patience(**limits: float) -> Patience:
    return Patience("phone", "work", deadline=Deadline(limits.pop("total_s", 5.0)), **limits)  # type: ignore[arg-type]


def packet(kind: int, body: bytes) -> bytes:
    return struct.pack("<BI", kind, len(body)) + body


def test_a_request_is_accepted_or_refused_with_the_reason(
    ends: tuple[Stream, socket.socket],
) -> None:
    stream, far = ends
    far.sendall(b"OKAY")
    stream.request(b"host:version", patience())
    assert far.recv(100) == b"000chost:version"
    far.sendall(b"FAIL000cno such thing")
    with pytest.raises(ServerRefused, match="no such thin"):
        stream.request(b"x", patience())


@pytest.mark.parametrize("answer", [b"HTTP/1.1", b"OK"])
def test_an_answer_that_is_not_adb_s_is_a_lost_device(
    ends: tuple[Stream, socket.socket], answer: bytes
) -> None:
    stream, far = ends
    far.sendall(answer)
    far.shutdown(socket.SHUT_WR)
    with pytest.raises(DeviceLost):
        stream.request(b"x", patience())


@pytest.mark.parametrize("step", [1, 2, 7, 1000])
def test_shell_packets_are_read_in_any_pieces(
    ends: tuple[Stream, socket.socket], step: int
) -> None:
    stream, far = ends
    data = (
        packet(1, b"out")
        + packet(2, b"err")
        + packet(1, b"")
        + packet(1, b"put")
        + packet(3, b"\7")
    )

    expected = packet(0, b"input") + packet(4, b"")
    received = bytearray()

    def answer() -> None:
        while len(received) < len(expected):
            received.extend(far.recv(100))
        for at in range(0, len(data), step):
            far.sendall(data[at : at + step])

    thread = threading.Thread(target=answer)
    thread.start()
    out, err = bytearray(), bytearray()
    code = ShellSession(stream, "phone").communicate(
        bytes_source(b"input"), out.extend, err.extend, patience()
    )
    thread.join()
    assert (code, bytes(out), bytes(err)) == (7, b"output", b"err")
    assert received == expected


@pytest.mark.parametrize(
    "data", [b"", packet(1, b"x"), packet(1, b"x")[:4], b"\xff" * 40, packet(9, b"")]
)
def test_a_shell_that_breaks_off_is_a_lost_device(
    ends: tuple[Stream, socket.socket], data: bytes
) -> None:
    stream, far = ends
    far.sendall(data)
    far.shutdown(socket.SHUT_WR)
    with pytest.raises(DeviceLost):
        ShellSession(stream, "phone").communicate(
            bytes_source(b""), bytearray().extend, bytearray().extend, patience()
        )


def test_silence_ends_at_the_deadline_and_at_the_stall_limit(
    ends: tuple[Stream, socket.socket],
) -> None:
    stream, _ = ends
    with pytest.raises(TransportTimeout, match=r"within 0\.1 s"):
        stream.read_exactly(1, patience(total_s=0.1))
    with pytest.raises(TransportTimeout, match=r"stalled for 0\.1 s"):
        stream.read_exactly(1, patience(stall_s=0.1))


def test_a_quiet_stream_makes_us_ask(
    ends: tuple[Stream, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("farm.transports.adb_wire.QUIET_S", 0.05)
    stream, far = ends
    asked = []

    def answers() -> None:
        asked.append(1)
        if len(asked) == 3:
            far.sendall(b"x")

    waits = Patience("phone", "work", deadline=Deadline(5), probe=answers)
    assert stream.read_exactly(1, waits) == b"x"
    assert len(asked) == 3

    def silent() -> None:
        raise DeviceLost("silent")

    waits = Patience("phone", "work", deadline=Deadline(5), probe=silent)
    with pytest.raises(DeviceLost, match="silent"):
        stream.read_exactly(1, waits)

    def silent_but_late() -> None:
        far.sendall(b"y")
        raise DeviceLost("silent")

    waits = Patience("phone", "work", deadline=Deadline(5), probe=silent_but_late)
    assert stream.read_exactly(1, waits) == b"y"


def test_interrupt_wakes_a_reader(ends: tuple[Stream, socket.socket]) -> None:
    stream, _ = ends
    threading.Timer(0.05, stream.interrupt).start()
    with pytest.raises(DeviceLost, match="ended"):
        stream.read_exactly(1, patience())


def test_a_refused_file_says_why(ends: tuple[Stream, socket.socket], tmp_path: Path) -> None:
    stream, far = ends
    path = tmp_path / "file"
    path.write_bytes(os.urandom(100))
    for reason, kind in (
        (b"couldn't create file: Permission denied", TransferError),
        (b"write failed: No space left on device", StorageFull),
    ):
        far.sendall(struct.pack("<4sI", b"FAIL", len(reason)) + reason)
        with path.open("rb") as source, pytest.raises(kind, match=reason.decode()):
            SyncSession(stream, "phone").send(source, "/x", Meter(None), patience())


@pytest.mark.parametrize(
    "answer",
    [
        struct.pack("<4sI", b"DATA", 10) + b"short",
        struct.pack("<4sI", b"WHAT", 0),
        b"DA",
    ],
)
def test_a_file_that_breaks_off_is_a_lost_device(
    ends: tuple[Stream, socket.socket], tmp_path: Path, answer: bytes
) -> None:
    stream, far = ends
    far.sendall(answer)
    far.shutdown(socket.SHUT_WR)
    with (
        LocalSink(tmp_path / "back", "/x", max_bytes=100, device="phone") as sink,
        pytest.raises(DeviceLost),
    ):
        SyncSession(stream, "phone").receive("/x", sink, Meter(None), patience())


def test_a_file_larger_than_it_said_is_refused(
    ends: tuple[Stream, socket.socket], tmp_path: Path
) -> None:
    stream, far = ends
    far.sendall((struct.pack("<4sI", b"DATA", 60) + b"x" * 60) * 2)
    with (
        LocalSink(tmp_path / "back", "/x", max_bytes=100, device="phone") as sink,
        pytest.raises(TransferError, match="larger than 100 bytes"),
    ):
        SyncSession(stream, "phone").receive("/x", sink, Meter(None), patience())


@pytest.mark.parametrize("path", ["x" * 1025, "a\0b"])
def test_an_impossible_path_is_refused_before_it_is_sent(
    ends: tuple[Stream, socket.socket], path: str
) -> None:
    stream, _ = ends
    with pytest.raises(TransferError, match="can't be a path"):
        SyncSession(stream, "phone").send(
            io.BufferedReader(io.BytesIO()), path, Meter(None), patience()
        )
