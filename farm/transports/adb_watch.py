"""Whether an adb server is still the one that we spoke to.

Another tool's adb of another version ends a server that it finds and starts its own, again and
again. A phone isn't to blame for that. A connection on which nothing is asked ends with its server.
"""

from __future__ import annotations

import contextlib
import socket
import threading

from farm.core.errors import ConnectError, DeviceLost

#: Making the connection, seconds: the server answered a moment ago.
_CONNECT_S = 1.0


class ServerWatch:
    """Notices that a server ended since it was last looked at.

    Args:
        address: The adb server.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        # Protects _sock: close() comes from another thread.
        self._lock = threading.Lock()
        self._sock: socket.socket | None = None

    def begin(self) -> None:
        """Watch the server that runs now; nothing happens while one is watched."""
        with self._lock:
            if self._sock is None:
                # Without it a restart looks like a fault of the device, as it did before.
                with contextlib.suppress(OSError):
                    self._sock = socket.create_connection(self._address, _CONNECT_S)
                    self._sock.setblocking(False)

    def ended(self) -> bool:
        """Whether the server that was watched has ended; then another one may be watched."""
        with self._lock:
            if self._sock is None:
                return False
            try:
                gone = self._sock.recv(1, socket.MSG_PEEK) == b""
            except BlockingIOError:
                return False
            except OSError:
                gone = True
            if gone:
                self._sock.close()
                self._sock = None
            return gone

    def close(self) -> None:
        """Stop watching."""
        with self._lock:
            if self._sock is not None:
                self._sock.close()
                self._sock = None


def server_ended(
    device: str, address: tuple[str, int], error: ConnectError | DeviceLost
) -> ConnectError | DeviceLost:
    """The error of a call that its server cut off: it is a fault of the host, not of the device."""
    remedy = (
        "another program ends it: use one version of adb on that host (Android Studio, scrcpy and"
        " others bring their own), or give farm a server of its own with `adb_server`"
    )
    context = {**error.context, "device": device, "host_fault": "adb server"}
    if isinstance(error, ConnectError):  # what is there now is the more useful word
        return ConnectError(error.message, **context)
    where = f"{address[0]}:{address[1]}"
    text = f"{device}: the adb server at {where} ended meanwhile ({error.message}): {remedy}"
    return DeviceLost(text, **{**context, "remedy": remedy})
