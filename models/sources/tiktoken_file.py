"""Llama 3's tokenizer as Meta distributes it: ranks of byte strings in base 64."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterator
from pathlib import Path

from farm.core.errors import ExportError
from models.checkpoint import TokenizerData
from models.sources.gguf_tokenizer import LLAMA3
from models.tokenizer import bpe_json, byte_alphabet


def is_tiktoken(data: bytes) -> bool:
    """Whether a file has lines of a token in base 64 and its rank."""
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


def read_tiktoken(data: bytes, path: Path) -> TokenizerData:
    """Read Llama 3's tokenizer; its special tokens are known, no file says them.

    Raises:
        ExportError: A line is damaged.
    """
    ranks: dict[bytes, int] = {}
    for line in data.splitlines():
        if line.strip():
            try:
                token, rank = line.split()
                ranks[base64.b64decode(token)] = int(rank)
            except ValueError as error:
                raise ExportError(f"{path}: line {len(ranks) + 1} is damaged ({error})") from error
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
