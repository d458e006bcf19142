"""Questions to two daemons of this host: the adb server and the ssh agent.

Each takes one connection and one answer, and neither is started by asking.
"""

from __future__ import annotations

import errno
import os
import socket
import struct


def adb_devices(timeout_s: float = 3.0) -> list[tuple[str, str]]:
    """Ask the running adb server for serial and state of each device.

    Raises:
        OSError: No server runs there, or it doesn't speak adb.
    """
    host = os.environ.get("ANDROID_ADB_SERVER_ADDRESS", "127.0.0.1")
    port = int(os.environ.get("ANDROID_ADB_SERVER_PORT", "5037"))
    with socket.create_connection((host, port), timeout=timeout_s) as link:
        link.sendall(b"000chost:devices")
        if _exactly(link, 4) != b"OKAY":
            raise OSError(errno.EPROTO, f"{host}:{port} is not an adb server")
        size = int(_exactly(link, 4), 16)
        text = _exactly(link, size).decode("utf-8", "replace")
    rows = (line.split("\t", 1) for line in text.splitlines() if "\t" in line)
    return [(serial, state) for serial, state in rows]


def agent_keys(path: str | None, timeout_s: float = 3.0) -> int | None:
    """Ask the ssh agent how many keys it holds; None without an agent.

    Raises:
        OSError: The socket is dead or doesn't speak the agent's protocol.
    """
    if not path:
        return None
    request, answer = 11, 12  # SSH_AGENTC_REQUEST_IDENTITIES, SSH_AGENT_IDENTITIES_ANSWER
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(timeout_s)
        link.connect(path)
        link.sendall(struct.pack(">IB", 1, request))
        _size, kind, count = struct.unpack(">IBI", _exactly(link, 9))
    if kind != answer:
        raise OSError(errno.EPROTO, f"{path} is not an ssh agent")
    return int(count)


def _exactly(link: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        chunk = link.recv(count - len(data))
        if not chunk:
            raise OSError(errno.EPROTO, "the connection ended early")
        data += chunk
    return data
