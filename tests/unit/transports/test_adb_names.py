from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from farm.core.command import Command
from farm.core.device import DeviceEntry
from farm.core.errors import ConnectError
from farm.transports import open as open_transport
from farm.transports.adb_devices import spelled
from farm.transports.adb_names import by_serialno, too_old

MDNS = "adb-2A0F1JEG-bbQ1yz (2)._adb-tls-connect._tcp"
TCP = "192.168.1.20:37123"


def said(text: str) -> bytes:
    return b"OKAY%04x" % len(text) + text.encode()


@contextmanager
def server(answers: Mapping[bytes, bytes]) -> Iterator[tuple[str, int]]:
    """An adb server: to a request that begins so, this answer; the others are refused."""
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)

        def serve_one(link: socket.socket) -> None:
            with link, link.makefile("rb") as lines:
                while size := lines.read(4):
                    asked = lines.read(int(size, 16))
                    found = [answer for begin, answer in answers.items() if asked.startswith(begin)]
                    link.sendall(found[0] if found else b"FAIL0006closed")
                    if found and found[0] != b"OKAY":
                        return

        def serve() -> None:
            while not ended.is_set():
                try:
                    link, _address = listener.accept()
                except TimeoutError:
                    continue
                link.settimeout(5)
                threading.Thread(target=serve_one, args=(link,), daemon=True).start()

        thread = threading.Thread(target=serve)
        thread.start()
        yield "127.0.0.1", listener.getsockname()[1]
        ended.set()
        thread.join(5)


def listed(*serials: str) -> bytes:
    return said(
        "".join(f"{serial}  device product:p model:m transport_id:1\n" for serial in serials)
    )


def test_a_wireless_phone_is_found_by_its_own_serial_number() -> None:
    """Under its mDNS name, which has it, or under an address, where the phone is asked."""
    answers = {b"host:devices-l": listed(MDNS, TCP), b"host:transport:": b"OKAY"}
    with server({**answers, b"exec:getprop ro.serialno": b"OKAY7777\n"}) as address:
        assert by_serialno(address, "2A0F1JEG") == MDNS
        assert by_serialno(address, "7777") == TCP
        assert by_serialno(address, "777") is None
        assert by_serialno(address, "") is None


OLD = {
    b"host:devices-l": listed("R58N"), b"host:transport:": b"OKAY",
    b"host-serial:R58N:features": said("cmd"),
}  # fmt: skip


def test_an_adbd_that_is_too_old_is_told_so() -> None:
    with server(OLD) as address:
        assert "shell_v2 and no stat_v2" in too_old(address, "R58N")
        entry = DeviceEntry("old", "adb", serial="R58N", adb_server=spelled(address))
        transport = open_transport(entry)
        with pytest.raises(ConnectError, match="farm needs Android 8 or later") as caught:
            transport.run(Command(("true",)))
        assert caught.value.context["state"] == "unfit"
        transport.close()
    with server({**OLD, b"host-serial:R58N:features": said("cmd,shell_v2,stat_v2")}) as address:
        assert too_old(address, "R58N") == ""
