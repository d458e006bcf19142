"""Devices with an sshd: boards, servers. One connection, a channel per call.

Devices need nothing but `sh`, `cat` and `chmod`. Only `stat` wants more: the SFTP subsystem,
which needs no program on the PATH, or else the program `stat`.
"""

from __future__ import annotations

import logging
import re
import stat as stat_bits
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import paramiko

from farm.clock import Deadline
from farm.core.command import Command, Completed, FileStat
from farm.core.device import DeviceEntry
from farm.core.errors import (
    ConnectError,
    DeviceLost,
    TransferError,
    TransportError,
    TransportTimeout,
)
from farm.protocols import ByteProgress
from farm.transports import command_line, ssh_keys, ssh_login
from farm.transports.files import LocalSink, check_offset, reading, require_regular, require_written
from farm.transports.gate import Gate
from farm.transports.limits import ANSWER_S, KILL_CLOSING_S, Wait
from farm.transports.output import Meter, Output, ignore
from farm.transports.ssh_channel import (
    NO_CODE,
    NoSftp,
    Source,
    admitted,
    execute,
    no_input,
    open_sftp,
    sftp_stat,
)
from farm.transports.ssh_config import Target, resolve
from farm.transports.ssh_link import Link, Pulse

_log = logging.getLogger(__name__)

_DEFAULT_ROOT = ".cache/farm"
_KEEPALIVE_S = 30
#: What ending a remote program may take, seconds.
_KILL_S = 2.0
_ABSENT = 44
_STAT_OUTPUT = re.compile(r"(\d+) ([0-9a-fA-F]+) (\d+)\s*\Z")


def open_ssh(entry: DeviceEntry) -> SshTransport:
    """Make the transport of a device with an sshd.

    Raises:
        ConfigError: The entry has no host, or ~/.ssh/config can't be used.
    """
    return SshTransport(entry, resolve(entry))


def route(entry: DeviceEntry) -> tuple[Target, ...]:
    """Hosts whose keys have to be trusted: those on the way to a device, and the device.

    Raises:
        ConfigError: As `open_ssh`.
    """
    target = resolve(entry)
    passed = [replace(hop, hops=target.hops[:n]) for n, hop in enumerate(target.hops)]
    return (*passed, target)


def fingerprint(entry: DeviceEntry, place: Target | None = None) -> ssh_keys.HostKey:
    """Ask a device for its host key, or a place on the way there; those before it are logged in to.

    Raises:
        ConnectError: It can't be reached.
        ConfigError: As `open_ssh`.
    """
    return ssh_login.shown_key(entry, place or resolve(entry))


def trust(entry: DeviceEntry, key: ssh_keys.HostKey | None = None) -> ssh_keys.HostKey:
    """Record a host key in farm's known_hosts file, in place of older ones.

    Args:
        entry: The device.
        key: The key that a person has seen and confirmed; None fetches it now.

    Raises:
        ConnectError: It can't be reached, or the file can't be written.
    """
    shown = key or fingerprint(entry)
    ssh_keys.record(shown)
    return shown


class SshTransport:
    """One device behind an sshd; connects at the first call and again after a loss.

    Args:
        entry: The device, for errors, known hosts and root.
        target: Where it is.
    """

    name = "ssh"

    def __init__(self, entry: DeviceEntry, target: Target) -> None:
        self._entry = entry
        self._device = entry.name
        self._target = target
        self._gate = Gate(entry.name)
        # Protects what close() touches from another thread: the fields below.
        self._lock = threading.Lock()
        self._login: ssh_login.Login | None = None
        self._links: list[Link] = []
        self._pid: int | None = None
        self._pulse: Pulse | None = None
        self._sftp: paramiko.SFTPClient | None = None
        self._has_sftp = True
        self._home: str | None = None

    def run(self, command: Command, on_stdout: Callable[[bytes], None] | None = None) -> Completed:
        """Run a program to its end; see `farm.protocols.Transport.run`."""
        line = command_line.shell_line(command, replace=False)
        output = Output(command, self._device, on_stdout)
        wait = Wait(self._device, f"'{command.argv[0]}'", Deadline(command.timeout_s))
        rest = memoryview(command.stdin)

        def take(size: int) -> bytes:
            nonlocal rest
            piece, rest = rest[:size], rest[size:]
            return bytes(piece)

        return output.completed(self._execute(line, take, output, wait))

    def push(
        self,
        local: Path,
        remote: str,
        *,
        mode: int = 0o600,
        offset: int = 0,
        progress: ByteProgress | None = None,
        stall_s: float = 15.0,
    ) -> None:
        """Write a file to the device; see `farm.protocols.Transport.push`."""
        meter = Meter(progress, offset)
        if offset:
            check_offset(self.stat(remote), offset, remote, self._device)
        line = command_line.write_line(remote, mode=mode, append=offset > 0)
        output = Output(Command(("sh",)), self._device)
        wait = Wait(self._device, f"the push of {remote}", stall_s=stall_s)
        with reading(local, offset) as source:

            def take(size: int) -> bytes:
                piece = source.read(size)
                meter.add(len(piece))
                return piece

            code = self._execute(line, take, output, wait)
        require_written(output.completed(code), remote, self._device)
        meter.finish()

    def pull(
        self,
        remote: str,
        local: Path,
        *,
        max_bytes: int,
        progress: ByteProgress | None = None,
        stall_s: float = 15.0,
    ) -> None:
        """Read a file of the device; see `farm.protocols.Transport.pull`."""
        meter = Meter(progress)
        found = require_regular(self._look(remote), remote, self._device)
        output = Output(Command(("cat",)), self._device)
        wait = Wait(self._device, f"the pull of {remote}", stall_s=stall_s)
        with LocalSink(local, remote, max_bytes=max_bytes, device=self._device) as sink:
            sink.check_size(found.size_bytes)

            def keep(piece: bytes) -> None:
                sink.write(piece)
                meter.add(len(piece))

            line = command_line.read_line(remote)
            code = self._execute(line, no_input, output, wait, on_stdout=keep)
        require_written(output.completed(code), remote, self._device)
        meter.finish()

    def stat(self, remote: str) -> FileStat | None:
        """Look at a file; see `farm.protocols.Transport.stat`."""
        found = self._look(remote)
        return None if found is None else found[0]

    def default_root(self) -> str:
        """`~/.cache/farm`, or the inventory's `root`, with the home folder written out."""
        root = self._entry.root or f"~/{_DEFAULT_ROOT}"
        if root != "~" and not root.startswith("~/"):
            return root
        if self._home is None:
            done = self.run(Command(("sh", "-c", 'echo "$HOME"'), timeout_s=ANSWER_S))
            self._home = done.text.rstrip("\n")
            if not done.ok or not self._home.startswith("/"):
                raise ConnectError(
                    f"{self._device}: its home folder is unknown: set `root` in the inventory"
                )
        return self._home + root[1:]

    def close(self) -> None:
        """End what runs, then the connection; a blocked call raises DeviceLost."""
        with self._lock:
            login, pid = self._login, self._pid

        def end_program() -> None:
            if login is not None and pid is not None:
                # A frozen device never answers, so this must not be waited for.
                ending = threading.Thread(
                    target=self._end_remote, args=(login, pid, KILL_CLOSING_S), daemon=True
                )
                ending.start()
                ending.join(KILL_CLOSING_S)

        self._gate.close(end_program)
        if login is not None:
            self._drop(login)

    def _execute(
        self,
        line: bytes,
        source: Source,
        output: Output,
        wait: Wait,
        *,
        on_stdout: Callable[[bytes], None] | None = None,
    ) -> int:
        """Run a line that reports its process id; end that process when we stop waiting."""
        pids = command_line.PidFilter()
        take = on_stdout or output.add_stdout

        def filtered(piece: bytes) -> None:
            rest = pids.feed(piece)
            self._pid = pids.pid
            take(rest)

        login = self._connected()
        line = command_line.login_line(line)
        with self._calling(login):
            try:
                code = admitted(
                    lambda: execute(login, line, source, filtered, output.add_stderr, wait),
                    self._give_up_sftp,
                )
            except BaseException as error:
                if pids.pid is not None and not self._gate.closed:
                    self._end_remote(login, pids.pid, _KILL_S)
                printed = pids.printed + output.stderr
                if pids.pid is None and printed and isinstance(error, TransportTimeout):
                    raise command_line.never_started(self._device, NO_CODE, printed) from error
                raise
            finally:
                self._pid = None
        # A program that ended because close() killed it has an exit code that means nothing.
        self._gate.check()
        if pids.pid is None:
            raise command_line.never_started(self._device, code, pids.printed + output.stderr)
        return code

    def _give_up_sftp(self) -> None:
        """Close the SFTP session, which counts as one of few that a device allows."""
        with self._lock:
            sftp, self._sftp = self._sftp, None
            self._has_sftp = False
        if sftp is not None:
            sftp.close()

    @contextmanager
    def _calling(self, login: ssh_login.Login) -> Iterator[None]:
        """Keep asking the device whether it is there; give up a connection that broke."""
        pulse = self._pulse
        if pulse is not None:
            pulse.calls += 1
        try:
            with self._gate.explaining():
                yield
        except DeviceLost:
            self._drop(login)
            raise
        finally:
            if pulse is not None:
                pulse.calls -= 1

    def _connected(self) -> ssh_login.Login:
        """Return the connection, making a new one where there is none or it broke.

        Raises:
            ConnectError: The device can't be reached or refuses us.
            DeviceLost: `close` was called.
        """
        self._gate.check()
        login = self._login
        if login is not None and login.transport.is_active():
            return login
        if login is not None:
            self._drop(login)
        try:
            with self._gate.explaining():
                login = ssh_login.log_in(self._entry, self._target, self._admit)
        except TransportError:
            self._forget_links()
            raise
        login.transport.set_keepalive(_KEEPALIVE_S)
        with self._lock:
            self._login = login
            self._pulse = Pulse(login.transport, login.link)
        if self._gate.closed:
            self._drop(login)
            raise self._gate.lost()
        return login

    def _admit(self, link: Link) -> None:
        """Let `close` reach a link from its first moment on."""
        try:
            self._gate.admit(link.close)
        except DeviceLost:
            link.close()
            raise
        with self._lock:
            self._links.append(link)

    def _forget_links(self) -> None:
        with self._lock:
            links, self._links = self._links, []
        for link in links:
            self._gate.release(link.close, link.close)

    def _drop(self, login: ssh_login.Login) -> None:
        with self._lock:
            if self._login is login:
                self._login = self._sftp = None
            pulse, self._pulse = self._pulse, None
        if pulse is not None:
            pulse.stop()
        self._forget_links()
        login.close()

    def _end_remote(self, login: ssh_login.Login, pid: int, limit_s: float) -> None:
        """End a program that we no longer wait for; a lost device keeps it."""
        wait = Wait(self._device, "ending a program", Deadline(limit_s))
        line = command_line.login_line(command_line.kill_line(pid))
        try:
            execute(login, line, no_input, ignore, ignore, wait)
        except TransportError as error:
            _log.warning("%s: process %d may still run there: %s", self._device, pid, error)

    def _look(self, remote: str) -> tuple[FileStat, int] | None:
        """Look at what a path leads to: its values and full mode; None when nothing is there."""
        login = self._connected()
        with self._calling(login):
            sftp = self._files(login)
            try:
                if sftp is not None:
                    return sftp_stat(sftp, command_line.file_path(remote), self._device)
            except NoSftp as error:
                _log.info("%s: %s", self._device, error)
                self._give_up_sftp()
        output = Output(Command(("stat",)), self._device)
        wait = Wait(self._device, "a question", Deadline(ANSWER_S))
        line = command_line.stat_line(remote, _ABSENT)
        done = output.completed(self._execute(line, no_input, output, wait))
        if done.exit_code == _ABSENT:
            return None
        found = _STAT_OUTPUT.match(done.text)
        if found is None:
            raise TransferError(
                f"{self._device}: can't look at {remote}: {done.error_text}. The device needs SFTP "
                f"(openssh-sftp-server) or the program stat",
                device=self._device,
            )
        mode = int(found[2], 16)
        return FileStat(int(found[1]), stat_bits.S_IMODE(mode), int(found[3])), mode

    def _files(self, login: ssh_login.Login) -> paramiko.SFTPClient | None:
        """Open the SFTP subsystem once a connection; None where there is none."""
        if self._sftp is None and self._has_sftp:
            self._sftp = open_sftp(login, self._device)
            self._has_sftp = self._sftp is not None
        return self._sftp
