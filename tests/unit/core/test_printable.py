from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.core.printable import one_line, printable

ACTIVE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ünïcode 日本", "plain ünïcode 日本"),
        ("a\tb\r\nc\rd", "a\tb\ncd"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07x", "x"),
        ("\x1b]8;;http://e\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9b2Jclear", "clear"),
        ("\x1bPq#0\x1b\\sixel", "sixel"),
        ("\x1b(Bset", "set"),
        ("\x1bcreset", "reset"),
        ("end\x1b", "end"),
        ("end\x1b[", "end"),
        ("fdp\u202egnp.exe", "fdpgnp.exe"),
        ("lone \udce9", "lone \N{REPLACEMENT CHARACTER}"),
    ],
)
def test_what_is_left(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(alphabet=st.characters(exclude_categories=()), max_size=60))
def test_nothing_active_is_left_and_twice_is_once(text: str) -> None:
    once = printable(text)
    assert not ACTIVE.search(once)
    assert printable(once) == once


def test_one_line_is_one_line_and_cut_with_a_sign() -> None:
    assert one_line(" a \n b\t c ") == "a b c"
    assert one_line("abcdef", 4) == "abc…"
    assert one_line("abcd", 4) == "abcd"
