"""What goes over an SSH connection: a program with its streams, a look at a file.

paramiko's errors end here; knows nothing of logging in.
"""

from __future__ import annotations

import contextlib
import select
import stat as stat_bits
import time
from collections.abc import Callable, Iterator

import paramiko

from farm.clock import Deadline
from farm.core.command import FileStat
from farm.core.errors import ConnectError, DeviceLost, TransferError, TransportTimeout
from farm.transports import ssh_burst
from farm.transports.limits import ANSWER_S, Wait
from farm.transports.ssh_link import BROKEN, Link
from farm.transports.ssh_login import Login

_READ_BYTES = 1 << 16
_OPEN_S = 10.0
#: How long a session that ended here may still count there.
_SESSION_S = 2.0
#: How long a full window is waited for before looking round.
_TICK_S = 0.02
#: Exit code where the connection brought none, because something killed the shell too.
NO_CODE = 255


class SessionRefused(ConnectError):
    """The device opens no further session beside those that are open."""


class NoSftp(Exception):
    """What answers as SFTP isn't it: a login script prints before the server speaks."""


#: Returns the next piece of standard input, at most so many bytes; empty at its end.
Source = Callable[[int], bytes]


def no_input(_: int) -> bytes:
    """Standard input that is empty."""
    return b""


def execute(
    login: Login,
    line: bytes,
    source: Source,
    on_stdout: Callable[[bytes], None],
    on_stderr: Callable[[bytes], None],
    wait: Wait,
) -> int:
    """Run a line in the user's shell, feed it, hand out what it prints; return its exit code.

    Raises:
        DeviceLost: The connection broke.
        SessionRefused: The device allows no further session.
        TransportTimeout: See `Wait.check`.
    """
    # Opening and closing write too: into a full socket of a frozen device they would wait for the
    # limit on silence.
    login.link.limit_writes(wait.stall_s, wait.deadline)
    try:
        with _translated(login.link, wait.device):
            channel = _session(login, wait)
        try:
            with _translated(login.link, wait.device):
                channel.settimeout(_TICK_S)
                channel.exec_command(line)
            return _Pump(login, channel, wait).run(source, on_stdout, on_stderr)
        finally:
            # Closing writes to the link, which may break at this moment.
            with contextlib.suppress(*BROKEN):
                channel.close()
    except DeviceLost:
        # Our own limits end a channel or the whole link too: that is no loss.
        if login.transport.is_active() or login.link.write_late:
            wait.check(0.0 if login.link.write_late else time.monotonic())
        raise
    finally:
        login.link.limit_writes(None, None)


def admitted(begin: Callable[[], int], make_room: Callable[[], None]) -> int:
    """Begin a session; where a device allows few, once those before it have ended there.

    Raises:
        SessionRefused: Not even after a while.
    """
    limit = Deadline(_SESSION_S)
    while True:
        try:
            return begin()
        except SessionRefused:
            if limit.passed:
                raise
            make_room()
            time.sleep(_SESSION_S / 40)


def _session(login: Login, wait: Wait) -> paramiko.Channel:
    try:
        return login.transport.open_session(timeout=max(0.1, wait.left_s(_OPEN_S)))
    except paramiko.ChannelException as error:
        remedy = "raise MaxSessions in its sshd_config"
        raise SessionRefused(
            f"{wait.device} refuses a further session ({error.text}): {remedy}",
            device=wait.device,
            remedy=remedy,
        ) from error


class _Pump:
    """Moves bytes between a channel and its caller until the program ended."""

    def __init__(self, login: Login, channel: paramiko.Channel, wait: Wait) -> None:
        self._link: Link = login.link
        self._transport = login.transport
        self._channel = channel
        self._wait = wait
        self._poll = select.poll()
        self._poll.register(channel.fileno(), select.POLLIN)

    def run(
        self,
        source: Source,
        on_stdout: Callable[[bytes], None],
        on_stderr: Callable[[bytes], None],
    ) -> int:
        channel = self._channel
        pending: memoryview | None = memoryview(b"")
        moved_at = time.monotonic()
        while True:
            # Asked before reading: what arrives in between is read in the next round.
            ended = channel.exit_status_ready() and (channel.eof_received or channel.closed)
            moved = False
            if channel.recv_ready():
                on_stdout(self._receive(channel.recv))
                moved = True
            if channel.recv_stderr_ready():
                on_stderr(self._receive(channel.recv_stderr))
                moved = True
            if ended and not moved:
                return self._exit_code()
            if pending is not None and not pending:
                pending = self._next(source)
            if pending:
                sent = self._send(pending)
                pending = pending[sent:] if sent >= 0 else None
                moved = moved or sent > 0
            if moved:
                moved_at = time.monotonic()
            else:
                self._idle(pending is not None)
            self._wait.check(moved_at)

    def _receive(self, receive: Callable[[int], bytes]) -> bytes:
        with _translated(self._link, self._wait.device):
            return receive(_READ_BYTES)

    def _next(self, source: Source) -> memoryview | None:
        piece = source(ssh_burst.BURST_BYTES)
        if piece:
            return memoryview(piece)
        try:
            self._channel.shutdown_write()
        except (OSError, EOFError):
            # The program is gone already: its exit code follows, or the loss shows.
            return None
        return None

    def _send(self, piece: memoryview) -> int:
        """Send what the window takes; -1 when the program takes no more input."""
        self._link.limit_writes(self._wait.stall_s, self._wait.deadline)
        try:
            return ssh_burst.send(self._channel, piece)
        except TimeoutError:
            return 0
        except BROKEN:
            # The program ended or the connection broke: its end tells which.
            return -1

    def _idle(self, sending: bool) -> None:
        if sending:
            return  # Waiting for the window was the pause.
        channel = self._channel
        if channel.eof_received and not channel.exit_status_ready():
            # At the end of output the descriptor stays readable: only the status is missing.
            channel.status_event.wait(_TICK_S)
        else:
            self._poll.poll(self._wait.left_s(1.0) * 1000)

    def _exit_code(self) -> int:
        code = self._channel.recv_exit_status()
        if code >= 0:
            return code
        if not self._transport.is_active():
            raise _lost(self._link, self._wait.device, "broke while a program ran")
        return NO_CODE


def open_sftp(login: Login, device: str) -> paramiko.SFTPClient | None:
    """Start the SFTP subsystem; None where the device has none.

    Raises:
        DeviceLost: The connection broke.
    """
    channel: paramiko.Channel | None = None
    try:
        channel = login.transport.open_session(timeout=_OPEN_S)
        channel.settimeout(ANSWER_S)
        channel.invoke_subsystem("sftp")
        return paramiko.SFTPClient(channel)
    except (*BROKEN, paramiko.SFTPError) as error:
        if channel is not None:
            with contextlib.suppress(*BROKEN):
                channel.close()
        if login.transport.is_active():
            return None
        raise _lost(login.link, device, str(error)) from error


def sftp_stat(sftp: paramiko.SFTPClient, remote: str, device: str) -> tuple[FileStat, int] | None:
    """Look at what a path leads to: its values and full mode; None when nothing is there.

    Raises:
        NoSftp: What answers isn't SFTP.
        TransferError: It can't be looked at.
        TransportTimeout: No answer.
        DeviceLost: The connection broke.
    """
    try:
        found = sftp.stat(remote)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except TimeoutError as error:
        raise TransportTimeout(f"{device} doesn't answer to a stat", device=device) from error
    except paramiko.SFTPError as error:
        raise NoSftp(f"no SFTP: {error}") from error
    except (EOFError, paramiko.SSHException) as error:
        raise DeviceLost(f"the connection to {device} broke: {error}", device=device) from error
    except OSError as error:
        raise TransferError(f"{device}: {remote}: {error}", device=device) from error
    mode = found.st_mode or 0
    return FileStat(found.st_size or 0, stat_bits.S_IMODE(mode), found.st_mtime or 0), mode


@contextlib.contextmanager
def _translated(link: Link, device: str) -> Iterator[None]:
    try:
        yield
    except BROKEN as error:
        raise _lost(link, device, str(error) or "ended") from error


def _lost(link: Link, device: str, how: str) -> DeviceLost:
    if link.silence:
        return DeviceLost(f"{device} doesn't answer any more: {link.silence}", device=device)
    return DeviceLost(f"the connection to {device} broke: {how}", device=device)
