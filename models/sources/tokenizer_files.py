"""Tokenizer files as models bring them: tokenizer.json, tiktoken (Llama 3), SentencePiece."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from farm.core.errors import ExportError
from models.checkpoint import TokenizerData
from models.sources.gguf_tokenizer import LLAMA3, sentence_piece_json
from models.tokenizer import Tokenizer, bpe_json, byte_alphabet

#: Files of a folder that decide how text becomes ids, in order of preference.
TOKENIZER_NAMES = ("tokenizer.json", "tokenizer.model")
#: Files beside them with BOS, stop ids and the chat format.
RULE_NAMES = (
    "tokenizer_config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)


def find_tokenizer(folder: Path) -> Path:
    """Return the tokenizer file of a model folder.

    Raises:
        ExportError: There is none.
    """
    for name in TOKENIZER_NAMES:
        if (folder / name).is_file():
            return folder / name
    raise ExportError(
        f"{folder}: no tokenizer ({' or '.join(TOKENIZER_NAMES)}); put it there or give"
        " `tokenizer: FILE`"
    )


def read_tokenizer_file(path: Path) -> TokenizerData:
    """Read a tokenizer and the rules in the files beside it.

    Raises:
        ExportError: It can't be read or is of an unknown kind.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ExportError(f"can't read the tokenizer {path}: {error.strerror}") from error
    if data.lstrip()[:1] == b"{":
        return _from_json(path, data.decode("utf-8", errors="replace"))
    if _is_tiktoken(data):
        return _from_tiktoken(data)
    return _from_sentencepiece(path)


def _from_json(path: Path, content: str) -> TokenizerData:
    rules = {name: _load_json(path.parent / name) for name in RULE_NAMES[:3]}
    config = rules["special_tokens_map.json"] | rules["tokenizer_config.json"]
    bos, eos = (_token_text(config.get(name)) for name in ("bos_token", "eos_token"))
    plain = Tokenizer(TokenizerData(content, None, add_bos=False, stop_ids=(), chat_template=None))
    bos_id, eos_id = plain.token_id(bos), plain.token_id(eos)
    stops = _numbers(rules["generation_config.json"].get("eos_token_id"))
    stops |= {eos_id} if eos_id is not None else set()
    if not stops:
        stops |= {plain.token_id(name) for name in ("</s>", "<|endoftext|>")} - {None}
    template = _read_text(path.parent / "chat_template.jinja") or _template(config)
    return TokenizerData(
        json=content,
        bos_id=bos_id,
        add_bos=bos_id is not None and plain.adds_first(bos_id),
        stop_ids=tuple(sorted(stop for stop in stops if stop is not None)),
        chat_template=template,
        bos_token=bos,
        eos_token=eos,
    )


def _template(config: dict[str, Any]) -> str | None:
    found = config.get("chat_template")
    if isinstance(found, list):
        named = {item.get("name"): item.get("template") for item in found}
        found = named.get("default") or next(iter(named.values()), None)
    return found if isinstance(found, str) else None


def _token_text(value: Any) -> str:
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else ""


def _numbers(value: Any) -> set[int | None]:
    if isinstance(value, int):
        return {value}
    return {item for item in value if isinstance(item, int)} if isinstance(value, list) else set()


def _load_json(path: Path) -> dict[str, Any]:
    text = _read_text(path)
    if text is None:
        return {}
    try:
        data = json.loads(text)
    except ValueError as error:
        raise ExportError(f"{path}: not JSON: {error}") from error
    return data if isinstance(data, dict) else {}


def _read_text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(f"can't read {path}: {error}") from error


def _is_tiktoken(data: bytes) -> bool:
    first = data.split(b"\n", 1)[0].split(b" ")
    return len(first) == 2 and first[1].strip().isdigit()


#: Special tokens of Llama 3 in id order after the ranks; the gaps are reserved names.
_LLAMA3_SPECIAL = {
    0: "<|begin_of_text|>",
    1: "<|end_of_text|>",
    4: "<|finetune_right_pad_id|>",
    5: "<|step_id|>",
    6: "<|start_header_id|>",
    7: "<|end_header_id|>",
    8: "<|eom_id|>",
    9: "<|eot_id|>",
    10: "<|python_tag|>",
}
_LLAMA3_CHAT = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message['role'] }}"
    "<|end_header_id|>\n\n{{ message['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)


def _from_tiktoken(data: bytes) -> TokenizerData:
    ranks: dict[bytes, int] = {}
    for line in data.splitlines():
        if line.strip():
            token, rank = line.split()
            ranks[base64.b64decode(token)] = int(rank)
    special, reserved = {}, 0
    for index in range(256):
        name = _LLAMA3_SPECIAL.get(index)
        if name is None:
            name = f"<|reserved_special_token_{reserved}|>"
            reserved += 1
        special[name] = len(ranks) + index
    alphabet = byte_alphabet()

    def shown(token: bytes) -> str:
        return "".join(alphabet[byte] for byte in token)

    content = bpe_json(
        {shown(token): rank for token, rank in ranks.items()},
        [(shown(left), shown(right)) for left, right in _merges(ranks)],
        special=special,
        pre_tokenizer=LLAMA3,
        ignore_merges=True,
    )
    first = len(ranks)
    return TokenizerData(
        json=content,
        bos_id=first,
        add_bos=True,
        stop_ids=(first + 1, first + 8, first + 9),
        chat_template=_LLAMA3_CHAT,
        bos_token="<|begin_of_text|>",
        eos_token="<|end_of_text|>",
    )


def _merges(ranks: dict[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    """The pair that made each token: what its bytes join to when it isn't allowed itself."""
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) == 1:
            continue
        parts = [token[index : index + 1] for index in range(len(token))]
        while len(parts) > 2:
            pairs = [ranks.get(a + b, rank) for a, b in itertools.pairwise(parts)]
            best = min(pairs)
            if best >= rank:
                break
            index = pairs.index(best)
            parts[index : index + 2] = [parts[index] + parts[index + 1]]
        if len(parts) == 2:
            yield parts[0], parts[1]


def _from_sentencepiece(path: Path) -> TokenizerData:
    try:
        import sentencepiece
    except ImportError as error:
        raise ExportError(f"{path}: install sentencepiece to read this tokenizer") from error
    try:
        model = sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError) as error:
        raise ExportError(f"{path}: not a tokenizer of a known kind ({error})") from error
    ids = range(model.get_piece_size())
    vocab = {model.id_to_piece(index): index for index in ids}
    special = {
        model.id_to_piece(index): index
        for index in ids
        if model.is_control(index) or model.is_unknown(index)
    }
    pieces = [
        (model.id_to_piece(index), model.get_score(index))
        for index in ids
        if not (model.is_control(index) or model.is_unknown(index) or model.is_byte(index))
    ]
    bos, eos = model.bos_id(), model.eos_id()
    return TokenizerData(
        json=sentence_piece_json(vocab, pieces, special, space_prefix=True),
        bos_id=bos if bos >= 0 else None,
        add_bos=bos >= 0,
        stop_ids=(eos,) if eos >= 0 else (),
        chat_template=None,
        bos_token=model.id_to_piece(bos) if bos >= 0 else "",
        eos_token=model.id_to_piece(eos) if eos >= 0 else "",
    )
