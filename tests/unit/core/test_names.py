from __future__ import annotations

import pytest

from farm.core.names import meant


@pytest.mark.parametrize(
    ("name", "known", "said"),
    [
        ("pixle8", ["pi5", "pixel8"], "; did you mean pixel8?"),
        ("XNNPACK-8da4W", ["xnnpack-8da4w"], "; did you mean xnnpack-8da4w?"),
        ("pix", ["pixel8-of-the-third-rack"], "; did you mean pixel8-of-the-third-rack?"),
        ("zzz", ["pi5", "pixel8"], ""),
        ("x", [], ""),
    ],
)
def test_a_misspelt_name_is_answered_with_the_nearest(
    name: str, known: list[str], said: str
) -> None:
    assert meant(name, known) == said
