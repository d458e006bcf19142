"""Texts that correctness is measured on: the built-in corpus, or a file of the user's. No torch.

The corpus was written for this project: prose first, then code, dialogue, numbers and languages.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from farm.core.errors import ConfigError, ExportError
from models.tokenizer import Tokenizer

#: Token ids of which a text has at least so many, or a quarter of its length: prose has dozens.
_DIFFERENT = 8


def read_text(name: str) -> str:
    """Return the text `builtin`, or the content of a UTF-8 file.

    Raises:
        ConfigError: The file can't be read or isn't UTF-8.
    """
    if name == "builtin":
        return "\n\n".join(part.strip() for part in corpus().values()) + "\n"
    path = Path(name)
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"correctness.text: can't read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"correctness.text: {path} isn't UTF-8 text") from error


def corpus() -> dict[str, str]:
    """Parts of the built-in text by name, in order."""
    files = sorted((Path(__file__).parent / "data" / "corpus").glob("*.txt"))
    return {path.stem.partition("-")[2]: path.read_text(encoding="utf-8") for path in files}


def forced_tokens(tokenizer: Tokenizer, text: str, count: int) -> tuple[int, ...]:
    """Return exactly `count` token ids of a text, BOS included where the model starts with one.

    Raises:
        ExportError: The text has fewer tokens, or hardly any that differ.
    """
    ids = tokenizer.encode(text)
    if len(ids) < count:
        raise ExportError(
            f"the text has {len(ids)} tokens, {count} were asked for; give a longer text or set"
            " correctness.tokens lower"
        )
    found = tuple(ids[:count])
    if (different := len(set(found))) < min(_DIFFERENT, count // 4):
        raise ExportError(
            f"the text repeats {different} token ids, which shows no fault: give natural text to"
            " correctness.text"
        )
    return found


def prefix_text(tokenizer: Tokenizer, ids: Sequence[int], count: int) -> str:
    """Return the text of the first `count` ids, repeated where there are fewer; without BOS."""
    rounds = -(-count // len(ids))
    return tokenizer.decode((list(ids) * rounds)[:count])
