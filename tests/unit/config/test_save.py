from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.commands import init
from farm.config.load import load_inventory, load_run
from farm.config.save import inventory_text
from farm.core.device import Device, DeviceEntry, DeviceFacts
from farm.core.errors import ConfigError

PHONE = Device(
    DeviceEntry("37021FDJH0ABCD", "adb", serial="37021FDJH0ABCD"),
    DeviceFacts("37021FDJH0ABCD", "arm64-v8a", model="Pixel 8", os="Android 15"),
)
AWAY = Device(DeviceEntry("R5CT", "adb", serial="R5CT"), None, "unauthorized", remedy="say yes")
LOCAL = Device(DeviceEntry("local", "local"), DeviceFacts("x", "x86_64", os="Debian"))
NAMES = st.text("abcdefghij0123456789-", min_size=1, max_size=12)


def test_what_is_attached_becomes_an_inventory_that_names_it(tmp_path: Path) -> None:
    begun = init.begin(tmp_path / "lab", (PHONE, AWAY, LOCAL), tmp_path)
    inventory = load_inventory(begun.files[0])
    pixel, away = inventory.entries
    assert (pixel.name, pixel.serial) == ("pixel-8", "37021FDJH0ABCD")
    assert pixel.expect == (("os", "Android 15"),)
    assert (away.name, away.expect) == ("R5CT", ())
    assert (inventory.local, inventory.adb_auto) == (True, False)
    assert "unauthorized: say yes" in begun.files[0].read_text()
    assert load_run(begun.files[1])[0].name == "lab"


def test_nothing_is_overwritten_and_nothing_half_written(tmp_path: Path) -> None:
    (tmp_path / init.CONFIG).write_text("mine")
    with pytest.raises(ConfigError, match="it is left as it is"):
        init.begin(tmp_path, (PHONE,), tmp_path)
    assert (tmp_path / init.CONFIG).read_text() == "mine"
    assert not (tmp_path / init.INVENTORY).exists()


@settings(deadline=None)
@given(
    st.lists(
        st.builds(
            lambda name, host, port, model: Device(
                DeviceEntry(name, "ssh", host=host, port=port, user="pi"),
                DeviceFacts(name, "arm64-v8a", model=model, os="Debian 12"),
            ),
            NAMES, NAMES, st.none() | st.integers(1, 65535), st.text(max_size=8),
        ),
        max_size=5,
    )
)  # fmt: skip
def test_any_devices_are_read_back(
    tmp_path_factory: pytest.TempPathFactory, found: list[Device]
) -> None:
    path = tmp_path_factory.mktemp("lab") / "lab.yaml"
    path.write_text(inventory_text(found, path.name), encoding="utf-8")
    entries = load_inventory(path).entries
    assert [(e.host, e.port, e.user) for e in entries] == [
        (d.entry.host, d.entry.port, d.entry.user) for d in found
    ]
    assert len({e.name for e in entries}) == len(found)
