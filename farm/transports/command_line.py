"""A Command as one line for a device's shell, and the process id that it reports.

The line needs nothing but a POSIX `sh`: it prints the id of its own process, then becomes the
program. The id is what ends the program when the connection can't, and the proof that it began.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex

from farm.core.command import Command
from farm.core.errors import ConfigError, ConnectError
from farm.core.printable import one_line

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
#: Stands before the process id. Nothing else prints it, so whatever a login script prints, with or
#: without an end of line, comes before it and isn't ours.
_MARK = f"farm-pid:{secrets.token_hex(8)}:".encode()
_REPORT = re.compile(_MARK + rb"(\d{1,10})\r?\n")
#: Longest report; what is looked through lies in this many bytes.
_REPORT_BYTES = len(_MARK) + 12
#: Bytes of what came before the report that are kept to be shown.
_PRINTED_BYTES = 2048
#: Bytes that mean the same between single quotes in every shell: sh, csh and fish.
_PLAIN = re.compile(rb"[ -~]*")


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


def login_line(line: bytes) -> bytes:
    """Line for whatever shell a user has at login: it becomes `/bin/sh` with our line.

    fish knows no `$$`, csh reads `!` and ends of lines between quotes: both see none.
    """
    if _PLAIN.fullmatch(line) and not {*b"\\!"} & {*line}:
        return b"exec /bin/sh -c '" + line.replace(b"'", b"'\\''") + b"'"
    odd = {*b"\\!'\"$`"}
    coded = b"".join(
        b"\\0%03o" % byte if byte in odd or not 32 <= byte < 127 else bytes((byte,))
        for byte in line
    )
    return b'exec /bin/sh -c \'eval "$(printf %b "' + coded + b'")"\''


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


#: Ends a process with all that it started, by the parents that /proc names: no `pkill` is needed.
_KILL_FAMILY = """\
all=" {pid} "; more=1
while [ $more = 1 ]; do more=0
for f in /proc/[0-9]*/stat; do
read -r s <"$f" || continue
p=${{s%% *}}; set -- ${{s##*) }}
case $all in *" $p "*) continue;; esac
case $all in *" $2 "*) all="$all$p "; more=1;; esac
done; done 2>/dev/null
kill -9 $all 2>/dev/null"""


def kill_line(pid: int) -> bytes:
    """Line for `sh -c` that ends a program by its group, or with its children where it leads none.

    sshd makes each command the leader of a group, dropbear doesn't.
    """
    return f"kill -9 -{pid} 2>/dev/null || {{ {_KILL_FAMILY.format(pid=pid)}; }}".encode()


class PidFilter:
    """Takes the reported process id, and all that comes before it, out of standard output."""

    def __init__(self) -> None:
        self._tail: bytearray | None = bytearray()
        self._printed = bytearray()
        #: Process id on the device; None until it was reported.
        self.pid: int | None = None

    @property
    def printed(self) -> bytes:
        """The beginning of what was printed before the report, or without one."""
        return bytes(self._printed + (self._tail or b""))[:_PRINTED_BYTES]

    def feed(self, piece: bytes) -> bytes:
        """Return what the program itself printed of this piece."""
        if self._tail is None:
            return piece
        self._tail += piece
        found = _REPORT.search(self._tail)
        # A report may still be on its way at the very end.
        end = max(0, len(self._tail) - _REPORT_BYTES) if found is None else found.start()
        self._printed += self._tail[: min(end, _PRINTED_BYTES - len(self._printed))]
        if found is None:
            del self._tail[:end]
            return b""
        self.pid = int(found[1])
        rest = bytes(self._tail[found.end() :])
        self._tail = None
        return rest


def never_started(device: str, exit_code: int, printed: bytes) -> ConnectError:
    """Error about a device whose shell ended without the report: it ran nothing of ours.

    Args:
        device: Name of the device.
        exit_code: Of its shell; 0 is no success either.
        printed: What it printed instead.
    """
    text = one_line(printed.decode("utf-8", "replace"), 300)
    remedy = "give this user a shell that runs commands (chsh -s /bin/sh), without ForceCommand"
    return ConnectError(
        f"{device}: its login shell ran no command of ours (exit code {exit_code}): "
        + (f"it printed '{text}'" if text else "it printed nothing")
        + f". {remedy}",
        device=device,
        state="no shell",
        remedy=remedy,
    )
