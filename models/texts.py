"""Texts that correctness is measured on: built-in prose, or a file of the user's. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from farm.core.errors import ConfigError, ExportError
from models.tokenizer import Tokenizer


def read_text(name: str) -> str:
    """Return the text `builtin`, or the content of a UTF-8 file.

    Raises:
        ConfigError: The file can't be read or isn't UTF-8.
    """
    path = Path(__file__).parent / "data" / "prose.txt" if name == "builtin" else Path(name)
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"correctness.text: can't read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"correctness.text: {path} isn't UTF-8 text") from error


def forced_tokens(tokenizer: Tokenizer, text: str, count: int) -> tuple[int, ...]:
    """Return exactly `count` token ids of a text, BOS included where the model starts with one.

    Raises:
        ExportError: The text has fewer tokens.
    """
    ids = tokenizer.encode(text)
    if len(ids) < count:
        raise ExportError(
            f"the text has {len(ids)} tokens, {count} were asked for; give a longer text or set"
            " correctness.tokens lower"
        )
    return tuple(ids[:count])


def prefix_text(tokenizer: Tokenizer, ids: Sequence[int], count: int) -> str:
    """Return the text of the first `count` ids, repeated where there are fewer; without BOS."""
    rounds = -(-count // len(ids))
    return tokenizer.decode((list(ids) * rounds)[:count])
