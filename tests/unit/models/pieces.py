"""A SentencePiece model trained on the built-in text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from models.texts import read_text


def train_pieces(folder: Path, **change: Any) -> tuple[Path, Any]:
    """Write `tokenizer.model` into a folder; returns it and the library's processor of it."""
    sentencepiece = pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
    settings: dict[str, Any] = {
        "vocab_size": 600,
        "model_type": "bpe",
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "minloglevel": 2,
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(read_text("builtin").splitlines()),
        model_prefix=str(folder / "tokenizer"),
        **settings | change,
    )
    path = folder / "tokenizer.model"
    return path, sentencepiece.SentencePieceProcessor(model_file=str(path))
