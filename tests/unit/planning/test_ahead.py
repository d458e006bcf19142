"""Devices that are probed while a runtime starts: asked once, and by the same question."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import NoReturn

import pytest

from farm.core.device import Device, DeviceEntry, DeviceFacts, Inventory
from farm.core.errors import ConfigError, ConnectError
from farm.planning import ahead
from farm.site.agent.agent import SiteAgent
from farm.site.agent.inventory import Seen

BOARD = DeviceEntry("pi5", "sim")
INVENTORY = Inventory((BOARD,), adb_auto=False, local=False)


def unreachable(entry: DeviceEntry) -> NoReturn:
    raise ConnectError(f"{entry.name} was asked", device=entry.name)


def test_an_agent_takes_over_what_was_seen_once(tmp_path: Path) -> None:
    board = Device(BOARD, DeviceFacts("id-pi5", "arm64-v8a"))
    seen = Seen((BOARD,), adb_auto=False, devices=(board,))
    agent = SiteAgent(tmp_path, open_transport=unreachable, seen=seen)

    async def asked() -> tuple[Device, Device]:
        (first,) = await agent.inventory([BOARD], adb_auto=False)
        (again,) = await agent.inventory([BOARD], adb_auto=False)
        return first, again

    first, again = asyncio.run(asked())
    assert first is board
    assert "pi5 was asked" in again.reason


def test_another_question_is_asked_of_the_devices(tmp_path: Path) -> None:
    seen = Seen((), adb_auto=False, devices=())
    agent = SiteAgent(tmp_path, open_transport=unreachable, seen=seen)
    (found,) = asyncio.run(agent.inventory([BOARD], adb_auto=False))
    assert "pi5 was asked" in found.reason


def test_only_a_runtime_of_our_own_is_worth_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = Device(BOARD, DeviceFacts("id-pi5", "arm64-v8a"))
    monkeypatch.setattr(ahead, "look", lambda *_: [board])
    assert ahead.probing("local", INVENTORY, tmp_path)() == Seen((BOARD,), False, (board,))
    for cluster in ("none", "10.0.0.5:6379"):
        assert ahead.probing(cluster, INVENTORY, tmp_path)() is None

    def broken(*_: object) -> NoReturn:
        raise ConfigError("no adb server can be asked as ADB is set")

    monkeypatch.setattr(ahead, "look", broken)
    with pytest.raises(ConfigError, match="as ADB is set"):
        ahead.probing("local", INVENTORY, tmp_path)()
