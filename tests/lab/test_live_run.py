"""A real run over eight lab devices, watched in a terminal from its first second to its end."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.command import CONFIGS, Farm
from tests.lab.machine import Machine
from tests.lab.test_chat_terminal import Screen
from tests.lab.up import write_inventory
from tests.pace import slack

pytestmark = [pytest.mark.lab, pytest.mark.export]

#: Seconds until something is said, and until a run of short cells has to be over.
FIRST_S = 0.5
END_S = 150
#: The terminal grows only: what stood there before is never narrower than it was drawn.
SIZES = [(80, 24)] * 8 + [(120, 40)] * 8 + [(200, 60)] * 1000
SHORT = (
    "{prefill: [128], decode: [64], launches: 6, max_launches: 6, repetitions: 2, budget_s: 20,"
    " cold_launches: 0}"
)
#: Wide screens leave blanks around the interval.
RATE = re.compile(r"(?:pp128|tg64) \d[\d.]*(?: ?±>?[\d.]+ ?%)? +(?:tg64 \d|tok/s)")


def faults(shown: str, names: list[str]) -> list[str]:
    """What a screen of the live view lacks: a device, its state, or the whole of a rate.

    A device has a row from its cell's first event on. Until then the head line counts the cell.
    """
    lines = {line.split()[0]: line for line in shown.splitlines() if line.strip()}
    counted = re.search(r"(\d+) waiting", shown.lstrip().partition("\n")[0])
    missing = [name for name in names if name not in lines]
    found = []
    if len(missing) > (int(counted[1]) if counted else 0):
        found.append(f"neither a row nor counted: {', '.join(missing)}")
    for name in lines.keys() & set(names):
        line = lines[name]
        if len(line.split()) < 2:
            found.append(f"{name} has no state")
        for metric in ("pp128", "tg64"):
            # A phase of the measurement has the same name: a rate is what has a number.
            number = re.search(rf"{metric} \d", line)
            if number and not RATE.match(line, number.start()):
                found.append(f"{name}: {metric} is cut")
    return found


def test_a_run_of_eight_devices(
    new_home: Path,
    tmp_path: Path,
    adb_device: Callable[..., Machine],
    ssh_device: Callable[..., Machine],
) -> None:
    machines = [adb_device() for _ in range(5)] + [ssh_device() for _ in range(3)]
    names = [machine.name for machine in machines]
    (folder := tmp_path / "cwd").mkdir()
    (terminal := tmp_path / "terminal").mkdir()
    write_inventory(folder / "lab.yaml", machines, local=False)
    farm = Farm(new_home, folder)
    words = [
        "env", "-C", str(folder), sys.executable, "-m", "farm", "run", str(CONFIGS / "tiny.yaml"),
        "-i", "lab.yaml", "--cluster", "none", "--set", f"workload={SHORT}", "--set", "gates={}",
    ]  # fmt: skip
    environment = {k: v for k, v in farm.environment.items() if k not in ("COLUMNS", "LINES")}
    screen = Screen(terminal, words, environment | {"LC_ALL": "C.UTF-8"})
    seen: list[str] = []
    ends = time.monotonic() + END_S * slack()
    for width, height in SIZES:
        if screen.ended is not None:
            break
        assert time.monotonic() < ends, screen.shown
        screen("resize-window", "-x", str(width), "-y", str(height))
        time.sleep(1)
        shown = screen("capture-pane", "-p", "-J")
        if "? help" in shown and any(name in shown for name in names):
            seen.append(shown)
    last = screen("capture-pane", "-p", "-S", "-200")
    screen.close()
    began = screen.written[0][0]  # the terminal's own answer to the key that starts it
    said = next(at for at, piece in screen.written if re.search(rb"[A-Za-z]{3}", piece))
    print(f"first words after {(said - began) / 1e9:.2f} s; {len(seen)} screens of devices")
    print(*seen[::4], last, sep="\n")
    assert (said - began) / 1e9 < FIRST_S * slack()
    assert len(seen) >= 3, "nothing was looked at"
    assert [fault for shown in seen for fault in faults(shown, names)] == []
    assert any("measure" in shown for shown in seen)
    assert any(RATE.search(shown) for shown in seen)
    assert "8/8 judged: 8 passed" in last
    assert "Traceback" not in last
    assert screen.ended == 0
