"""The ssh agent's answers, from far sides that speak a few bytes."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from farm.host.ssh_agent import agent_keys


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


def test_an_agent_that_hangs_up_is_an_error(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "agent"))
        with answering(listener, b"\0\0"), pytest.raises(OSError, match="hung up"):
            agent_keys(str(tmp_path / "agent"))


@pytest.mark.parametrize("path", [None, ""])
def test_no_agent(path: str | None) -> None:
    assert agent_keys(path) is None


def test_a_dead_agent_socket_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        agent_keys(str(tmp_path / "gone"))
