"""A device that doesn't answer is recovered by the inventory's steps, and everybody is told."""

from __future__ import annotations

import asyncio
import shlex
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from farm import transports
from farm.core.device import Device, DeviceEntry
from farm.core.errors import ConnectError
from farm.core.events import DeviceChanged, DeviceRecovery
from farm.protocols import Transport
from farm.site.agent import recover as module
from farm.site.agent.agent import SiteAgent
from farm.site.agent.recover import recover, run_command
from farm.site.agent.revisit import Revisitor
from farm.site.context import Limits, SiteContext
from farm.store.objects import ContentStore
from tests.contract.site_bench import SiteBench


class Cable:
    """Opens the transport of a device that answers once a file is there."""

    def __init__(self, flag: Path) -> None:
        self.flag = flag

    def __call__(self, entry: DeviceEntry) -> Transport:
        if not self.flag.exists():
            raise ConnectError(f"{entry.name}: no answer", device=entry.name)
        return transports.open(entry)


@pytest.fixture
def cable(tmp_path: Path) -> Cable:
    return Cable(tmp_path / "plugged")


@pytest.fixture
def context(bench: SiteBench, cable: Cable) -> SiteContext:
    def no_runner(name: str) -> None:
        raise AssertionError(name)

    store = ContentStore(bench.home / "store")
    return SiteContext(bench.home, store, cable, no_runner, Limits())  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACK_AFTER_S", {"reconnect": 0.0, "reboot": 0.0, "command": 0.0})


def entry_of(bench: SiteBench, *steps: str) -> DeviceEntry:
    return replace(bench.local, recover=steps)


def performed(entry: DeviceEntry, context: SiteContext) -> tuple[Device | None, list[str]]:
    said: list[DeviceRecovery] = []
    device = recover(entry, context, said.append, threading.Event())
    return device, [f"{event.step} {event.ok}: {event.detail}" for event in said]


def test_steps_are_taken_in_order_until_the_device_answers(
    bench: SiteBench, context: SiteContext, cable: Cable
) -> None:
    plug = f"command: touch {cable.flag}"
    never = "command: touch /nonexistent/never"
    device, said = performed(entry_of(bench, "reconnect", "reboot", plug, never), context)
    assert device is not None
    assert device.facts is not None
    assert [text.split(":")[0] for text in said] == [
        "reconnect False",
        "reboot False",
        "command",
    ]
    # Never the machine that farm runs on.
    assert "a device with transport local is not rebooted" in said[1]
    assert said[2].endswith("True: it answers again")


def test_steps_that_do_not_help_say_so(bench: SiteBench, context: SiteContext) -> None:
    steps = ("command: false", "command: no-such-program-here", "command: 'unclosed")
    device, said = performed(entry_of(bench, *steps), context)
    assert device is None
    assert "exit 1" in said[0]
    assert "can't be run" in said[1]
    assert "can't be run" in said[2]
    assert all("it still doesn't answer" in text for text in said)


def test_steps_are_bounded_per_day(
    bench: SiteBench, context: SiteContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STEPS_PER_DAY", 3)
    performed(entry_of(bench, "command: true", "command: true"), context)
    _, said = performed(entry_of(bench, "command: true", "command: true"), context)
    assert "it still doesn't answer" in said[0]
    assert "didn't bring it back: go and look at it" in said[1]
    other = replace(entry_of(bench, "command: true"), name="other")
    assert "it still doesn't answer" in performed(other, context)[1][0]


def test_a_command_gets_its_words_and_the_device_s_name_but_no_shell(tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = "import os,sys; open(sys.argv[1],'w').write(repr((sys.argv[2:], os.environ['FARM_DEVICE'], os.environ['FARM_SERIAL'])))"  # noqa: E501
    words = [sys.executable, "-c", script, str(out), "$(touch x)", "a b"]
    entry = DeviceEntry("p8; reboot", "adb", serial="S 1")
    assert run_command(shlex.join(words), entry) == ""
    assert out.read_text() == repr((["$(touch x)", "a b"], "p8; reboot", "S 1"))


def test_a_lost_device_is_recovering_then_offline_then_back(
    bench: SiteBench, context: SiteContext, cable: Cable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("farm.site.agent.revisit.PAUSES_S", (0.05,))
    events: list[DeviceChanged | DeviceRecovery] = []
    offline, back = threading.Event(), threading.Event()

    def emit(event: DeviceChanged | DeviceRecovery) -> None:
        events.append(event)
        if isinstance(event, DeviceChanged):
            {"offline": offline, "ready": back}.get(event.device.state, threading.Event()).set()

    revisitor = Revisitor(context, emit)
    revisitor.lost(Device(entry_of(bench, "command: true"), None), "power cut")
    assert offline.wait(30)
    cable.flag.touch()
    assert back.wait(30)
    revisitor.close()
    states = [event.device.state for event in events if isinstance(event, DeviceChanged)]
    assert states == ["recovering", "offline", "ready"]
    said = next(e for e in events if isinstance(e, DeviceChanged) and e.device.state == "offline")
    assert said.device.reason == "power cut (command: true didn't help)"


def test_devices_that_a_run_does_not_find_are_recovered_first(
    bench: SiteBench, cable: Cable
) -> None:
    async def scenario() -> None:
        agent = SiteAgent(bench.home, open_transport=cable, discover=lambda _n, _s: [])
        entries = [entry_of(bench, f"command: touch {cable.flag}")]
        (device,) = await agent.inventory(entries, adb_auto=False)
        assert device.facts is None
        (device,) = await agent.inventory(entries, adb_auto=False, recover=True)
        assert device.state == "ready"
        (step,) = [item.event for item in (await agent.poll("run-1", 0, 0.0)).events]
        assert isinstance(step, DeviceRecovery)
        assert step.ok
        await agent.close()

    asyncio.run(scenario())
