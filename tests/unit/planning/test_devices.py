"""Devices of several sites: each once, and those that nobody reaches are named."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from farm.core.device import Device, DeviceEntry, DeviceFacts, Inventory
from farm.core.errors import ConfigError
from farm.planning.devices import find_devices, one_of_each
from tests.unit.fakes import FakeSite


def phone(name: str, site: str, identity: str, **entry: str) -> Device:
    facts = DeviceFacts(identity=identity, abi="arm64-v8a", boot_id=f"boot-{identity}")
    return Device(DeviceEntry(name, "adb", site=site, serial=name, **entry), facts)  # type: ignore[arg-type]


def listed(*entries: DeviceEntry) -> Inventory:
    return Inventory(entries, local=False)


class Rack(FakeSite):
    """A site that sees these devices attached, and every entry it is asked for."""

    def __init__(self, *attached: Device) -> None:
        super().__init__(lambda job: None)
        self.attached = attached

    async def inventory(
        self, entries: Sequence[DeviceEntry], *, adb_auto: bool, **_: object
    ) -> list[Device]:
        return [
            *(Device(entry, DeviceFacts(f"id-{entry.name}", "x86_64")) for entry in entries),
            *(self.attached if adb_auto else ()),
        ]


def test_a_phone_that_two_agents_see_is_one_device_of_the_site() -> None:
    here, there = phone("R5", "", "R5"), phone("R5", "rack1", "R5")
    assert one_of_each({"": [here], "rack1": [there]}, listed()) == [there]


def test_a_phone_on_wifi_at_another_site_is_no_second_device() -> None:
    usb, wifi = phone("R5", "rack1", "R5"), phone("10.0.0.7:5555", "rack2", "R5")
    assert one_of_each({"": [], "rack1": [usb], "rack2": [wifi]}, listed()) == [usb]


def test_the_entry_of_the_inventory_is_the_device() -> None:
    named = phone("pixel8", "", "R5")
    seen = phone("R5", "rack1", "R5")
    assert one_of_each({"": [named], "rack1": [seen]}, listed(named.entry)) == [named]


def test_two_entries_of_one_phone_are_unfit_and_name_each_other() -> None:
    one, two = phone("a", "rack1", "R5"), phone("b", "rack2", "R5")
    found = one_of_each({"rack1": [one], "rack2": [two]}, listed(one.entry, two.entry))
    assert [device.state for device in found] == ["unfit", "unfit"]
    assert "the same device as b" in found[0].reason


def test_two_phones_that_were_found_under_one_name_are_told_apart_and_unfit() -> None:
    one, two = phone("emulator-5554", "rack1", "A"), phone("emulator-5554", "rack2", "B")
    found = one_of_each({"rack1": [one], "rack2": [two]}, listed())
    assert [device.name for device in found] == ["emulator-5554@rack1", "emulator-5554@rack2"]
    assert all(device.state == "unfit" and "`site: rack" in device.remedy for device in found)
    named = replace(one, entry=replace(one.entry, origin="lab.yaml: devices.0"))
    found = one_of_each({"rack1": [named], "rack2": [two]}, listed(named.entry))
    assert [(d.name, d.state) for d in found] == [
        ("emulator-5554", "ready"), ("emulator-5554@rack2", "unfit"),
    ]  # fmt: skip


FAR = DeviceEntry("pi5", "ssh", site="rack2", origin="lab.yaml: devices.0")


def find(sites: dict[str, Rack], select: str = "", **options: bool) -> list[tuple[str, str]]:
    found = asyncio.run(find_devices(sites, listed(FAR), select, **options))
    return [(device.name, device.state) for device in found]


def test_a_device_of_another_site_needs_a_cluster_to_run_and_none_to_plan() -> None:
    with pytest.raises(ConfigError, match=r"devices\.0\.site: pi5 hangs on site rack2: .*ADDRESS"):
        find({"": Rack()})
    assert find({"": Rack()}, elsewhere=True) == [("pi5", "elsewhere")]
    assert find({"": Rack()}, "name!=pi5") == []


def test_a_device_whose_site_is_gone_is_absent() -> None:
    assert find({"": Rack(), "rack1": Rack()}) == [("pi5", "absent")]
    assert find({"": Rack(), "rack2": Rack()}) == [("pi5", "ready")]
