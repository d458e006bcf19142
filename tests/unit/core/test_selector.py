from __future__ import annotations

import pytest

from farm.core.errors import ConfigError
from farm.core.selector import parse_selector

PHONE: dict[str, str | int] = {
    "transport": "adb",
    "abi": "arm64-v8a",
    "ram": 8 << 30,
    "tier": "gold",
    "name": "p8",
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("transport=adb", True),
        ("transport=ssh", False),
        ("abi in (arm64-v8a, x86_64)", True),
        ("abi not in (arm64-v8a)", False),
        ("ram>=6GiB, tier=gold, name!=pi5", True),
        ("ram>8GiB", False),
        ("ram<8.5GiB", True),
        ("absent=1", False),
        ("absent!=1", True),
        ("absent>=1", False),
    ],
)
def test_matches(text: str, expected: bool) -> None:
    assert parse_selector(text).matches(PHONE) is expected


@pytest.mark.parametrize("text", ["ram>>3", "=x", "a", "a=1,,b=2", "a in b", "a in (x", "a=(1)"])
def test_unreadable_selector_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match="transport=adb"):
        parse_selector(text)


def test_failing_terms_read_as_they_were_written() -> None:
    failing = parse_selector("ram>=16GiB, abi in (x86_64), tier=gold").failing(PHONE)
    assert [str(term) for term in failing] == ["ram>=16GiB", "abi in (x86_64)"]
