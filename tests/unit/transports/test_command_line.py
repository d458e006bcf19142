from __future__ import annotations

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.core.command import Command
from farm.core.errors import ConfigError
from farm.transports.command_line import PidFilter, check_command, kill_line, shell_line

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


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_the_process_id_is_found_in_any_pieces_and_after_noise(step: int) -> None:
    text = b"welcome to the board\r\nfarm-pid:4711\nreal output\nfarm-pid:1\n"
    pid = PidFilter()
    rest = b"".join(pid.feed(text[at : at + step]) for at in range(0, len(text), step))
    assert pid.pid == 4711
    assert rest == b"real output\nfarm-pid:1\n"


def test_output_without_a_process_id_is_kept() -> None:
    pid = PidFilter()
    assert pid.feed(b"sh: syntax error") == b""
    assert pid.rest() == b"sh: syntax error"
    assert pid.pid is None
    assert pid.feed(b"more") == b"more"


def test_endless_noise_is_not_held_back_for_ever() -> None:
    pid = PidFilter()
    assert len(pid.feed(b"x" * 100_000)) == 100_000


def test_a_group_is_killed_first_and_a_lone_process_next() -> None:
    assert kill_line(7) == b"kill -9 -7 2>/dev/null || kill -9 7 2>/dev/null"
