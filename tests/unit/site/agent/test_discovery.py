from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

import runners
from farm import transports
from farm.core.device import DeviceEntry
from farm.core.errors import ConfigError
from farm.host.source_tree import tree_sha256
from farm.site.agent.discovery import discover_adb, usb_phone_attached
from farm.site.agent.inventory import look
from farm.site.context import SiteContext
from farm.store.objects import ContentStore
from farm.transports.adb_devices import AttachedDevice


@pytest.mark.parametrize(
    ("values", "found"), [(("ff", "42", "01"), True), (("ff", "42", "03"), False), (("08",), False)]
)
def test_usb_phone_is_known_by_its_interface(
    tmp_path: Path, values: tuple[str, ...], found: bool
) -> None:
    interface = tmp_path / "1-1:1.0"
    interface.mkdir()
    leaves = ("bInterfaceClass", "bInterfaceSubClass", "bInterfaceProtocol")
    for leaf, value in zip(leaves, values, strict=False):
        (interface / leaf).write_text(f"{value}\n")
    (tmp_path / "1-1").mkdir()
    assert usb_phone_attached(tmp_path) is found


def test_variables_of_adb_that_lead_nowhere_are_no_absence_of_phones(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ADB_SERVER_SOCKET", "localabstract:adb")
    context = SiteContext(tmp_path, ContentStore(tmp_path), transports.open, runners.find)
    with pytest.raises(ConfigError, match="ADB_SERVER_SOCKET"):
        look([], partial(discover_adb, [], ""), context, 1.0)


def test_discovered_phones_have_names_without_blanks(monkeypatch: pytest.MonkeyPatch) -> None:
    serial = "adb-2A0F-bbQ1yz (2)._adb-tls-connect._tcp"
    twins = [AttachedDevice("0123", "device", path=f"usb:1-{n}") for n in (1, 2)]
    rows = (AttachedDevice(serial, "device"), *twins)
    monkeypatch.setattr("farm.site.agent.discovery.attached", lambda **_: rows)
    named = [DeviceEntry("left", "adb", serial="usb:1-1")]
    found = discover_adb(named, "")
    assert [(entry.name, entry.serial) for entry in found] == [
        ("adb-2A0F-bbQ1yz(2)._adb-tls-connect._tcp", serial),
        ("usb:1-2", "usb:1-2"),
    ]


def test_tree_hash_follows_content_and_names(tmp_path: Path) -> None:
    def tree(name: str, files: dict[str, str]) -> str:
        root = tmp_path / name
        for path, text in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        return tree_sha256(root)

    base = {"farm/a.py": "1", "runners/native/x.cpp": "2", "models/m.py": "3"}
    first = tree("first", base)
    assert tree("same", base) == first
    assert tree("ignored", base | {"farm/a.pyc": "x", "tests/t.py": "y"}) == first
    assert tree("content", base | {"farm/a.py": "2"}) != first
    assert tree("name", {"farm/b.py": "1", **{k: base[k] for k in list(base)[1:]}}) != first
