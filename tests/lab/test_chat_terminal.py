"""`farm chat` on a terminal of 80x24, in tmux: what a person sees, and what Ctrl-C does."""

from __future__ import annotations

import json
import os
import shlex
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from farm.core.conversation import TextStream
from farm.core.printable import printable
from models.tokenizer import Tokenizer, byte_tokenizer
from tests.command import Farm
from tests.lab.host import find
from tests.lab.machine import Machine
from tests.lab.test_run_lab import jobs_on, runners_on, stop_runner, until
from tests.lab.up import write_inventory
from tests.pace import slack

pytestmark = [pytest.mark.lab, pytest.mark.export]

#: Round trip of the link.
LINK_S = 0.05
#: From a token's time stamp on the device until the terminal shows it.
SHOWN_MS = 300


class Screen:
    """A program in a terminal, and when it wrote what."""

    def __init__(self, folder: Path, words: list[str], environment: dict[str, str]) -> None:
        tmux = find("tmux")
        assert tmux is not None, "run tests/lab/install.sh: it installs tmux"
        self._tmux = (tmux, "-S", str(folder / "socket"), "-f", "/dev/null")
        self._environment = environment
        #: Time in nanoseconds of the monotonic clock, and what came then.
        self.written: list[tuple[int, bytes]] = []
        pipe = folder / "pipe"
        os.mkfifo(pipe)
        self._reader = threading.Thread(target=self._read, args=(pipe,), daemon=True)
        self._reader.start()
        # It waits for a key, so that nothing is written before the pipe is there.
        # Ctrl-C is for the program: the shell has to outlive it.
        self._code = folder / "code"
        command = f"trap : INT; read -r _; {shlex.join(words)}; echo $? > {self._code}"
        self("new-session", "-d", "-x", "80", "-y", "24", f"sh -c {shlex.quote(command)}")
        self("set-option", "-g", "remain-on-exit", "on")
        self("pipe-pane", "-o", f"exec cat > {shlex.quote(str(pipe))}")
        self.keys("Enter")

    def __call__(self, *words: str) -> str:
        done = subprocess.run(
            [*self._tmux, *words], capture_output=True, text=True, check=False, timeout=60,
            env=self._environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _read(self, pipe: Path) -> None:
        with pipe.open("rb", buffering=0) as stream:
            while piece := stream.read(1 << 16):
                self.written.append((time.monotonic_ns(), piece))

    def keys(self, *keys: str) -> None:
        self("send-keys", *keys)

    @property
    def shown(self) -> str:
        return self("capture-pane", "-p")

    @property
    def ended(self) -> int | None:
        """Exit code of the program, as a shell gives it; None while it runs.

        The shell around it writes it down: tmux loses the end of a child now and then (3.3a).
        """
        text = self._code.read_text() if self._code.exists() else ""
        return int(text) if text.endswith("\n") else None

    def close(self) -> None:
        self("kill-server")
        self._reader.join(10)


@pytest.fixture
def chat(farm: Farm, tmp_path: Path) -> Iterator[Callable[[Machine], Screen]]:
    """Begins a conversation with the tiny model on a device."""
    opened: list[Screen] = []

    def begin(machine: Machine) -> Screen:
        write_inventory(farm.cwd / "lab.yaml", [machine], local=False)
        folder = tmp_path / f"screen{len(opened)}"
        folder.mkdir()
        words = [
            sys.executable, "-m", "farm", "chat", "tiny-llama", "--recipe", "xnnpack-8da4w",
            "--on", machine.name, "-i", str(farm.cwd / "lab.yaml"), "--max-new-tokens", "32",
        ]  # fmt: skip
        screen = Screen(folder, words, farm.environment)
        opened.append(screen)
        until(lambda: "an empty line ends" in screen.shown, 120 * slack())
        return screen

    yield begin
    for screen in opened:
        screen.close()


def shown_after_ms(screen: Screen, machine: Machine) -> float:
    """Ask something; return how long after its stamp on the device the first text was shown."""
    before = len(screen.written)
    asked = time.monotonic_ns()
    screen.keys("Hello", "Enter")
    until(lambda: b"TTFT" in b"".join(p for _, p in screen.written[before:]), 60 * slack())
    # The terminal echoes what was typed; what comes after that line is the reply.
    text, shown_at = b"", 0
    for at, piece in screen.written[before:]:
        text, shown_at = text + piece, at
        if text.partition(b"Hello\r\n")[2]:
            break
    (work,) = machine.work_folders()
    lines = [json.loads(x) for x in (Path(work) / "stdout").read_bytes().splitlines()]
    tokens = [line for line in lines if line["type"] == "token"]
    # Devices of the lab have this machine's clock.
    assert tokens[0]["t_ns"] > asked, "of an earlier reply"
    # A character of several tokens appears once it is whole, and not every one can be shown.
    stream = TextStream(Tokenizer(byte_tokenizer(512)).decode)
    stamp = next(token["t_ns"] for token in tokens if printable(stream.add(token["id"])))
    return float((shown_at - stamp) / 1e6)


def test_a_token_is_seen_soon_after_it_was_chosen(
    chat: Callable[[Machine], Screen], adb_device: Callable[..., Machine]
) -> None:
    phone = adb_device()
    screen = chat(phone)
    shown_after_ms(screen, phone)
    phone.network.delay(LINK_S / 2)
    late_ms = [shown_after_ms(screen, phone) for _ in range(3)]
    print("first token shown after ms:", [round(ms) for ms in late_ms])
    assert min(late_ms) > LINK_S / 2 * 1e3, "the link is as slow as it should be"
    assert statistics.median(late_ms) < SHOWN_MS * slack(), late_ms
    lines = screen.shown.splitlines()
    assert len(lines) <= 24
    assert all(len(line) <= 80 for line in lines)
    phone.network.undelay()
    screen.keys("Enter")
    until(lambda: screen.ended is not None, 60 * slack())
    assert screen.ended == 0
    assert jobs_on(phone) == []


def caught(screen: Screen, phone: Machine) -> None:
    """Stop a reply in its middle: the tiny model's are over at once, so that it takes many."""
    screen.keys(*(["Hello", "Enter"] * 400))
    until(lambda: stop_runner(phone), 120 * slack())


def test_ctrl_c_ends_a_reply_on_the_device_and_a_lost_device_is_named(
    chat: Callable[[Machine], Screen], adb_device: Callable[..., Machine]
) -> None:
    phone = adb_device()
    screen = chat(phone)
    caught(screen, phone)
    screen.keys("C-c")
    sent = time.monotonic()
    until(lambda: not runners_on(phone), 30)
    took_s = time.monotonic() - sent
    print(f"ended on the device after {took_s:.2f} s")
    assert took_s < 2 * slack()
    until(lambda: screen.ended is not None, 30 * slack())
    assert screen.ended == 130
    assert jobs_on(phone) == []
    screen = chat(phone)
    caught(screen, phone)
    phone.kill()
    until(lambda: screen.ended is not None, 90 * slack())
    assert screen.ended == 3
    last = " ".join(screen.shown.split())
    assert phone.name in last[-400:], last
    assert "Traceback" not in last
