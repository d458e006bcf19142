"""Text to token ids and back, and chat prompts. No torch.

Every tokenizer becomes a `tokenizer.json` of the `tokenizers` library, whatever it came from.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import jinja2.sandbox
from tokenizers import Tokenizer as RustTokenizer

from farm.core.errors import ExportError
from models.checkpoint import TokenizerData


class Tokenizer:
    """A tokenizer with the rules of its model."""

    def __init__(self, data: TokenizerData) -> None:
        self.data = data
        try:
            self._inner = RustTokenizer.from_str(data.json)
        except Exception as error:  # the library raises bare Exception for a bad file
            raise ExportError(f"this tokenizer can't be read: {error}") from error

    @property
    def vocab_size(self) -> int:
        """Number of ids, special ones included."""
        return int(self._inner.get_vocab_size(with_added_tokens=True))

    def token_id(self, text: str) -> int | None:
        """Id of a token by its text; None when there is none."""
        found = self._inner.token_to_id(text) if text else None
        return None if found is None else int(found)

    def adds_first(self, token_id: int) -> bool:
        """Whether the file itself puts this token before every text."""
        return bool(self._inner.encode("a", add_special_tokens=True).ids[:1] == [token_id])

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

    def chat(self, user: str) -> list[int]:
        """Return token ids of a user's message in the model's chat format.

        A model without one gets the plain text.

        Raises:
            ExportError: The template is broken.
        """
        if self.data.chat_template is None:
            return self.encode(user)
        text = render_chat(self.data, [{"role": "user", "content": user}])
        starts = bool(self.data.bos_token) and text.startswith(self.data.bos_token)
        return self.encode(text, bos=False if starts else None)

    def chat_text(self, user: str) -> str:
        """Return a user's message in the model's chat format, for runners that tokenise.

        BOS is left out: it is their rule to put it there.

        Raises:
            ExportError: The template is broken.
        """
        if self.data.chat_template is None:
            return user
        text = render_chat(self.data, [{"role": "user", "content": user}])
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


def render_chat(data: TokenizerData, messages: list[dict[str, str]]) -> str:
    """Fill the chat template, with room for the reply.

    Raises:
        ExportError: The template is broken or refuses the messages.
    """
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda _format: "26 Jul 2024"
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, indent=indent)
    try:
        return environment.from_string(data.chat_template or "").render(
            messages=messages,
            add_generation_prompt=True,
            bos_token=data.bos_token,
            eos_token=data.eos_token,
        )
    except jinja2.TemplateError as error:
        raise ExportError(f"the model's chat template can't be used: {error}") from error


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
