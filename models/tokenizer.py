"""Text to token ids and back, and chat prompts. No torch.

Every tokenizer becomes a `tokenizer.json` of the `tokenizers` library, whatever it came from.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as RustTokenizer

from farm.core.errors import ExportError
from models.chat import render_chat
from models.checkpoint import TokenizerData


class Tokenizer:
    """A tokenizer with the rules of its model."""

    def __init__(self, data: TokenizerData) -> None:
        self.data = data
        try:
            self._inner = RustTokenizer.from_str(data.json)
        except Exception as error:  # the library raises bare Exception for a bad file
            raise ExportError(f"this tokenizer can't be read: {error}") from error
        # What a training script left in the file: nobody pads or cuts a text without being asked.
        self._inner.no_padding()
        self._inner.no_truncation()

    @property
    def vocab_size(self) -> int:
        """Number of ids, special ones included."""
        return int(self._inner.get_vocab_size(with_added_tokens=True))

    def token_id(self, text: str) -> int | None:
        """Id of a token by its text; None when there is none."""
        found = self._inner.token_to_id(text) if text else None
        return None if found is None else int(found)

    @property
    def last(self) -> tuple[str, int]:
        """Text and id of the token with the highest id."""
        vocab: dict[str, int] = self._inner.get_vocab(with_added_tokens=True)
        return max(vocab.items(), key=lambda item: item[1], default=("", -1))

    def token_text(self, token_id: int) -> str:
        """Text of a token by its id."""
        return str(self._inner.id_to_token(token_id) or "")

    def added(self) -> dict[str, AddedToken]:
        """Tokens that are found in a text before anything else, by their text."""
        decoder = self._inner.get_added_tokens_decoder()
        return {str(token.content): token for token in decoder.values()}

    @property
    def is_random(self) -> bool:
        """Whether merges are left out by chance, as in training."""
        return bool(getattr(self._inner.model, "dropout", None))

    def with_added(self, tokens: Sequence[AddedToken]) -> str:
        """Return the `tokenizer.json` with some tokens more; new ones get the next ids."""
        self._inner.add_tokens(list(tokens))
        return str(self._inner.to_str())

    def around(self) -> tuple[list[int], list[int]]:
        """Ids that the file itself puts before and after every text."""
        plain = list(self._inner.encode("a", add_special_tokens=False).ids)
        whole = list(self._inner.encode("a", add_special_tokens=True).ids)
        for start in range(len(whole) - len(plain) + 1):
            if whole[start : start + len(plain)] == plain:
                return whole[:start], whole[start + len(plain) :]
        raise ExportError("this tokenizer's post_processor changes more than both ends of a text")

    def encode(self, text: str, *, bos: bool | None = None) -> list[int]:
        """Return token ids of a text.

        Args:
            text: Any text; names of special tokens in it become those tokens.
            bos: Whether BOS comes first; None follows the model's rule.
        """
        ids = list(self._inner.encode(text, add_special_tokens=False).ids)
        wanted = self.data.add_bos if bos is None else bos
        if wanted and self.data.bos_id is not None and ids[:1] != [self.data.bos_id]:
            ids.insert(0, self.data.bos_id)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids, special tokens left out."""
        return str(self._inner.decode(list(ids), skip_special_tokens=True))

    def chat(self, user: str, day: datetime | None = None) -> list[int]:
        """Return token ids of a user's message in the model's chat format, on a `day` or today.

        A model without one gets the plain text.

        Raises:
            ExportError: The template is broken.
        """
        if self.data.chat_template is None:
            return self.encode(user)
        # The template says all that a prompt has: no BOS beyond the one that it prints.
        text = render_chat(self.data, [{"role": "user", "content": user}], day)
        return self.encode(text, bos=False)

    def chat_text(self, user: str, day: datetime | None = None) -> str:
        """Return a user's message in the model's chat format, for runners that tokenise.

        BOS is left out: it is their rule to put it there.

        Raises:
            ExportError: The template is broken.
        """
        if self.data.chat_template is None:
            return user
        text = render_chat(self.data, [{"role": "user", "content": user}], day)
        return text.removeprefix(self.data.bos_token) if self.data.add_bos else text


def bare_tokenizer(path: Path) -> Tokenizer:
    """Open a `tokenizer.json` without the rules of its model: no BOS, no chat.

    Raises:
        ExportError: The file can't be read or isn't a tokenizer.
    """
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(f"can't read the tokenizer {path}: {error}") from error
    return Tokenizer(TokenizerData(content, None, add_bos=False, stop_ids=(), chat_template=None))


@lru_cache(maxsize=4)
def last_token(content: str) -> tuple[str, int]:
    """Text and id of the token with the highest id in a `tokenizer.json`."""
    data = TokenizerData(content, None, add_bos=False, stop_ids=(), chat_template=None)
    return Tokenizer(data).last


def byte_alphabet() -> list[str]:
    """The 256 printable characters that stand for bytes in byte-level BPE, in byte order."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = iter(range(256, 512))
    return [chr(byte) if byte in shown else chr(next(moved)) for byte in range(256)]


#: Pre-tokenizer of GPT-2: its word pattern, then bytes.
BYTE_LEVEL: dict[str, Any] = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": True,
    "use_regex": True,
}

#: Frequent pairs of English letters: enough merges to make short texts shorter.
_LETTERS = (
    "thheineranreonatenndtiesorteofedisitalarsttontngsehaasouiole"
    "vecomedehiriroicneearacelichllbemasiomur"
)
_PAIRS = tuple(_LETTERS[index : index + 2] for index in range(0, len(_LETTERS), 2))
_STARTS = "taoiswcbphfmdrelngu"


def byte_tokenizer(vocab: int) -> TokenizerData:
    """A byte-level tokenizer of exactly `vocab` ids that encodes any text; made, not trained.

    Raises:
        ExportError: `vocab` is too small for 256 bytes, the merges and four special tokens.
    """
    special = ["<|bos|>", "<|eos|>", "<|user|>", "<|assistant|>"]
    space = byte_alphabet()[ord(" ")]
    merges = [(space, letter) for letter in _STARTS] + [(pair[0], pair[1]) for pair in _PAIRS]
    pieces = byte_alphabet() + ["".join(pair) for pair in merges]
    spare = vocab - len(pieces) - len(special)
    if spare < 0:
        raise ExportError(f"a seeded model needs a vocabulary of at least {vocab - spare}")
    special += [f"<|spare{index}|>" for index in range(spare)]
    content = bpe_json(
        {piece: index for index, piece in enumerate(pieces)},
        merges,
        special={text: len(pieces) + index for index, text in enumerate(special)},
        pre_tokenizer=BYTE_LEVEL,
    )
    template = (
        "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>"
        "{{ message['content'] }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    first = len(pieces)
    return TokenizerData(
        json=content,
        bos_id=first,
        add_bos=True,
        stop_ids=(first + 1,),
        chat_template=template,
        bos_token=special[0],
        eos_token=special[1],
    )


def bpe_json(
    vocab: dict[str, int],
    merges: Sequence[tuple[str, str]],
    *,
    special: dict[str, int],
    pre_tokenizer: dict[str, Any],
    ignore_merges: bool = False,
) -> str:
    """Write a byte-level BPE as `tokenizer.json`."""
    added = [
        {
            "id": index,
            "content": text,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for text, index in sorted(special.items(), key=lambda item: item[1])
    ]
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": ignore_merges,
        "vocab": {**vocab, **special},
        "merges": [list(pair) for pair in merges],
    }
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": added,
            "normalizer": None,
            "pre_tokenizer": pre_tokenizer,
            "post_processor": None,
            "decoder": {
                "type": "ByteLevel",
                "add_prefix_space": True,
                "trim_offsets": True,
                "use_regex": True,
            },
            "model": model,
        },
        ensure_ascii=False,
        separators=(",", ":"),
    )
