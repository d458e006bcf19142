"""Tokenizers inside a GGUF give the ids of the library that made them, on the built-in text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from models.sources.gguf_tokenizer import read_tokenizer
from models.sources.tokenizer_files import read_tokenizer_file
from models.texts import read_text
from models.tokenizer import Tokenizer
from tests.unit.models.pieces import train_pieces

TEXTS = [
    "Hello world, it's 12345 o'clock!  Two  spaces\n\n\tand a tab, I'LL say 7.",
    "Grüße aus Köln \u2014 naïve café, 東京 and 🙂🙂.",
    *read_text("builtin").split("\n\n"),
]
#: As the published tokenizer.json of each family has them.
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def split(pattern: str) -> Any:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False)
KINDS: dict[str, Any] = {
    "gpt-2": BYTES,
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), BYTES]),
    "llama-bpe": split(_LLAMA3),
    "qwen2": split(_QWEN2),
}


def trained(kind: str) -> tokenizers.Tokenizer:
    """Train a BPE on the texts with the library's own classes."""
    made = tokenizers.Tokenizer(models.BPE(ignore_merges=kind == "llama-bpe"))
    made.pre_tokenizer = KINDS[kind]
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=700, initial_alphabet=alphabet, special_tokens=["<|end|>"], show_progress=False
    )
    made.train_from_iterator(TEXTS, trainer)
    return made


def fields_of(made: tokenizers.Tokenizer, kind: str) -> dict[str, Any]:
    """What a converter to GGUF writes of a byte-level BPE."""
    model = json.loads(made.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": kind,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.bos_token_id": tokens.index("<|end|>"),
        "tokenizer.ggml.token_type": [3 if token == "<|end|>" else 1 for token in tokens],
        "tokenizer.ggml.merges": [
            pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]
        ],
    }


@pytest.mark.parametrize("kind", KINDS)
def test_byte_level_kinds(kind: str, tmp_path: Path) -> None:
    peer = trained(kind)
    fields = fields_of(peer, kind)
    inside = read_tokenizer(lambda key, default=None: fields.get(key, default), tmp_path)
    (tmp_path / "tokenizer.json").write_text(peer.to_str())
    beside = read_tokenizer_file(tmp_path / "tokenizer.json")
    for ours in (Tokenizer(inside), Tokenizer(beside)):
        for text in TEXTS:
            ids = ours.encode(text, bos=False)
            assert ids == peer.encode(text).ids
            assert ours.decode(ids) == text


def test_sentence_pieces(tmp_path: Path) -> None:
    _, peer = train_pieces(tmp_path)
    ids = range(peer.get_piece_size())

    def kind(index: int) -> int:
        if peer.is_unknown(index):
            return 2
        if peer.is_control(index):
            return 3
        return 6 if peer.is_byte(index) else 1

    fields = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [peer.id_to_piece(index) for index in ids],
        "tokenizer.ggml.scores": [peer.get_score(index) for index in ids],
        "tokenizer.ggml.token_type": [kind(index) for index in ids],
        "tokenizer.ggml.bos_token_id": peer.bos_id(),
        "tokenizer.ggml.eos_token_id": peer.eos_id(),
    }
    ours = Tokenizer(read_tokenizer(lambda key, default=None: fields.get(key, default), tmp_path))
    for text in TEXTS:
        assert ours.encode(text) == [peer.bos_id(), *peer.encode(text)]
