"""A Command as one line for a device's shell, and the process id that it reports.

The line needs nothing but a POSIX `sh`: it prints the id of its own process, then becomes the
program. The id is what ends the program when the connection can't.
"""

from __future__ import annotations

import os
import re
import shlex

from farm.core.command import Command
from farm.core.errors import ConfigError

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
#: Stands before the process id, alone on a line. What a login script prints comes before it.
_MARK = b"farm-pid:"
#: Longest noise of login scripts that is looked through for the mark.
_NOISE_BYTES = 1 << 16


def check_command(command: Command) -> None:
    """Refuse what no program can be given.

    Raises:
        ConfigError: No argv, a NUL byte, or an impossible variable name.
    """
    if not command.argv:
        raise ConfigError("a command needs at least the name of a program")
    words = (*command.argv, *(value for _, value in command.env))
    if any("\0" in word for word in words):
        raise ConfigError(f"'{command.argv[0]}': an argument or variable holds a NUL byte")
    for key, _ in command.env:
        if not _VARIABLE.match(key):
            raise ConfigError(f"'{key}' can't be the name of an environment variable")


def shell_line(command: Command, *, replace: bool = True) -> bytes:
    """Line for `sh -c` that reports its process id and runs the program.

    Args:
        command: What to run.
        replace: The shell becomes the program. Otherwise it waits and turns an end by a
            signal into an exit code, for connections that would lose the signal.

    Raises:
        ConfigError: The command can't be passed to any program.
    """
    check_command(command)
    parts = [f"export {key}={shlex.quote(value)};" for key, value in command.env]
    if replace:
        parts.append("exec")
    parts += [shlex.quote(word) for word in command.argv]
    return _reporting(" ".join(parts) + ("" if replace else "; exit $?"))


def write_line(remote: str, *, mode: int, append: bool) -> bytes:
    """Line that writes its input to a file and sets the mode."""
    name = file_word(remote)
    arrow = ">>" if append else ">"
    return _reporting(f"export LC_ALL=C; umask 077; cat {arrow} {name} && chmod {mode:o} {name}")


def read_line(remote: str) -> bytes:
    """Line that prints a file."""
    return _reporting(f"export LC_ALL=C; exec cat {file_word(remote)}")


def mode_line(remote: str, mode: int) -> bytes:
    """Line that sets a file's mode."""
    return _reporting(f"export LC_ALL=C; exec chmod {mode:o} {file_word(remote)}")


def guard_line(remote: str, mode: int) -> bytes:
    """Line that keeps what arrived of a file when the connection breaks.

    adbd removes a file whose transfer breaks. The shell behind this line holds the file open
    and, when its input ends without a word, writes what it holds back to its place. Words, one
    a line: `clear` empties an older file, `hold` waits for the new one's first bytes and opens
    it, `done` sets the mode, `drop` gives up.
    """
    name, saved = file_word(remote), file_word(f"{remote}.saved")
    wait = "n=0; while {0} && [ $n -lt 200000 ]; do n=$((n+1)); done"
    return _reporting(
        # adbd sends a hang-up when the connection ends.
        "trap '' HUP; export LC_ALL=C; umask 077; held=; while read -r word; do case $word in "
        f"hold) {wait.format(f'! [ -s {name} ]')}; [ -s {name} ] && exec 3< {name} && held=1;; "
        f"done) chmod {mode:o} {name}; exit $?;; "
        "drop) exit 0;; esac; done; "
        f'[ -n "$held" ] || exit 0; {wait.format(f"[ -e {name} ]")}; [ -e {name} ] && exit 0; '
        # A reader must not meet a file that still grows; without `mv` it may.
        f"if command -v mv > /dev/null; then cat <&3 > {saved} && ! [ -e {name} ] && "
        f"mv {saved} {name} || rm -f {saved}; else cat <&3 > {name}; fi"
    )


def stat_line(remote: str, absent: int) -> bytes:
    """Line that prints size, mode in hexadecimal and mtime, or exits with code `absent`."""
    name = file_word(remote)
    return _reporting(
        f"export LC_ALL=C; [ -e {name} ] || exit {absent}; stat -L -c '%s %f %Y' {name}"
    )


def _reporting(line: str) -> bytes:
    return os.fsencode(f"echo {_MARK.decode()}$$; {line}")


def file_path(remote: str) -> str:
    """A path that no program takes for an option.

    Raises:
        ConfigError: It is empty or holds a NUL byte.
    """
    if not remote or "\0" in remote:
        raise ConfigError(f"{remote!r} can't be the path of a file")
    return f"./{remote}" if remote.startswith("-") else remote


def file_word(remote: str) -> str:
    """A path as one word of a shell line that no program takes for an option.

    Raises:
        ConfigError: As `file_path`.
    """
    return shlex.quote(file_path(remote))


def kill_line(pid: int) -> bytes:
    """Line for `sh -c` that ends a program by its group, or alone where it leads none."""
    return f"kill -9 -{pid} 2>/dev/null || kill -9 {pid} 2>/dev/null".encode()


class PidFilter:
    """Takes the reported process id out of standard output."""

    def __init__(self) -> None:
        self._buffer: bytearray | None = bytearray()
        #: Process id on the device; None until it was reported.
        self.pid: int | None = None

    def feed(self, piece: bytes) -> bytes:
        """Return what the program itself printed of this piece."""
        if self._buffer is None:
            return piece
        self._buffer += piece
        found = re.search(rb"(?:\A|\n)" + _MARK + rb"(\d+)\r?\n", self._buffer)
        if found is None:
            if len(self._buffer) > _NOISE_BYTES:
                return self.rest()
            return b""
        self.pid = int(found[1])
        rest = bytes(self._buffer[found.end() :])
        self._buffer = None
        return rest

    def rest(self) -> bytes:
        """Give up looking: what was held back, for example a shell's own complaint."""
        held = bytes(self._buffer or b"")
        self._buffer = None
        return held
