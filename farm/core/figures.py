"""Figures that a program which isn't farm's own may print of a launch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: Names of the figures, as configs and JSON lines spell them.
Figure = Literal[
    "prefill_tok_s",
    "decode_tok_s",
    "prompt_tokens",
    "generated_tokens",
    "ttft_s",
    "load_s",
    "peak_rss_bytes",
    "text",
]


@dataclass(frozen=True, slots=True)
class Figures:
    """What one launch said of itself; None is what it didn't say."""

    prefill_tok_s: float | None = None
    decode_tok_s: float | None = None
    prompt_tokens: int | None = None
    generated_tokens: int | None = None
    ttft_s: float | None = None
    load_s: float | None = None
    peak_rss_bytes: int | None = None
    #: The answer.
    text: str | None = None
