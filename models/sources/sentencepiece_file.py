"""A SentencePiece model (`tokenizer.model`), read from its protocol buffer by the format's rules.

Only what Llama's files are is taken: BPE, text left as it is, one space before it. Everything
else would give other ids and is refused by its name.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from farm.core.errors import ExportError
from models.sources.gguf_tokenizer import sentence_piece_json

#: Numbers of sentencepiece_model.proto: fields of ModelProto, TrainerSpec and NormalizerSpec.
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_MODEL_TYPE, _SUFFIX, _UNK_ID, _BOS_ID, _EOS_ID = 3, 24, 40, 41, 42
_NAME, _CHARSMAP, _PREFIX, _EXTRA_SPACES, _ESCAPE = 1, 2, 3, 4, 5
#: Values of TrainerSpec.model_type and of SentencePiece.type.
_KINDS = {1: "unigram", 2: "BPE", 3: "word", 4: "char"}
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6

_REMEDY = "save the model's tokenizer.json with transformers (AutoTokenizer), and give that"

Value = int | bytes


@dataclass(frozen=True, slots=True)
class Pieces:
    """A SentencePiece model as `tokenizer.json`, and its special ids; -1 is none."""

    json: str
    bos: int
    eos: int
    tokens: tuple[str, ...]


def read_pieces(data: bytes, path: Path, *, scheme: str) -> Pieces:
    """Read a SentencePiece model.

    Args:
        data: Content of the file.
        path: The file, for error messages.
        scheme: As in `sentence_piece_json`.

    Raises:
        ExportError: It isn't one, or isn't of the kind that Llama's files are.
    """
    try:
        fields = list(_fields(data))
        trainer = dict(_message(fields, _TRAINER))
        normalizer = dict(_message(fields, _NORMALIZER))
        pieces = [_piece(value) for number, value in fields if number == _PIECES]
    except (ValueError, IndexError, struct.error, TypeError) as error:
        raise ExportError(f"{path}: not a tokenizer of a known kind ({error})") from error
    if not pieces:
        raise ExportError(f"{path}: not a tokenizer of a known kind (it has no pieces)")
    _check(trainer, normalizer, pieces, path)
    special = {text: i for i, (text, _, kind) in enumerate(pieces) if kind in (_UNKNOWN, _CONTROL)}
    merged = [(text, score) for text, score, kind in pieces if kind == _NORMAL]
    content = sentence_piece_json(
        {text: index for index, (text, _, _) in enumerate(pieces)},
        merged,
        special,
        scheme=scheme,
    )
    bos, eos = (_signed(trainer.get(key, default)) for key, default in ((_BOS_ID, 1), (_EOS_ID, 2)))
    tokens = tuple(text for text, _, _ in pieces)
    if max(bos, eos) >= len(tokens):
        raise ExportError(f"{path}: bos_id {bos} or eos_id {eos} is beyond {len(tokens)} pieces")
    return Pieces(content, bos, eos, tokens)


def _check(
    trainer: dict[int, Value],
    normalizer: dict[int, Value],
    pieces: list[tuple[str, float, int]],
    path: Path,
) -> None:
    kind = trainer.get(_MODEL_TYPE, 1)
    if kind != 2:
        name = _KINDS.get(kind if isinstance(kind, int) else 0, str(kind))
        raise ExportError(f"{path}: model_type {name} isn't supported, BPE is; {_REMEDY}")
    if normalizer.get(_CHARSMAP):
        rule = normalizer.get(_NAME, b"")
        shown = rule.decode(errors="replace") if isinstance(rule, bytes) else rule
        raise ExportError(f"{path}: the normaliser {shown} changes texts first; {_REMEDY}")
    for field, wanted, key in (
        (_PREFIX, 1, "add_dummy_prefix"),
        (_EXTRA_SPACES, 0, "remove_extra_whitespaces"),
        (_ESCAPE, 1, "escape_whitespaces"),
    ):
        if normalizer.get(field, 1) != wanted:
            raise ExportError(f"{path}: {key} isn't {bool(wanted)}, as Llama has it; {_REMEDY}")
    if trainer.get(_SUFFIX, 0):
        raise ExportError(f"{path}: treat_whitespace_as_suffix isn't supported; {_REMEDY}")
    defined = [text for text, _, kind in pieces if kind == _USER_DEFINED]
    if defined:
        raise ExportError(
            f"{path}: user-defined symbols ({defined[0]!r}) aren't supported; {_REMEDY}"
        )


def _message(fields: list[tuple[int, Value]], number: int) -> Iterator[tuple[int, Value]]:
    """Fields of the embedded messages of one number; the last value of a field counts."""
    for found, value in fields:
        if found == number:
            if not isinstance(value, bytes):
                raise ValueError(f"field {number} is no message")
            yield from _fields(value)


def _piece(value: Value) -> tuple[str, float, int]:
    if not isinstance(value, bytes):
        raise TypeError("a piece is no message")
    fields = dict(_fields(value))
    text, score, kind = fields.get(1, b""), fields.get(2, b"\0\0\0\0"), fields.get(3, _NORMAL)
    if not (isinstance(text, bytes) and isinstance(score, bytes) and isinstance(kind, int)):
        raise TypeError("a piece has fields of another kind")
    return text.decode(), float(struct.unpack("<f", score)[0]), kind


def _fields(data: bytes) -> Iterator[tuple[int, Value]]:
    """Field numbers and values of a message; fixed-width values as their bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire} at byte {at}")
        if at + size > len(data):
            raise ValueError("cut short")
        yield number, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if not byte & 128:
            return value, at
        if shift > 63:
            raise ValueError(f"a number of more than 64 bits at byte {at}")


def _signed(value: Value) -> int:
    """Negative numbers are stored as 64-bit two's complement."""
    if not isinstance(value, int):
        return -1
    return value - (1 << 64) if value >> 63 else value
