"""Nights over a lab phone that end alike however busy the machine is; `nights.py` has all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.command import Farm
from tests.lab.counted import count_speeds
from tests.lab.nights import NIGHTS, Place, set_baseline, told
from tests.lab.test_run_lab import Factory
from tests.lab.up import write_inventory

pytestmark = [pytest.mark.lab, pytest.mark.export]

#: In their order: each finds the phone as the one before left it.
WANTED = ("first night", "all numbers invalid", "OS build changed", "device gone")
#: Cells so short that the phone is hardly busy.
SHORT = (
    "--cluster", "none", "--live", "off",
    "--set", "workload={prefill: [32], decode: [16], launches: 2, max_launches: 2, budget_s: 6}",
    "--set", "correctness.tokens=64",
)  # fmt: skip


def _counted(place: Place) -> None:
    count_speeds(place.farm)
    set_baseline(place)


def test_nights_that_are_no_green(new_home: Path, tmp_path: Path, adb_device: Factory) -> None:
    (folder := tmp_path / "cwd").mkdir()
    phone = adb_device("nightphone", sensors=True)
    write_inventory(folder / "lab.yaml", [phone], local=False, virtual=True)
    place = Place(Farm(new_home, folder), phone, SHORT)
    for night in (one for one in NIGHTS if one.name in WANTED):
        if night.name == "first night":
            night = replace(night, after=_counted)
        code, line, missing = told(night, place)
        assert code in night.exits, (night.name, line)
        assert missing == [], (night.name, line)
