"""A connection that a program of this host makes: ProxyCommand of ~/.ssh/config.

The program gets one end of a pair of sockets, so that what farm does with a connection (limits on
silence, closing it from another thread) holds for it too.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import threading
from typing import IO

#: The last of what the program said, characters.
_SAID = 300


class ProxySocket(socket.socket):
    """Our end. It ends the program when it is closed.

    Args:
        command: Line for the shell.

    Raises:
        OSError: It can't be started.
    """

    def __init__(self, command: str) -> None:
        ours, theirs = socket.socketpair()
        super().__init__(fileno=ours.detach())
        #: Protects _errors: who closes the connection isn't who asks what was said.
        self._lock = threading.Lock()
        self._last = ""
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed in close()
        try:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", f"exec {command}"],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=self._errors,
                start_new_session=True,
            )
        except OSError:
            self._errors.close()
            super().close()
            raise
        finally:
            theirs.close()

    def said(self) -> str:
        """What the program wrote to its standard error, and how it ended."""
        with self._lock:
            if not self._errors.closed:
                self._errors.seek(0)
                text = self._errors.read()[-_SAID:].decode("utf-8", "replace").strip()
                code = self._process.poll()
                self._last = text or (f"exit {code}" if code else "")
            return self._last

    def close(self) -> None:
        """End the connection and the program."""
        super().close()
        self.said()
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(timeout=1)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        with self._lock:
            self._errors.close()
