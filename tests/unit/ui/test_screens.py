"""The live view at usual sizes of terminals, with one to a thousand devices."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from farm.ui.lines import WIDE
from farm.ui.steer import HELP
from tests.unit.ui.screening import COUNTS, SIZES, file_of, names, screen


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_screen_is_as_it_was_looked_at(count: int, width: int, height: int) -> None:
    shown = screen(count, width, height)
    lines = shown.splitlines()
    assert len(lines) < height
    assert max(map(cell_len, lines)) <= width
    assert shown == file_of(count, width, height).read_text(), (
        "look at the new one: `python -m tests.unit.ui.screening` writes it"
    )


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_rates_and_reasons_are_whole_at_every_size(width: int, height: int) -> None:
    words = " ".join(screen(8, width, height).split())
    assert "pp128 400 tg64 80.4 tok/s" in words
    tight = "pp128 401±1% tg64 81.4±0.4% tok/s 36/45°"
    assert (tight if width < WIDE else "pp128 401 ±1 % tg64 81.4 ±0.4 % tok/s 36/45 °C") in words
    assert "3:20 left" in words
    assert "held by ann@desk until 14:00, 35 min left: new battery; waits up to 5 min" in words
    assert "battery 44.1 °C, wanted 37 °C: waits up to 10 min" in words


def test_the_keys_are_explained_within_80_columns() -> None:
    assert [what for _, what in HELP if len(what) > 80 - 12] == []


@pytest.mark.parametrize("count", [60, 1000])
def test_every_device_is_shown_or_counted(count: int) -> None:
    for width, height in SIZES:
        text = screen(count, width, height)
        shown = sum(line.strip().startswith("rack") for line in text.splitlines())
        more = [line.split()[1] for line in text.splitlines() if "more devices" in line]
        begun = sum(n % 10 != 9 for n in range(len(names(count))))
        assert shown + sum(map(int, more)) == begun
