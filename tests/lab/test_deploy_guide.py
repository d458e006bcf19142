"""The commands of docs/guides/deploy.md, one after the other, on a phone and a board of the lab."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from farm.commands.chat import chatting
from farm.commands.chat_model import ChatRequest
from farm.core.conversation import Token
from tests.command import CONFIGS, SOURCES, Farm
from tests.lab.machine import Machine
from tests.lab.test_deploy_faults import flip
from tests.lab.test_run_lab import jobs_on
from tests.lab.up import write_inventory
from tests.pace import slack

pytestmark = [pytest.mark.lab, pytest.mark.export]


@pytest.fixture
def farm(new_home: Path, tmp_path: Path) -> Farm:
    """What is deployed, and its history, is of one test."""
    return Farm(new_home, tmp_path)


#: Round trip of the link.
LINK_S = 0.05
GUIDE = SOURCES / "docs" / "guides" / "deploy.md"


def guide_commands() -> list[list[str]]:
    """Every line of every block of shell."""
    blocks = re.findall(r"```sh\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines() if line]


def current_on(machine: Machine) -> str:
    """Version that is in use on a device, by its disk."""
    (link,) = machine.disk.glob("**/farm/deployments/kiosk/current")
    assert (link / "manifest.json").exists()
    return str(link.readlink())


def assert_drift_is_an_alarm(farm: Farm, machine: Machine) -> None:
    """One byte of what is in use changes, then a file is gone; afterwards all is as before."""
    (folder,) = machine.disk.glob("**/farm/deployments/kiosk/current")
    objects = folder.parents[2] / "objects"
    file = objects / (folder / "tokenizer.json").readlink().name
    words = ("deployments", "status", "--inventory", "lab.yaml", "--json")
    flip(file)
    done = farm(*words)
    assert done.returncode == 3, done.stdout + done.stderr
    assert f"ALARM {machine.name}: kiosk {folder.readlink()}: tokenizer.json" in done.stderr
    assert "is changed" in done.stderr
    flip(file)
    file.rename(file.with_suffix(".away"))
    done = farm(*words)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "tokenizer.json is missing" in done.stderr
    file.with_suffix(".away").rename(file)


def test_the_guide_does_what_it_says(
    farm: Farm, adb_device: Callable[..., Machine], ssh_device: Callable[..., Machine]
) -> None:
    phone, board = adb_device(), ssh_device()
    machines = [phone, board]
    write_inventory(farm.cwd / "lab.yaml", machines, local=False)
    shutil.copy(CONFIGS / "tiny.yaml", farm.cwd / "tiny.yaml")
    names = {"phone1": phone.name, "board1": board.name}
    used: dict[str, list[str]] = {machine.name: [] for machine in machines}
    printed: dict[str, list[str]] = {}
    for program, *words in guide_commands():
        assert program == "farm"
        done = farm(*(names.get(word, word) for word in words), limit_s=280)
        assert done.returncode == 0, (words, done.stdout + done.stderr)
        printed.setdefault(" ".join(words[:2]), []).append(done.stdout + done.stderr)
        if words[0] == "deploy" and "--dry-run" not in words and "--resume" not in words:
            for machine in machines:
                used[machine.name].append(current_on(machine))
        if words[:2] == ["deployments", "status"]:
            assert_drift_is_an_alarm(farm, board)
        if words[:2] == ["deployments", "rollback"]:
            # The older version, whatever the newest is called.
            assert [current_on(m) for m in machines] == [used[m.name][0] for m in machines]
    assert all(len(set(versions)) == 2 for versions in used.values())
    plan = printed["deploy latest"][0]
    assert "2 devices in 2 stages" in plan
    assert plan.count("passed on this device") == 2
    assert "0/2 have the new version" not in printed["deploy latest"][2]
    assert re.search(r"tok/s · TTFT \d+ ms · load \d+ ms", printed["chat --on"][0])
    reply = json.loads(printed["chat kiosk"][0].partition("\n}")[0] + "\n}")
    assert len(reply["ids"]) == 12
    assert reply["ttft_s"] > 0
    assert printed["deployments status"][0].count("in use") == 2
    assert printed["deployments history"][0].count("rollback") == 2
    assert [list(m.disk.glob("**/farm/deployments/*")) for m in machines] == [[], []]
    assert [jobs_on(machine) for machine in machines] == [[], []]


@pytest.mark.parametrize("kind", ["adb", "ssh"])
def test_the_first_token_is_shown_soon_after_it_was_chosen(
    farm: Farm,
    adb_device: Callable[..., Machine],
    ssh_device: Callable[..., Machine],
    kind: str,
) -> None:
    machine = adb_device() if kind == "adb" else ssh_device()
    inventory = farm.cwd / "lab.yaml"
    write_inventory(inventory, [machine], local=False)
    request = ChatRequest(machine.name, "tiny-llama", "xnnpack-8da4w", inventory, max_new_tokens=32)
    late_ms = []
    with chatting(request, farm.home, lambda _text: None) as talk:
        talk.ask("Hello", lambda _token: None)
        machine.network.delay(LINK_S / 2)
        for _ in range(3):
            # Devices of the lab have this machine's clock.
            seen: list[tuple[int, int]] = []

            def shown(token: Token) -> None:
                seen.append((token.t_ns, time.monotonic_ns()))  # noqa: B023 (called at once)

            talk.ask("Hello", shown)
            late_ms.append((seen[0][1] - seen[0][0]) / 1e6)
        machine.network.undelay()
    assert min(late_ms) > LINK_S / 2 * 1e3, "the link is as slow as it should be"
    assert sorted(late_ms)[1] < 300 * slack(), late_ms
    print("first token shown after ms:", [round(ms) for ms in late_ms])
