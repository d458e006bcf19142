from __future__ import annotations

import pytest

from farm.judge.text import garbage_reason

HEALTHY = [
    "The capital of France is Paris.",
    "Paris",
    "42",
    # Small models loop when decoded greedily.
    "The capital of France is Paris. " * 8,
    "1. Bread\n2. Milk\n3. Eggs\n4. Butter\n5. Cheese\n6. Apples",
    "def add(a, b):\n    return a + b\n\nprint(add(1, 2))",
    "日本の首都は東京です。カタカナとひらがなと漢字があります。",
    "Der Fluß heißt Σηκουάνας auf Griechisch, Сена auf Russisch.",
    # A token limit cut the last character.
    "Voilà: caf\N{REPLACEMENT CHARACTER}",
]


@pytest.mark.parametrize("text", HEALTHY)
def test_language_passes(text: str) -> None:
    assert garbage_reason(text) is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        (" \n\t ", "empty"),
        ("!" * 60, "is '!'"),
        ("\N{REPLACEMENT CHARACTER}" * 10 + "abc", "can't be decoded"),
        ("ok\x00\x01\x02\x1b[31m\x07", "can't be decoded"),
        ("the " * 48, "distinct words"),
        ("abababababababababababababab", "bits a character"),
        ("Hund кот ψάρι 犬 개 חתול قط बिल्ली", "alphabets"),
    ],
)
def test_garbage_is_named(text: str, why: str) -> None:
    reason = garbage_reason(text)
    assert reason is not None
    assert why in reason
