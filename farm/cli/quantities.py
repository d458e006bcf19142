"""Sizes and durations as people write them on a command line."""

from __future__ import annotations

import re

from farm.core.errors import ConfigError
from farm.core.selector import quantity

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def size_bytes(option: str, text: str) -> int:
    """Read `20GiB`, `500MB` or a number of bytes.

    Raises:
        ConfigError: It is none of these; names the option.
    """
    value = quantity(text)
    if value is None:
        raise ConfigError(f"{option} {text!r}: write a size such as 20GiB or 500MiB", key=option)
    return int(value)


def duration_s(option: str, text: str) -> float:
    """Read `30d`, `12h`, `90m`, `2w` or `45s` as seconds.

    Raises:
        ConfigError: It is none of these; names the option.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw])", text.strip())
    if match is None:
        raise ConfigError(
            f"{option} {text!r}: write a duration such as 30d, 12h or 90m", key=option
        )
    return float(match[1]) * _SECONDS[match[2]]
