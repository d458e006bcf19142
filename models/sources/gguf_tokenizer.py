"""The tokenizer inside a GGUF, rebuilt as `tokenizer.json`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
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
QWEN2 = split_pattern(_QWEN2_PATTERN)
_DIGITS = {
    "type": "Sequence",
    "pretokenizers": [{"type": "Digits", "individual_digits": True}, BYTE_LEVEL],
}

#: Pre-tokenizer by the name that a GGUF gives it. Neither a missing one nor `default` is here:
#: llama.cpp cuts by a pattern of its own then, which is no model's.
PRE_TOKENIZERS: dict[str, dict[str, Any]] = {
    "gpt-2": BYTE_LEVEL,
    "smollm": _DIGITS,
    "llama-bpe": LLAMA3,
    "llama3": LLAMA3,
    "llama-v3": LLAMA3,
    "qwen2": QWEN2,
    "deepseek-r1-qwen": QWEN2,
}
#: Pre-tokenizers with which llama.cpp takes a whole word's token before it merges, and begins a
#: text with BOS unless the file says otherwise.
_LLAMA3_NAMES = ("llama-bpe", "llama3", "llama-v3")

_REMEDY = "give the model's tokenizer.json with `tokenizer: FILE`"

Field = Callable[..., Any]


def read_tokenizer(field: Field, path: Path) -> TokenizerData:
    """Rebuild the tokenizer of a GGUF.

    Args:
        field: Reads a metadata key, with a default.
        path: The file, for error messages.

    Raises:
        ExportError: There is none, or it is of a kind that isn't known.
    """
    model = field("tokenizer.ggml.model")
    if model is None:
        raise ExportError(f"{path}: no tokenizer inside; {_REMEDY}")
    tokens = _values(field, "tokens", (str,), path)
    if not tokens:
        raise ExportError(f"{path}: the tokenizer inside has no tokens; {_REMEDY}")
    kinds = _values(field, "token_type", (int,), path) or [1] * len(tokens)
    if len(kinds) != len(tokens):
        raise _uneven("token_type", kinds, tokens, path)
    if model == "gpt2":
        content = _byte_level(field, path, tokens, kinds)
    elif model == "llama":
        scores = _values(field, "scores", (int, float), path)
        if len(scores) != len(tokens):
            raise _uneven("scores", scores, tokens, path)
        content = _sentence_pieces(tokens, kinds, scores, field)
    else:
        raise ExportError(
            f"{path}: tokenizer.ggml.model {model!r} isn't supported; gpt2 and llama are. Or"
            f" {_REMEDY}"
        )
    return replace(token_rules(field, path), json=content)


def _values(field: Field, name: str, kinds: tuple[type, ...], path: Path) -> list[Any]:
    """A list of a tokenizer, empty where it is missing.

    Raises:
        ExportError: It isn't one, or an entry is of another kind.
    """
    found = field(f"tokenizer.ggml.{name}")
    if found is None:
        return []
    if not isinstance(found, list) or not all(type(item) in kinds for item in found):
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise ExportError(
            f"{path}: tokenizer.ggml.{name} isn't a list of {wanted}; the file is damaged, or"
            f" {_REMEDY}"
        )
    return found


def _uneven(name: str, found: Sequence[Any], tokens: Sequence[str], path: Path) -> ExportError:
    return ExportError(
        f"{path}: tokenizer.ggml.{name} has {len(found)} entries for {len(tokens)} tokens; the"
        f" file is damaged, or {_REMEDY}"
    )


def token_rules(field: Field, path: Path) -> TokenizerData:
    """Return BOS, stop ids and chat template of a GGUF, with no tokenizer.json.

    Raises:
        ExportError: An id is beyond the tokens, or a rule isn't supported.
    """
    tokens = _values(field, "tokens", (str,), path)
    model, pre = field("tokenizer.ggml.model"), field("tokenizer.ggml.pre")
    # What llama.cpp takes for a SentencePiece tokenizer that doesn't say.
    first = {"bos": 1, "eos": 2} if model == "llama" else {}
    ids: dict[str, int] = {}
    for name in ("bos", "eos", "eot", "eom", "padding", "unknown"):
        value = field(f"tokenizer.ggml.{name}_token_id", first.get(name))
        if value is None:
            continue
        if type(value) is not int or not 0 <= value < (len(tokens) or math.inf):
            raise ExportError(
                f"{path}: tokenizer.ggml.{name}_token_id is {value!r}, there are {len(tokens)}"
                " tokens; the file is damaged"
            )
        ids[name] = value
    template = field("tokenizer.chat_template")
    if template is not None and not isinstance(template, str):
        raise ExportError(f"{path}: tokenizer.chat_template is no text; the file is damaged")
    for name in ("add_bos_token", "add_eos_token"):
        if not isinstance(value := field(f"tokenizer.ggml.{name}", False), bool):
            raise ExportError(
                f"{path}: tokenizer.ggml.{name} is {value!r}, true or false is expected; the file"
                " is damaged"
            )
    if field("tokenizer.ggml.add_eos_token", False):
        raise ExportError(f"{path}: tokenizer.ggml.add_eos_token true isn't supported")
    usual = model == "llama" or pre in [*_LLAMA3_NAMES]
    add_bos = field("tokenizer.ggml.add_bos_token", usual)
    if add_bos and tokens and "bos" not in ids:
        raise ExportError(
            f"{path}: a text begins with BOS here, and tokenizer.ggml.bos_token_id is missing"
        )
    stops = {ids[name] for name in ("eos", "eot", "eom") if name in ids}
    stops |= {tokens.index(name) for name in ("<|eot_id|>", "<|im_end|>") if name in tokens}
    text = {name: tokens[index] for name, index in ids.items() if tokens}
    other = {"pad_token": text.get("padding"), "unk_token": text.get("unknown")}
    return TokenizerData(
        json="",
        bos_id=ids.get("bos"),
        add_bos=bool(add_bos),
        stop_ids=tuple(sorted(stops)),
        chat_template=template,
        bos_token=text.get("bos", ""),
        eos_token=text.get("eos", ""),
        special=tuple((name, value) for name, value in other.items() if value),
    )


def _byte_level(
    field: Callable[..., Any], path: Path, tokens: Sequence[str], kinds: Sequence[int]
) -> str:
    name = field("tokenizer.ggml.pre")
    if not isinstance(name, str) or name not in PRE_TOKENIZERS:
        shown = "is missing" if name is None else f"{name!r} isn't supported"
        raise ExportError(
            f"{path}: tokenizer.ggml.pre: the pre-tokenizer {shown};"
            f" {', '.join(PRE_TOKENIZERS)} are known. Else {_REMEDY}"
        )
    special = {
        token: index
        for index, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind in (_CONTROL, _USER_DEFINED, _UNKNOWN)
    }
    vocab = {token: index for index, token in enumerate(tokens) if token not in special}
    merges = [_pair(merge) for merge in _values(field, "merges", (str,), path)]
    if not merges:
        # A text would be cut into single bytes; llama.cpp doesn't load such a file either.
        raise ExportError(
            f"{path}: tokenizer.ggml.merges is missing, which a tokenizer of model gpt2 needs; the"
            f" file is damaged, or {_REMEDY}"
        )
    return bpe_json(
        vocab,
        merges,
        special=special,
        pre_tokenizer=PRE_TOKENIZERS[name],
        ignore_merges=name in _LLAMA3_NAMES,
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
    return sentence_piece_json(vocab, pieces, special, scheme="each" if prefix else "never")


def metaspace(scheme: str) -> dict[str, Any]:
    """Pre-tokenizer that shows spaces, and puts one before a text by the scheme."""
    return {
        "type": "Metaspace",
        "replacement": "\u2581",
        "prepend_scheme": scheme,
        "split": False,
    }


def sentence_piece_json(
    vocab: dict[str, int],
    pieces: Sequence[tuple[str, float]],
    special: dict[str, int],
    *,
    scheme: str,
) -> str:
    """Write a SentencePiece BPE as `tokenizer.json`.

    `scheme` says where a space is put before a text: `each` before every stretch between special
    tokens (SentencePiece itself and llama.cpp), `first` and `always` as transformers' Metaspace
    has them (not where a stretch starts with a space already), `never` nowhere.

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
    prepend = [{"type": "Prepend", "prepend": "\u2581"}] if scheme == "each" else []
    strip = [] if scheme == "never" else [{"type": "Strip", "content": " ", "start": 1, "stop": 0}]
    base["normalizer"] = {"type": "Sequence", "normalizers": [*prepend, mark]}
    base["pre_tokenizer"] = None
    if scheme in ("first", "always"):
        base["normalizer"] = None
        base["pre_tokenizer"] = metaspace(scheme)
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
