"""`farm profile`: real traces of the tiny model, in the terminal's JSON and in the page."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from farm.core.errors import BadOutput
from runners.output.etdump import read_etdump
from tests.command import CONFIGS, Farm

pytestmark = pytest.mark.export


def test_a_profile_says_where_the_time_goes(farm: Farm) -> None:
    done = farm(
        *("profile", str(CONFIGS / "tiny.yaml"), "--json", "--select", "transport=local"),
        *("--set", "workload.prefill=[16]", "--set", "workload.decode=[4]"),
    )
    assert done.returncode == 0, done.stderr
    (cell,) = json.loads(done.stdout)["cells"]
    assert cell["error"] is None
    names = {window["name"]: window for window in cell["windows"]}
    assert set(names) == {"pp16", "tg4"}
    for window in names.values():
        parts = window["delegates_s"] + window["operators_s"] + window["overhead_s"]
        assert parts == pytest.approx(window["total_s"], rel=1e-6)
        assert 0 < window["delegates_s"] < window["total_s"]
        assert "llama::custom_sdpa.out" in {item["name"] for item in window["outside"]}
        assert window["delegates"]
        assert window["inside"]
    assert (names["tg4"]["calls"], names["tg4"]["tokens"]) == (4, 4)
    (page,) = (farm.cwd / "runs").glob("*/profile.html")
    assert "outside delegates" in page.read_text()
    check_damage(farm)


def check_damage(farm: Farm) -> None:
    """Every cut or flipped dump is an error of ours, or still a dump."""
    objects = (farm.home / "store" / "objects").rglob("*")
    dump = next(p.read_bytes() for p in objects if p.is_file() and is_dump(p))
    assert read_etdump(dump)
    for size in range(0, len(dump), max(1, len(dump) // 60)):
        flipped = bytearray(dump)
        flipped[size] ^= 0xFF
        for content in (dump[:size], bytes(flipped)):
            with contextlib.suppress(BadOutput):
                read_etdump(content)


def is_dump(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(12)[8:] == b"ED00"
