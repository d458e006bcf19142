"""The tokenizer inside a GGUF, rebuilt as `tokenizer.json`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from farm.core.errors import ExportError
from models.checkpoint import TokenizerData
from models.tokenizer import BYTE_LEVEL, bpe_json

#: Values of `tokenizer.ggml.token_type`.
_CONTROL, _USER_DEFINED, _UNKNOWN, _BYTE = 3, 4, 2, 6

_LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2_PATTERN = _LLAMA3_PATTERN.replace(r"\p{N}{1,3}", r"\p{N}")


def split_pattern(pattern: str) -> dict[str, Any]:
    """Pre-tokenizer that cuts by a pattern and then goes to bytes."""
    cut = {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }
    return {"type": "Sequence", "pretokenizers": [cut, {**BYTE_LEVEL, "use_regex": False}]}


LLAMA3 = split_pattern(_LLAMA3_PATTERN)
_DIGITS = {
    "type": "Sequence",
    "pretokenizers": [{"type": "Digits", "individual_digits": True}, BYTE_LEVEL],
}

#: Pre-tokenizer by the name that a GGUF gives it.
PRE_TOKENIZERS: dict[str, dict[str, Any]] = {
    "default": BYTE_LEVEL,
    "gpt-2": BYTE_LEVEL,
    "smollm": _DIGITS,
    "llama-bpe": LLAMA3,
    "llama3": LLAMA3,
    "qwen2": split_pattern(_QWEN2_PATTERN),
}


def read_tokenizer(field: Callable[..., Any], path: Path) -> TokenizerData:
    """Rebuild the tokenizer of a GGUF.

    Args:
        field: Reads a metadata key, with a default.
        path: The file, for error messages.

    Raises:
        ExportError: There is none, or it is of a kind that isn't known.
    """
    model = field("tokenizer.ggml.model")
    if model is None:
        raise ExportError(f"{path}: no tokenizer inside; give one with `tokenizer: FILE`")
    tokens, kinds = field("tokenizer.ggml.tokens"), field("tokenizer.ggml.token_type")
    if not tokens:
        raise ExportError(f"{path}: the tokenizer inside has no tokens")
    kinds = kinds or [1] * len(tokens)
    if model == "gpt2":
        content = _byte_level(field, path, tokens, kinds)
    elif model == "llama":
        content = _sentence_pieces(tokens, kinds, field("tokenizer.ggml.scores") or [], field)
    else:
        raise ExportError(f"{path}: tokenizer model {model!r} isn't supported; gpt2 and llama are")
    return _with_rules(field, tokens, content, model)


def _with_rules(
    field: Callable[..., Any], tokens: Sequence[str], content: str, model: str
) -> TokenizerData:
    bos, eos = field("tokenizer.ggml.bos_token_id"), field("tokenizer.ggml.eos_token_id")
    stops = [eos, field("tokenizer.ggml.eot_token_id"), field("tokenizer.ggml.eom_token_id")]
    stops += [tokens.index(name) for name in ("<|eot_id|>", "<|im_end|>") if name in tokens]
    return TokenizerData(
        json=content,
        bos_id=None if bos is None else int(bos),
        add_bos=bool(field("tokenizer.ggml.add_bos_token", model == "llama")),
        stop_ids=tuple(sorted({int(stop) for stop in stops if stop is not None})),
        chat_template=field("tokenizer.chat_template"),
        bos_token="" if bos is None else tokens[int(bos)],
        eos_token="" if eos is None else tokens[int(eos)],
    )


def _byte_level(
    field: Callable[..., Any], path: Path, tokens: Sequence[str], kinds: Sequence[int]
) -> str:
    name = field("tokenizer.ggml.pre", "default")
    if name not in PRE_TOKENIZERS:
        raise ExportError(
            f"{path}: pre-tokenizer {name!r} isn't supported; {', '.join(PRE_TOKENIZERS)} are."
            " Give the model's tokenizer.json with `tokenizer: FILE`"
        )
    special = {
        token: index
        for index, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind in (_CONTROL, _USER_DEFINED, _UNKNOWN)
    }
    vocab = {token: index for index, token in enumerate(tokens) if token not in special}
    merges = [_pair(merge) for merge in field("tokenizer.ggml.merges", [])]
    return bpe_json(
        vocab,
        merges,
        special=special,
        pre_tokenizer=PRE_TOKENIZERS[name],
        ignore_merges=name in ("llama-bpe", "llama3"),
    )


def _pair(merge: str) -> tuple[str, str]:
    left, _, right = merge.partition(" ")
    return left, right


def _sentence_pieces(
    tokens: Sequence[str],
    kinds: Sequence[int],
    scores: Sequence[float],
    field: Callable[..., Any],
) -> str:
    special = {
        token: index
        for index, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind in (_CONTROL, _UNKNOWN, _USER_DEFINED)
    }
    vocab = {token: index for index, token in enumerate(tokens)}
    pieces = [
        (token, score)
        for token, kind, score in zip(tokens, kinds, scores, strict=True)
        if kind not in (_CONTROL, _UNKNOWN, _BYTE)
    ]
    prefix = bool(field("tokenizer.ggml.add_space_prefix", True))
    return sentence_piece_json(vocab, pieces, special, space_prefix=prefix)


def sentence_piece_json(
    vocab: dict[str, int],
    pieces: Sequence[tuple[str, float]],
    special: dict[str, int],
    *,
    space_prefix: bool,
) -> str:
    """Write a SentencePiece BPE as `tokenizer.json`.

    SentencePiece joins the pair whose result has the best score; as merges that is every split
    of a piece into two pieces, ordered by the score of the whole.
    """
    known = {piece for piece, _ in pieces}
    merges: list[tuple[float, int, int, str, str]] = []
    for piece, score in pieces:
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in known and right in known:
                merges.append((-score, vocab[left], vocab[right], left, right))
    merges.sort()
    base = json.loads(
        bpe_json(
            {token: index for token, index in vocab.items() if token not in special},
            [(left, right) for *_, left, right in merges],
            special=special,
            pre_tokenizer=BYTE_LEVEL,
        )
    )
    mark = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    prepend = [{"type": "Prepend", "prepend": "\u2581"}] if space_prefix else []
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if space_prefix else []
    base["normalizer"] = {"type": "Sequence", "normalizers": [*prepend, mark]}
    base["pre_tokenizer"] = None
    base["decoder"] = {
        "type": "Sequence",
        "decoders": [
            {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            *strip,
        ],
    }
    base["model"]["byte_fallback"] = True
    base["model"]["fuse_unk"] = True
    unknown = [token for token in special if token in ("<unk>", "<UNK>")]
    base["model"]["unk_token"] = unknown[0] if unknown else None
    return json.dumps(base, ensure_ascii=False, separators=(",", ":"))
