"""What every transport must do alike. Programs used on the device: sh, cat and chmod."""

from __future__ import annotations

import os
import pickle
import threading
import time
from pathlib import Path

import pytest

from farm.core.command import Command
from farm.core.errors import (
    BadOutput,
    ConfigError,
    DeviceLost,
    FarmError,
    TransportTimeout,
)
from tests.contract.devices import ContractDevice, gone, marker, running, shell
from tests.pace import slack

MIB = 1 << 20
NASTY_WORDS = (
    "",
    " ",
    "two words",
    "it's",
    'a "quoted" word',
    "$HOME `id` $(id) ${x} \\ \\n \\0",
    "new\nline\ttab\r",
    "; rm -rf nothing & | > < * ? [a] {b,c} ! # ~ % ^ =",
    "-n",
    "-e \\x41",
    "ünïcödé 漢字 🙂",
    "".join(chr(value) for value in range(1, 128)),
    os.fsdecode(bytes(range(128, 256))),
)
ECHO = "for word; do cat <<END\n$word|\nEND\ndone"
SPIN = "while :; do :; done & while :; do :; done"


def test_every_argument_arrives_unchanged(device: ContractDevice) -> None:
    done = device.transport().run(shell(ECHO, *NASTY_WORDS))
    assert done.stdout == b"".join(os.fsencode(word) + b"|\n" for word in NASTY_WORDS)
    assert done.stderr == b""
    assert done.exit_code == 0


def test_environment_arrives_unchanged(device: ContractDevice) -> None:
    env = tuple((f"FARM_{index}", word) for index, word in enumerate(NASTY_WORDS))
    script = "cat <<END\n" + "".join(f"$FARM_{index}|\n" for index in range(len(env))) + "END"
    done = device.transport().run(shell(script, env=env))
    assert done.stdout == b"".join(os.fsencode(word) + b"|\n" for word in NASTY_WORDS)


def test_a_command_that_no_program_can_receive_is_refused(device: ContractDevice) -> None:
    with pytest.raises(ConfigError, match="NUL"):
        device.transport().run(Command(("cat", "a\0b")))


def test_five_megabytes_of_input_come_back(device: ContractDevice) -> None:
    data = os.urandom(5 * MIB)
    done = device.transport().run(Command(("cat",), stdin=data, max_output_bytes=6 * MIB))
    assert done.stdout == data
    assert done.exit_code == 0


def test_input_that_nobody_reads_is_no_error(device: ContractDevice) -> None:
    done = device.transport().run(shell("exit 5", stdin=os.urandom(3 * MIB)))
    assert done.exit_code == 5


@pytest.mark.parametrize("code", [0, 1, 7, 126, 127, 200, 255])
def test_exit_codes_are_data(device: ContractDevice, code: int) -> None:
    assert device.transport().run(shell(f"exit {code}")).exit_code == code


def test_a_missing_program_is_exit_code_127(device: ContractDevice) -> None:
    done = device.transport().run(Command(("farm-no-such-program", "x")))
    assert done.exit_code == 127
    assert "farm-no-such-program" in done.error_text


def test_a_file_that_is_no_program_is_exit_code_126(device: ContractDevice) -> None:
    device.host("data").write_bytes(b"\x7fELF nonsense")
    device.host("data").chmod(0o600)
    assert device.transport().run(Command((device.remote("data"),))).exit_code == 126


def test_an_end_by_a_signal_is_128_and_its_number(device: ContractDevice) -> None:
    assert device.transport().run(shell("kill -9 $$")).exit_code == 137


def test_outputs_stay_apart_and_complete(device: ContractDevice) -> None:
    first, second = os.urandom(2 * MIB), os.urandom(1 * MIB)
    device.host("first").write_bytes(first)
    device.host("second").write_bytes(second)
    script = 'cat "$1"; cat "$2" >&2; cat "$2"; exit 3'
    done = device.transport().run(shell(script, device.remote("first"), device.remote("second")))
    assert done.stdout == first + second
    assert done.stderr == second
    assert done.exit_code == 3
    assert done.duration_s > 0


def test_output_up_to_the_bound_arrives(device: ContractDevice) -> None:
    data = os.urandom(8 * MIB)
    device.host("data").write_bytes(data)
    transport = device.transport()
    done = transport.run(Command(("cat", device.remote("data")), max_output_bytes=8 * MIB))
    assert done.stdout == data
    with pytest.raises(BadOutput, match="more than 8388607 bytes"):
        transport.run(Command(("cat", device.remote("data")), max_output_bytes=8 * MIB - 1))


def test_endless_output_is_ended_here_and_there(device: ContractDevice) -> None:
    word = marker()
    command = shell("while :; do cat /dev/zero; done", word, max_output_bytes=MIB)
    with pytest.raises(BadOutput, match="standard output") as caught:
        device.transport().run(command)
    assert gone(word)
    assert caught.value.context["device"] == device.entry.name
    assert len(caught.value.context["raw"]) <= 4096


def test_endless_error_output_is_bounded_too(device: ContractDevice) -> None:
    command = shell("while :; do cat /dev/zero >&2; done", max_output_bytes=MIB)
    with pytest.raises(BadOutput, match="standard error"):
        device.transport().run(command)


def test_output_streams_before_the_end(device: ContractDevice) -> None:
    pieces: list[bytes] = []

    def on_stdout(piece: bytes) -> None:
        pieces.append(piece)
        if b"".join(pieces) == b"first\n":
            device.host("go").touch()

    script = 'echo first; while ! [ -e "$1" ]; do :; done; echo second'
    done = device.transport().run(shell(script, device.remote("go")), on_stdout)
    assert b"".join(pieces) == done.stdout == b"first\nsecond\n"


def test_an_error_of_the_listener_ends_the_program(device: ContractDevice) -> None:
    word = marker()

    def on_stdout(_: bytes) -> None:
        raise BadOutput("enough")

    with pytest.raises(BadOutput, match="enough"):
        device.transport().run(shell(f"echo x; {SPIN}", word), on_stdout)
    assert gone(word)


def test_a_timeout_ends_the_program_and_its_children(device: ContractDevice) -> None:
    word = marker()
    transport = device.transport()
    transport.stat(device.folder)
    started = time.monotonic()
    with pytest.raises(TransportTimeout, match=r"within 0\.7 s"):
        transport.run(shell(SPIN, word, timeout_s=0.7))
    assert time.monotonic() - started < 3 * slack()
    assert gone(word)
    assert transport.run(shell("echo still here")).stdout == b"still here\n"


def test_a_timeout_also_ends_waiting_for_input(device: ContractDevice) -> None:
    word = marker()
    with pytest.raises(TransportTimeout):
        device.transport().run(shell(SPIN, word, stdin=b"x" * (9 * MIB), timeout_s=0.7))
    assert gone(word)


def test_close_from_another_thread_unblocks_and_ends_the_program(device: ContractDevice) -> None:
    word = marker()
    transport = device.transport()
    errors: list[BaseException] = []

    def call() -> None:
        try:
            transport.run(shell(SPIN, word, timeout_s=60))
        except FarmError as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    while not running(word):
        time.sleep(0.01)
    time.sleep(0.1)
    started = time.monotonic()
    transport.close()
    thread.join(timeout=5)
    assert time.monotonic() - started < slack()
    assert isinstance(errors[0], DeviceLost)
    assert gone(word)


def test_a_closed_transport_refuses_every_call(device: ContractDevice, tmp_path: Path) -> None:
    transport = device.transport()
    assert transport.run(shell("exit 0")).ok
    transport.close()
    transport.close()
    with pytest.raises(DeviceLost):
        transport.run(shell("exit 0"))
    with pytest.raises(DeviceLost):
        transport.stat(device.folder)
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(DeviceLost):
        transport.push(tmp_path / "file", device.remote("file"))
    device.host("file").write_bytes(b"x")
    with pytest.raises(DeviceLost):
        transport.pull(device.remote("file"), tmp_path / "back", max_bytes=10)


def test_two_transports_work_at_the_same_time(device: ContractDevice, tmp_path: Path) -> None:
    data = [os.urandom(3 * MIB), os.urandom(3 * MIB)]
    errors: list[BaseException] = []

    def work(index: int) -> None:
        try:
            source = tmp_path / f"file{index}"
            source.write_bytes(data[index])
            transport = device.transport()
            for round_ in range(3):
                transport.push(source, device.remote(f"file{index}"))
                done = transport.run(
                    Command(("cat", device.remote(f"file{index}")), stdin=b"x" * round_)
                )
                assert done.stdout == data[index]
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert errors == []


def test_errors_cross_processes(device: ContractDevice) -> None:
    with pytest.raises(TransportTimeout) as caught:
        device.transport().run(shell(SPIN, timeout_s=0.3))
    copy = pickle.loads(pickle.dumps(caught.value))
    assert type(copy) is TransportTimeout
    assert str(copy) == str(caught.value)
    assert copy.device == device.entry.name
