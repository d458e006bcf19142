"""Does a generated text look like language at all? Finds broken models, not bad answers.

Small models repeat themselves when decoded greedily, so the bounds are wide: only what no
healthy model writes counts as garbage.
"""

from __future__ import annotations

import math
import unicodedata
from collections import Counter

#: Shorter texts say too little about repetition and entropy.
_MIN_CHARACTERS = 24
_MIN_WORDS = 16
#: Share of U+FFFD and control characters. A healthy text has at most a cut character at its end.
_MAX_UNDECODABLE = 0.2
#: One character making up more than this share ("!!!!!!"); e is 13 % of English.
_MAX_ONE_CHARACTER = 0.6
#: Bits per character. English has about 4.1; one word repeated for ever about 2.
_MIN_ENTROPY = 1.5
#: Distinct words per word. A looping sentence of eight words over 48 tokens still has 0.15.
_MIN_DISTINCT = 0.08
#: Letters of this many alphabets in one short answer come from tokens drawn at random.
_MAX_SCRIPTS = 4


def garbage_reason(text: str) -> str | None:
    """Say why a text is garbage; None when it looks like language.

    An empty text is garbage: a model that was asked answers something.
    """
    stripped = text.strip()
    if not stripped:
        return "the text is empty"
    bad = sum(_undecodable(character) for character in stripped)
    # One broken character at the end is a token limit that cut it.
    if bad > 1 and bad / len(stripped) > _MAX_UNDECODABLE:
        return f"{bad} of {len(stripped)} characters can't be decoded"
    scripts = _scripts(stripped)
    if len(scripts) > _MAX_SCRIPTS:
        return f"letters of {len(scripts)} alphabets: {', '.join(sorted(scripts))}"
    if len(stripped) < _MIN_CHARACTERS:
        return None
    return _repetition(stripped)


def _repetition(text: str) -> str | None:
    counts = Counter(text)
    character, count = counts.most_common(1)[0]
    if count / len(text) > _MAX_ONE_CHARACTER:
        return f"{100 * count / len(text):.0f} % of the text is {character!r}"
    entropy = -sum(n / len(text) * math.log2(n / len(text)) for n in counts.values())
    if entropy < _MIN_ENTROPY:
        return f"{entropy:.1f} bits a character (language has about 4)"
    words = text.split()
    if len(words) >= _MIN_WORDS and len(set(words)) / len(words) < _MIN_DISTINCT:
        return f"{len(set(words))} distinct words in {len(words)}"
    return None


def _undecodable(character: str) -> bool:
    if character == "\N{REPLACEMENT CHARACTER}":
        return True
    return unicodedata.category(character) in ("Cc", "Cn", "Co", "Cs") and character not in "\n\r\t"


def _scripts(text: str) -> set[str]:
    """Alphabets of the letters, by the first word of their Unicode names (LATIN, CYRILLIC...)."""
    names = (unicodedata.name(c, "") for c in text if unicodedata.category(c).startswith("L"))
    # Japanese and Chinese mix these three by nature.
    east_asian = {"CJK": "HAN", "HIRAGANA": "HAN", "KATAKANA": "HAN"}
    return {east_asian.get(name.split()[0], name.split()[0]) for name in names if name}
