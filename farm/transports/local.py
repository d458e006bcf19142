"""This machine as a device: subprocesses in a session of their own, files copied in place."""

from __future__ import annotations

import errno
import os
import selectors
import signal
import stat as stat_bits
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, BinaryIO, cast

from farm.clock import Deadline
from farm.core.command import Command, Completed, FileStat
from farm.core.device import DeviceEntry
from farm.core.errors import StorageFull, TransferError, TransportTimeout
from farm.paths import device_root, farm_home, unwritable
from farm.protocols import ByteProgress
from farm.transports.command_line import check_command
from farm.transports.files import LocalSink, check_offset, reading
from farm.transports.gate import Gate
from farm.transports.output import Meter, Output

_PIECE_BYTES = 1 << 16
#: How long a program may be open for writing somewhere before that is an error, seconds.
_BUSY_S = 5.0
#: What a look at a file may take, seconds.
_STAT_S = 10.0
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
#: Beginnings of variables that choose a program's libraries, allocator and threads. What is
#: measured here may not depend on who started farm; a runner gets them by its `env`.
_OURS = ("LD_PRELOAD", "LD_AUDIT", "GLIBC_TUNABLES", "MALLOC_", "OMP_", "GOMP_", "KMP_")
#: What a shell answers where the program doesn't exist, and where it can't be started.
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126


def open_local(entry: DeviceEntry) -> LocalTransport:
    """Make the transport of this machine."""
    root = Path(entry.root).expanduser() if entry.root else device_root(farm_home())
    return LocalTransport(entry.name, root)


class LocalTransport:
    """Runs programs of this machine. Killing reaches a program's whole process group.

    Args:
        device: Name of the device, for errors.
        root: farm's folder on this device.
    """

    name = "local"
    #: Size of one step of a copy.
    _copy_bytes = 1 << 20

    def __init__(self, device: str, root: Path) -> None:
        self._device = device
        self._root = root
        self._gate = Gate(device)

    def run(self, command: Command, on_stdout: Callable[[bytes], None] | None = None) -> Completed:
        """Run a program to its end; see `farm.protocols.Transport.run`."""
        check_command(command)
        self._arrive(command.timeout_s)
        deadline = Deadline(command.timeout_s)
        output = Output(command, self._device, on_stdout)
        wake_read, wake_write = os.pipe()

        def wake() -> None:
            os.write(wake_write, b"x")

        try:
            self._gate.admit(wake)
            try:
                process = _start(command)
            except OSError as error:
                said = f"cannot start {command.argv[0]}: {error.strerror}\n"
                output.add_stderr(said.encode(errors="replace"))
                missing = isinstance(error, FileNotFoundError)
                return output.completed(_NOT_FOUND if missing else _NOT_EXECUTABLE)
            return self._watch(process, command, output, deadline, wake_read)
        finally:
            self._gate.release(wake, lambda: os.close(wake_write))
            os.close(wake_read)

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
        """Copy a file to its place; see `farm.protocols.Transport.push`."""
        self._arrive(stall_s)
        meter = Meter(progress, offset)
        flags = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if offset else os.O_TRUNC)
        with reading(local, offset) as source:
            try:
                target = os.open(remote, flags | os.O_CLOEXEC, 0o600)
                try:
                    if offset:
                        check_offset(_values(os.fstat(target)), offset, remote, self._device)
                    while piece := source.read(self._copy_bytes):
                        self._moving(len(piece))
                        _write_all(target, piece)
                        meter.add(len(piece))
                    os.fchmod(target, mode)
                finally:
                    os.close(target)
            except OSError as error:
                raise self._refused(error, remote) from error
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
        """Copy a file from its place; see `farm.protocols.Transport.pull`."""
        self._arrive(stall_s)
        meter = Meter(progress)
        with (
            self._source(remote) as source,
            LocalSink(local, remote, max_bytes=max_bytes, device=self._device) as sink,
        ):
            try:
                sink.check_size(os.fstat(source.fileno()).st_size)
                while piece := source.read(self._copy_bytes):
                    self._moving(len(piece))
                    sink.write(piece)
                    meter.add(len(piece))
            except OSError as error:
                raise self._refused(error, remote) from error
        meter.finish()

    def stat(self, remote: str) -> FileStat | None:
        """Look at a file; see `farm.protocols.Transport.stat`."""
        self._arrive(_STAT_S)
        try:
            found = os.stat(remote)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._refused(error, remote) from error
        return _values(found)

    def default_root(self) -> str:
        """Folder of farm: `device` under FARM_HOME, or the inventory's `root`."""
        return str(self._root.absolute())

    def close(self) -> None:
        """Kill what runs and refuse further calls."""
        self._gate.close()

    def _watch(
        self,
        process: subprocess.Popen[bytes],
        command: Command,
        output: Output,
        deadline: Deadline,
        wake: int,
    ) -> Completed:
        """Move bytes until both outputs end and the program is gone; kill it otherwise."""
        try:
            with process:
                try:
                    self._pump(process, command, output, deadline, wake)
                    code = process.wait(timeout=deadline.remaining_s)
                except BaseException:
                    _kill_group(process)
                    raise
        except subprocess.TimeoutExpired as error:
            raise self._timed_out(command) from error
        return output.completed(code if code >= 0 else 128 - code)

    def _pump(
        self,
        process: subprocess.Popen[bytes],
        command: Command,
        output: Output,
        deadline: Deadline,
        wake: int,
    ) -> None:
        stdin, stdout, stderr = _pipes(process)
        rest = memoryview(command.stdin)
        with selectors.DefaultSelector() as selector:
            selector.register(wake, selectors.EVENT_READ)
            selector.register(stdout, selectors.EVENT_READ, output.add_stdout)
            selector.register(stderr, selectors.EVENT_READ, output.add_stderr)
            if rest:
                os.set_blocking(stdin.fileno(), False)
                selector.register(stdin, selectors.EVENT_WRITE)
            else:
                stdin.close()
            # The wake pipe stays registered to the end.
            while len(selector.get_map()) > 1:
                events = selector.select(deadline.remaining_s)
                if deadline.passed:
                    raise self._timed_out(command)
                for key, _ in events:
                    if key.fd == wake:
                        raise self._gate.lost()
                    if key.fileobj is stdin:
                        rest = _feed(stdin, rest)
                        if not rest:
                            selector.unregister(stdin)
                            stdin.close()
                    elif piece := os.read(key.fd, _PIECE_BYTES):
                        key.data(piece)
                    else:
                        selector.unregister(key.fileobj)

    def _source(self, remote: str) -> BinaryIO:
        """Open a regular file; a pipe or a device would have no end."""
        try:
            source = os.open(remote, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise self._refused(error, remote) from error
        if not stat_bits.S_ISREG(os.fstat(source).st_mode):
            os.close(source)
            raise TransferError(f"{remote} isn't a regular file", device=self._device)
        return os.fdopen(source, "rb")

    def _arrive(self, limit_s: float) -> None:
        """Called when a call begins that may take `limit_s` without an answer.

        Raises:
            DeviceLost: `close` was called.
        """
        # A local disk has no stall that this process could interrupt.
        del limit_s
        self._gate.check()

    def _moving(self, count: int) -> None:
        """Called before so many bytes of a file are copied.

        Raises:
            DeviceLost: `close` was called.
        """
        del count
        self._gate.check()

    def _refused(self, error: OSError, remote: str) -> StorageFull | TransferError:
        if error.errno in _NO_SPACE:
            return StorageFull(f"no space left for {remote}", device=self._device)
        denied = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
        why = unwritable(Path(remote)) if denied else ""
        return TransferError(
            f"{remote}: {error.strerror or error}{why and f'; {why}'}", device=self._device
        )

    def _timed_out(self, command: Command) -> TransportTimeout:
        return TransportTimeout(
            f"'{command.argv[0]}' didn't end within {command.timeout_s:g} s on {self._device}",
            device=self._device,
        )


def _values(found: os.stat_result) -> FileStat:
    return FileStat(found.st_size, stat_bits.S_IMODE(found.st_mode), int(found.st_mtime))


def _start(command: Command) -> subprocess.Popen[bytes]:
    """Start a program; one that was written a moment ago may still count as being written.

    Another thread's child has our open files for an instant, until it becomes its own program.
    """
    deadline = Deadline(_BUSY_S)
    while True:
        try:
            return _popen(command)
        except OSError as error:
            if error.errno != errno.ETXTBSY or deadline.passed:
                raise
            time.sleep(0.01)


def _popen(command: Command) -> subprocess.Popen[bytes]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return subprocess.Popen(
        command.argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        env={**kept, **dict(command.env)},
        start_new_session=True,
    )


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes], IO[bytes]]:
    pipes = (process.stdin, process.stdout, process.stderr)
    return cast("tuple[IO[bytes], IO[bytes], IO[bytes]]", pipes)


def _feed(stdin: IO[bytes], rest: memoryview) -> memoryview:
    """Write what fits; nothing is left to write once the program closed its end."""
    try:
        return rest[os.write(stdin.fileno(), rest[:_PIECE_BYTES]) :]
    except BlockingIOError:
        return rest
    except BrokenPipeError:
        return rest[len(rest) :]


def _write_all(target: int, piece: bytes) -> None:
    rest = memoryview(piece)
    while rest:
        rest = rest[os.write(target, rest) :]
