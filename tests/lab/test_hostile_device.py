"""A device that is out to harm: nothing that it says is run, followed or shown as it came."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.command import Farm
from tests.contract.site_bench import SiteBench, make_home
from tests.contract.toy_runner import GOOD
from tests.lab.machine import Machine
from tests.lab.up import write_inventory

pytestmark = pytest.mark.lab

Factory = Callable[..., Machine]

_HOME = "/root/$(touch pwned) 'a' \"b\"; touch pwned #`touch pwned`"
_MODEL = "\x1b[31mred$(touch /data/local/tmp/pwned)\x1b]0;title\x07;`touch /data/local/tmp/pwned`"


def passes(machine: Machine, folder: Path) -> None:
    async def scenario() -> None:
        bench = SiteBench(folder, entries=(machine.entry,))
        (device,) = await bench.agent.inventory([machine.entry], adb_auto=False)
        assert device.facts is not None, device.reason
        finished = await bench.run(bench.job(GOOD, device=machine.name))
        assert finished.error is None, finished.error
        await bench.agent.close()

    asyncio.run(scenario())


def test_a_home_folder_is_a_path_and_no_shell_text(ssh_device: Factory, tmp_path: Path) -> None:
    board = ssh_device()
    passwd = (board.state / "files/etc/passwd").read_text()
    # The last field but one; a colon can't stand in it.
    board.set_file("etc/passwd", passwd.replace(":/root:", f":{_HOME}:", 1), 0o644)
    board.host_path(_HOME).mkdir()
    board.restart_daemon()
    passes(board, tmp_path)
    assert board.host_path(f"{_HOME}/.cache/farm/objects").is_dir()
    assert list(board.disk.rglob("pwned")) == []


def test_properties_are_data_and_harmless_on_a_terminal(
    adb_device: Factory, tmp_path: Path
) -> None:
    phone = adb_device()
    properties = (phone.state / "files/system/build.prop").read_text()
    model = f"ro.product.model=Farm-{phone.name}"
    assert model in properties
    phone.set_file("system/build.prop", properties.replace(model, f"ro.product.model={_MODEL}"))
    phone.restart_daemon()
    passes(phone, tmp_path)
    desk = tmp_path / "desk"
    desk.mkdir()
    write_inventory(desk / "lab.yaml", [phone], local=False)
    farm = Farm(make_home(desk), desk)
    done = farm("devices", "--inventory", "lab.yaml", "--wait", "15")
    assert done.returncode == 0, done.stderr
    assert "red$(touch" in done.stdout
    assert not {"\x1b", "\x07"} & set(done.stdout + done.stderr)
    assert list(phone.disk.rglob("pwned")) == []
