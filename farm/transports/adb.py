"""Android devices through an adb server: USB, TCP, or a server on another machine.

Own streams on the server's socket, because a frozen device must be noticed and a blocked
call must be stoppable. Devices need nothing but `sh`, `cat` and `chmod`.
"""

from __future__ import annotations

import logging
import os
import posixpath
import stat as stat_bits
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO

from farm.clock import Deadline
from farm.core.command import Command, Completed, FileStat
from farm.core.device import DeviceEntry
from farm.core.errors import (
    ConfigError,
    ConnectError,
    DeviceLost,
    StorageFull,
    TransferError,
    TransportError,
    TransportTimeout,
)
from farm.protocols import ByteProgress
from farm.transports import command_line
from farm.transports.adb_devices import ensure_server, forget, server_address
from farm.transports.adb_names import TCP_SERIAL, unserved, usable_serial
from farm.transports.adb_shell import STDIN_BYTES, ShellSession, Source, bytes_source
from farm.transports.adb_sync import SyncSession
from farm.transports.adb_watch import ServerWatch, server_ended
from farm.transports.adb_wire import Patience, ServerRefused, Stream
from farm.transports.files import LocalSink, check_offset, reading, require_regular, require_written
from farm.transports.gate import Gate
from farm.transports.limits import ANSWER_S, KILL_CLOSING_S
from farm.transports.output import Meter, Output, ignore

_log = logging.getLogger(__name__)

DEFAULT_ROOT = "/data/local/tmp/farm"
_CONNECT_S = 10.0
#: Files of this size and more leave what arrived when their push breaks.
_GUARDED_BYTES = 4 << 20
_REMOVAL_POLL_S = 0.02
#: What ending a remote program may take, seconds.
_KILL_S = 3.0
#: After waiting in vain for so long, the server's connection to a TCP device is given up.
_FORGET_S = 5.0


def open_adb(entry: DeviceEntry) -> AdbTransport:
    """Make the transport of an adb device.

    Raises:
        ConfigError: The entry has no serial, or its server isn't `host:port`.
    """
    if not entry.serial:
        raise ConfigError(f"device '{entry.name}' needs `serial`, as `adb devices` prints it")
    return AdbTransport(
        entry.name,
        entry.serial,
        server=server_address(entry.adb_server),
        root=entry.root or DEFAULT_ROOT,
    )


class AdbTransport:
    """One device of an adb server.

    Args:
        device: Name of the device, for errors.
        serial: As the server lists it, or its own `ro.serialno`; `host:port` is connected when it
            isn't there.
        server: Address of the adb server.
        root: farm's folder on the device.
    """

    name = "adb"

    def __init__(self, device: str, serial: str, *, server: tuple[str, int], root: str) -> None:
        self._device = device
        self._wanted = serial
        #: The name in the server's list, which changes with the address of a wireless phone.
        self._serial = serial
        self._server = server
        self._root = root
        self._gate = Gate(device)
        self._watch = ServerWatch(server)

    def run(self, command: Command, on_stdout: Callable[[bytes], None] | None = None) -> Completed:
        """Run a program to its end; see `farm.protocols.Transport.run`."""
        line = command_line.shell_line(command)
        deadline = Deadline(command.timeout_s)
        output = Output(command, self._device, on_stdout)
        patience = Patience(
            self._device, f"'{command.argv[0]}'", deadline=deadline, probe=self._probe
        )
        code = self._shell(line, bytes_source(command.stdin), output, patience)
        return output.completed(code)

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
        patience = self._copying(f"the push of {remote}", stall_s)
        with reading(local, offset) as source:
            if offset:
                self._append(source, remote, mode, meter, patience)
            else:
                self._send(source, remote, mode, meter, patience)
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
        patience = self._copying(f"the pull of {remote}", stall_s)
        with (
            self._sync() as sync,
            LocalSink(local, remote, max_bytes=max_bytes, device=self._device) as sink,
        ):
            found = require_regular(sync.stat(remote, self._answering()), remote, self._device)
            sink.check_size(found.size_bytes)
            sync.receive(remote, sink, meter, patience)
        meter.finish()

    def stat(self, remote: str) -> FileStat | None:
        """Look at a file; see `farm.protocols.Transport.stat`."""
        with self._sync() as sync:
            found = sync.stat(remote, self._answering())
        return None if found is None else found[0]

    def default_root(self) -> str:
        """`/data/local/tmp/farm`, or the inventory's `root`."""
        return self._root

    def close(self) -> None:
        """End every stream; a blocked call raises DeviceLost."""
        self._gate.close()
        self._watch.close()

    def _shell(self, line: bytes, source: Source, output: Output, patience: Patience) -> int:
        """Run a line that reports its process id; end that process when we stop waiting."""
        pids = command_line.PidFilter()
        try:
            with self._stream(b"shell,v2,raw:" + line, patience.deadline) as stream:
                session = ShellSession(stream, self._device)
                code = session.communicate(
                    source,
                    lambda piece: output.add_stdout(pids.feed(piece)),
                    output.add_stderr,
                    patience,
                )
        except BaseException as error:
            # A silent device wouldn't answer the request to end a program either.
            silent = isinstance(error, DeviceLost) and error.context.get("silent")
            if pids.pid is not None and not silent:
                self._end_remote(pids.pid)
            raise
        if pids.pid is None:
            raise command_line.never_started(self._device, code, pids.printed + output.stderr)
        return code

    def _send(
        self, source: BinaryIO, remote: str, mode: int, meter: Meter, patience: Patience
    ) -> None:
        """Write a file from its start, and leave nothing of it where the disk is full."""
        try:
            if os.fstat(source.fileno()).st_size < _GUARDED_BYTES:
                with self._sync() as sync:
                    self._check_parent(sync, remote)
                    sync.send(source, remote, meter, patience)
                self._write(command_line.mode_line(remote, mode), remote)
            else:
                self._send_guarded(source, remote, mode, meter, patience)
        except StorageFull:
            # adbd removes it after its stream was closed, and would remove the next push's too.
            removed = Deadline(ANSWER_S)
            while self.stat(remote) is not None and not removed.passed:
                time.sleep(_REMOVAL_POLL_S)
            raise

    def _send_guarded(
        self, source: BinaryIO, remote: str, mode: int, meter: Meter, patience: Patience
    ) -> None:
        """Send a file of which a break leaves what arrived; see `command_line.guard_line`."""
        if self.stat(remote) is not None:
            # Emptied before the guard starts: it takes a file that has bytes for the new one.
            self._write(command_line.write_line(remote, mode=mode, append=False), remote)
        line = b"shell,v2,raw:" + command_line.guard_line(remote, mode)
        output = Output(Command(("sh",)), self._device)
        with self._stream(line, Deadline(_CONNECT_S)) as stream:
            guard, pids = ShellSession(stream, self._device), command_line.PidFilter()

            def end(word: bytes) -> int:
                limit = self._answering()
                return guard.communicate(
                    bytes_source(word),
                    lambda piece: output.add_stdout(pids.feed(piece)),
                    output.add_stderr,
                    limit,
                )

            try:
                with self._sync() as sync:
                    self._check_parent(sync, remote)
                    sync.send(
                        source,
                        remote,
                        meter,
                        patience,
                        on_begun=lambda: guard.send_input(b"hold\n", self._answering()),
                    )
            except (TransferError, StorageFull):
                try:
                    end(b"drop\n")
                except TransportTimeout:
                    # A slow shell that came to `hold` late looks for a file that is gone again, and
                    # would take the next one for it.
                    if pids.pid is not None:
                        self._end_remote(pids.pid)
                raise
            code = end(b"done\n")
        require_written(output.completed(code), remote, self._device)

    def _append(
        self, source: BinaryIO, remote: str, mode: int, meter: Meter, patience: Patience
    ) -> None:
        """Write the rest of a file through a shell, because the file service can't append."""
        check_offset(self.stat(remote), meter.done, remote, self._device)

        def take() -> bytes:
            piece = source.read(STDIN_BYTES)
            meter.add(len(piece))
            return piece

        line = command_line.write_line(remote, mode=mode, append=True)
        self._write(line, remote, take, patience)

    def _write(
        self,
        line: bytes,
        remote: str,
        source: Source | None = None,
        patience: Patience | None = None,
    ) -> None:
        """Run a line that changes a file; without a source it gets no input."""
        output = Output(Command(("sh",)), self._device)
        code = self._shell(line, source or bytes_source(b""), output, patience or self._answering())
        require_written(output.completed(code), remote, self._device)

    def _check_parent(self, sync: SyncSession, remote: str) -> None:
        """Refuse a missing folder: adbd would make it, readable for all."""
        parent = posixpath.dirname(remote) or "."
        found = sync.stat(parent, self._answering())
        if found is None or not stat_bits.S_ISDIR(found[1]):
            raise TransferError(f"{remote}: there is no folder {parent}", device=self._device)

    @contextmanager
    def _sync(self) -> Iterator[SyncSession]:
        with self._stream(b"sync:", Deadline(_CONNECT_S)) as stream:
            yield SyncSession(stream, self._device)

    @contextmanager
    def _stream(
        self, service: bytes, deadline: Deadline | None, *, closing: bool = False
    ) -> Iterator[Stream]:
        """Open a service of the device; the stream is closed at the end.

        Raises:
            ConnectError: The device isn't usable; the message names state and remedy.
            DeviceLost: It doesn't answer, or `close` was called.
            TransportTimeout: The deadline passed.
        """
        try:
            with self._served(service, deadline, closing=closing) as stream:
                yield stream
        except (ConnectError, DeviceLost) as error:
            if self._gate.closed or not self._watch.ended():
                raise
            raise server_ended(self._device, self._server, error) from error

    @contextmanager
    def _served(
        self, service: bytes, deadline: Deadline | None, *, closing: bool
    ) -> Iterator[Stream]:
        left = _CONNECT_S if deadline is None else min(_CONNECT_S, deadline.remaining_s)
        limit = Deadline(left)
        try:
            stream = self._open(service, limit, closing=closing)
        except ServerRefused as refused:
            self._make_usable(str(refused), limit)
            try:
                stream = self._open(service, limit, closing=closing)
            except ServerRefused as again:
                error = unserved(self._server, self._serial, str(again))
                raise self._unreachable(error.message, **error.context) from again
        try:
            self._watch.begin()
            with nullcontext() if closing else self._gate.explaining():
                yield stream
        finally:
            self._gate.release(stream.interrupt, stream.close)

    def _open(self, service: bytes, limit: Deadline, *, closing: bool) -> Stream:
        stream = self._connect(limit)
        try:
            self._gate.admit(stream.interrupt, late=closing)
            patience = Patience(self._device, "connecting", deadline=limit)
            stream.request(b"host:transport:" + self._serial.encode(), patience)
            try:
                stream.request(service, patience)
            except TransportError as error:
                if TCP_SERIAL.match(self._serial) and limit.seconds >= _FORGET_S:
                    forget(self._server, self._serial)
                raise DeviceLost(
                    f"{self._device} is attached but doesn't answer: {error}", device=self._device
                ) from error
        except BaseException:
            self._gate.release(stream.interrupt, stream.close)
            raise
        return stream

    def _connect(self, limit: Deadline) -> Stream:
        try:
            return Stream.connect(self._server, self._device, max(0.1, limit.remaining_s))
        except OSError:
            _log.debug("no adb server at %s:%d", *self._server)
        try:
            ensure_server(self._server)
            return Stream.connect(self._server, self._device, max(0.1, limit.remaining_s))
        except ConnectError as error:
            raise self._unreachable(error.message) from error
        except OSError as error:
            raise self._unreachable(f"the adb server can't be reached: {error}") from error

    def _make_usable(self, refusal: str, limit: Deadline) -> None:
        """Connect a TCP device that is absent or offline; name the remedy otherwise."""
        try:
            self._serial = usable_serial(self._server, self._wanted, limit)
        except ConnectError as error:
            raise self._unreachable(error.message, **error.context) from error
        _log.debug("%s: refused (%s) but usable now", self._device, refusal)

    def _probe(self) -> None:
        """Ask the device anything; it answers from adbd itself, without starting a program."""
        try:
            with self._stream(b"sync:", Deadline(ANSWER_S)) as stream:
                SyncSession(stream, self._device).stat("/", self._answering())
        except TransportError as error:
            raise DeviceLost(
                f"{self._device} doesn't answer any more: {error}",
                device=self._device,
                silent=True,
            ) from error

    def _end_remote(self, pid: int) -> None:
        """End a program that we no longer wait for; a lost device keeps it."""
        limit = Deadline(KILL_CLOSING_S if self._gate.closed else _KILL_S)
        patience = Patience(self._device, "ending a program", deadline=limit)
        service = b"shell,v2,raw:" + command_line.kill_line(pid)
        try:
            with self._stream(service, limit, closing=True) as stream:
                session = ShellSession(stream, self._device)
                session.communicate(bytes_source(b""), ignore, ignore, patience)
        except TransportError as error:
            _log.warning("%s: process %d may still run there: %s", self._device, pid, error)

    def _copying(self, what: str, stall_s: float) -> Patience:
        return Patience(self._device, what, stall_s=stall_s, probe=self._probe)

    def _answering(self) -> Patience:
        return Patience(self._device, "a question", deadline=Deadline(ANSWER_S))

    def _unreachable(self, text: str, **context: str) -> ConnectError:
        return ConnectError(f"{self._device}: {text}", device=self._device, **context)
