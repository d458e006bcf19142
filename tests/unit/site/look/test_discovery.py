from __future__ import annotations

from pathlib import Path

import pytest

from farm.host.source_tree import tree_sha256
from farm.site.look.discovery import usb_phone_attached


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
