from __future__ import annotations

import select
import shutil
import signal
import subprocess

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from farm.core.command import Command
from farm.core.errors import ConfigError
from farm.transports.command_line import (
    PidFilter,
    check_command,
    kill_line,
    login_line,
    never_started,
    shell_line,
)

#: Everything a program can be given: all of Unicode but NUL, and bytes that aren't UTF-8.
WORDS = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"])
    | st.sampled_from([chr(0xDC80 + value) for value in range(0x80)])
)


@settings(max_examples=5, deadline=None)
@given(words=st.lists(WORDS, max_size=60))
def test_every_word_passes_a_shell_unchanged(words: list[str]) -> None:
    program = "import os,sys; sys.stdout.buffer.write(b'\\0'.join(map(os.fsencode,sys.argv[1:])))"
    line = shell_line(Command(("python3", "-c", program, *words)))
    done = subprocess.run([b"sh", b"-c", line], capture_output=True, check=True)
    pid = PidFilter()
    assert pid.feed(done.stdout) == "\0".join(words).encode("utf-8", "surrogateescape")
    assert pid.pid is not None


def test_variables_reach_the_program() -> None:
    line = shell_line(Command(("sh", "-c", 'echo "$A|$B"'), env=(("A", "1 '2"), ("B", "$HOME"))))
    done = subprocess.run([b"sh", b"-c", line], capture_output=True, check=True)
    assert PidFilter().feed(done.stdout) == b"1 '2|$HOME\n"


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (Command(()), "at least the name"),
        (Command(("a", "b\0c")), "NUL byte"),
        (Command(("a",), env=(("K", "\0"),)), "NUL byte"),
        (Command(("a",), env=(("K; rm", "x"),)), "can't be the name"),
        (Command(("a",), env=(("", "x"),)), "can't be the name"),
        (Command(("a",), env=(("A\n", "x"),)), "can't be the name"),
    ],
)
def test_what_no_program_can_receive_is_refused(command: Command, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        check_command(command)


def report(pid: int) -> bytes:
    """What a line of ours prints first."""
    line = shell_line(Command(("true",)))
    return line.partition(b"echo ")[2].partition(b"$$")[0] + b"%d\n" % pid


@pytest.mark.parametrize("step", [1, 3, 1000, 1 << 20])
@pytest.mark.parametrize(
    "noise",
    [
        b"", b"welcome to the board\r\n", b"\x1b]0;board\x07", b"farm-pid:99\n", b"farm-pid:",
        b"no end of line", b"a banner of the company\n" * 8000,
    ],
)  # fmt: skip
def test_the_process_id_is_found_in_any_pieces_and_after_any_noise(step: int, noise: bytes) -> None:
    if step == 1 and len(noise) > 1000:
        noise = noise[:5000]
    text = noise + report(4711) + b"real output\n" + report(1)
    pid = PidFilter()
    rest = b"".join(pid.feed(text[at : at + step]) for at in range(0, len(text), step))
    assert pid.pid == 4711
    assert rest == b"real output\n" + report(1)
    assert pid.printed == noise[:2048]


def test_output_without_a_process_id_is_kept_to_be_shown() -> None:
    pid = PidFilter()
    assert pid.feed(b"sh: syntax error") == b""
    assert pid.printed == b"sh: syntax error"
    assert pid.pid is None


def test_endless_noise_fills_no_memory() -> None:
    pid = PidFilter()
    for _ in range(100):
        assert pid.feed(b"x" * 100_000) == b""
    assert len(pid.printed) == 2048
    assert len(pid._tail or b"") < 100


@pytest.mark.parametrize("code", [0, 1])
def test_a_shell_that_ran_nothing_is_a_failure_that_quotes_it(code: int) -> None:
    printed = b"\x1b[1mThis account is currently not available.\x1b[0m\n"
    error = never_started("pi5", code, printed)
    assert "it printed 'This account is currently not available.'" in error.message
    assert f"exit code {code}" in error.message
    assert "chsh" in error.context["remedy"]
    assert "it printed nothing" in never_started("pi5", 0, b"").message


#: Shells that a user may have at login; sh is always there.
SHELLS = [
    shell
    for shell in ("sh", "bash", "dash", "fish", "tcsh", "zsh", "mksh", "busybox")
    if shutil.which(shell)
]


def started(shell: str, line: bytes) -> list[str | bytes]:
    """What sshd runs for a user with this shell."""
    return [shell, *(["sh"] if shell == "busybox" else []), "-c", line]


@pytest.mark.parametrize("shell", SHELLS)
@settings(max_examples=5, deadline=None)
@given(words=st.lists(WORDS, max_size=30))
@example(
    words=["!", "a!b", "\\", "\\\\", "it's", "\n", "$HOME", "`x`", '"', "%s%%", "\\047", "!!", ""]
)
@example(words=["plain", "it's", "$HOME", '"', "%d", "*", "~", ";", "&", "#"])
def test_every_word_passes_every_login_shell(shell: str, words: list[str]) -> None:
    program = "import os,sys; sys.stdout.buffer.write(b'\\0'.join(map(os.fsencode,sys.argv[1:])))"
    line = login_line(shell_line(Command(("python3", "-c", program, *words)), replace=False))
    done = subprocess.run(started(shell, line), capture_output=True, check=True)
    pid = PidFilter()
    assert pid.feed(done.stdout) == "\0".join(words).encode("utf-8", "surrogateescape")
    assert pid.pid is not None


@pytest.mark.parametrize("shell", SHELLS)
def test_the_exit_code_passes_every_login_shell(shell: str) -> None:
    line = login_line(shell_line(Command(("sh", "-c", "exit 7")), replace=False))
    assert subprocess.run(started(shell, line), capture_output=True, check=False).returncode == 7


@pytest.mark.parametrize("shell", ["sh", "bash", "busybox sh"])
@pytest.mark.parametrize("leads", [True, False])
def test_a_program_is_killed_with_its_group_or_else_with_its_children(
    shell: str, leads: bool
) -> None:
    """dropbear gives no command a group of its own."""
    words = shell.split()
    if shutil.which(words[0]) is None:
        pytest.skip(f"here is no {words[0]}")
    tree = "sh -c 'sleep 4244 & echo up; sleep 4244'; true"
    with subprocess.Popen(
        ["sh", "-c", tree], stdout=subprocess.PIPE, start_new_session=leads
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == b"up\n"
        subprocess.run([*words, "-c", kill_line(program.pid)], check=True, timeout=20)
        assert program.wait(timeout=20) == -signal.SIGKILL
        # Nobody holds the pipe any more: its end comes at once.
        assert select.select([program.stdout], [], [], 10.0)[0]
        assert program.stdout.read(1) == b""
