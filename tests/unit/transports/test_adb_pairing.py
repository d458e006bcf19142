from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import adbutils
import pytest

from farm.core.errors import ConfigError, ConnectError
from farm.transports.adb_devices import listens
from farm.transports.adb_pairing import Announced, announced, pair, parse_announced

LIST = """\
List of discovered mdns services
adb-2A0F-bbQ1yz\t_adb-tls-connect._tcp\t192.168.1.20:41235
adb-2A0F-bbQ1yz (2)\t_adb-tls-pairing._tcp.\t192.168.1.20:37123
adb-7777\t_adb._tcp\t10.0.0.7:5555
printer\t_ipp._tcp\t10.0.0.8:631
cut\t_adb._tcp
"""


def test_what_phones_announce() -> None:
    assert parse_announced(LIST) == (
        Announced("adb-2A0F-bbQ1yz", "paired", "192.168.1.20:41235"),
        Announced("adb-2A0F-bbQ1yz (2)", "pairing", "192.168.1.20:37123"),
        Announced("adb-7777", "plain", "10.0.0.7:5555"),
    )


@contextmanager
def answering(answer: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """An adb server of one answer; its address, and what it was asked."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for _ in range(2):  # the first connection only looks whether something listens
                link, _address = listener.accept()
                with link:
                    size = link.recv(4)
                    if size:
                        asked.append(link.recv(int(size, 16)))
                        link.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}", asked
        thread.join(10)


def said(text: str) -> bytes:
    return b"%04x" % len(text) + text.encode()


def test_a_code_that_is_accepted() -> None:
    text = "Successfully paired to 192.168.1.20:37123 [guid=adb-2A0F-bbQ1yz]"
    with answering(b"OKAY" + said(text)) as (server, asked):
        assert pair("192.168.1.20:37123", "123456", server) == text
    assert asked == [b"host:pair:123456:192.168.1.20:37123"]


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        (b"OKAYFAIL" + said("Failed: Wrong password or connection was dropped."), "Wrong password"),
        (b"OKAY" + said("Failed: Unable to start pairing client."), "start pairing client"),
        (b"FAIL" + said("unknown host service"), "before platform-tools 31"),
        (b"OKAY00", "doesn't answer"),
    ],
)
def test_a_code_that_is_not(answer: bytes, shown: str) -> None:
    with answering(answer) as (server, _), pytest.raises(ConnectError) as caught:
        pair("192.168.1.20:37123", "123456", server)
    assert shown in caught.value.message
    assert "123456" not in caught.value.message


@pytest.mark.parametrize(
    ("place", "code"), [("phone", "123456"), ("10.0.0.1:70", "12345"), ("10.0.0.1:x", "123456")]
)
def test_what_no_phone_shows_is_refused(place: str, code: str) -> None:
    with pytest.raises(ConfigError):
        pair(place, code)


def test_a_real_server_is_asked_as_it_wants(tmp_path: Path) -> None:
    """The adb that adbutils carries can pair; here is no phone, and it says so in its words."""
    program = Path(adbutils.__file__).with_name("binaries") / "adb"
    if not program.is_file():
        pytest.skip("adbutils carries no adb for this machine")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    environment = {**os.environ, "HOME": str(tmp_path)}
    words = [str(program), "-P", str(port), "nodaemon", "server"]
    with subprocess.Popen(
        words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            while not listens(("127.0.0.1", port)):
                assert process.poll() is None
                time.sleep(0.05)
            server = f"127.0.0.1:{port}"
            assert announced(server) == ()
            with pytest.raises(ConnectError, match="wasn't paired: Unable to start pairing"):
                pair("127.0.0.1:1", "123456", server)
        finally:
            process.kill()
