"""The adb server's and the ssh agent's answers, from far sides that speak a few bytes."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from farm.daemons import adb_devices, agent_keys


@contextmanager
def answering(listener: socket.socket, answer: bytes) -> Iterator[list[bytes]]:
    """Answer the first connection with some bytes and hang up; collects what was asked."""
    asked: list[bytes] = []
    listener.listen(1)

    def serve() -> None:
        link, _ = listener.accept()
        with link:
            asked.append(link.recv(4096))
            link.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield asked
    finally:
        thread.join(5)
        listener.close()


@pytest.fixture
def adb_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], socket.socket]]:
    monkeypatch.delenv("ANDROID_ADB_SERVER_ADDRESS", raising=False)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(listener.getsockname()[1]))
        yield lambda: listener


def test_adb_lists_serial_and_state(adb_server: Callable[[], socket.socket]) -> None:
    text = b"R58N\tdevice\n198.18.4.2:5555\tunauthorized\n"
    with answering(adb_server(), b"OKAY" + b"%04x" % len(text) + text) as asked:
        assert adb_devices() == [("R58N", "device"), ("198.18.4.2:5555", "unauthorized")]
    assert asked == [b"000chost:devices"]


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"OKAY0010abc", b""])
def test_adb_refuses_what_is_no_adb_server(
    adb_server: Callable[[], socket.socket], answer: bytes
) -> None:
    with answering(adb_server(), answer), pytest.raises(OSError, match=r"adb server|ended early"):
        adb_devices()


def test_no_adb_server_is_a_refused_connection(adb_server: Callable[[], socket.socket]) -> None:
    adb_server().close()
    with pytest.raises(ConnectionRefusedError):
        adb_devices()


def test_agent_tells_its_number_of_keys(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "agent"))
        answer = struct.pack(">IBI", 5 + 300, 12, 3) + b"\0" * 300
        with answering(listener, answer) as asked:
            assert agent_keys(str(tmp_path / "agent")) == 3
    assert asked == [b"\0\0\0\x01\x0b"]


def test_agent_failure_is_an_error(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "agent"))
        with (
            answering(listener, struct.pack(">IBI", 5, 5, 0)),
            pytest.raises(OSError, match="not an ssh agent"),
        ):
            agent_keys(str(tmp_path / "agent"))


@pytest.mark.parametrize("path", [None, ""])
def test_no_agent(path: str | None) -> None:
    assert agent_keys(path) is None


def test_a_dead_agent_socket_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        agent_keys(str(tmp_path / "gone"))
