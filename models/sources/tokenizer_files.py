"""Tokenizer files as models bring them: tokenizer.json, tiktoken (Llama 3), SentencePiece."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from farm.core.errors import ExportError
from models.checkpoint import TokenizerData
from models.sources.config_values import read_json
from models.sources.files import refuse_lfs_pointer
from models.sources.hf_config import eos_ids as eos_numbers
from models.sources.hf_tokenizer_class import LLAMA, as_transformers, token_text
from models.sources.sentencepiece_file import Pieces, read_pieces
from models.sources.tiktoken_file import is_tiktoken, read_tiktoken
from models.tokenizer import Tokenizer

#: Files of a folder that decide how text becomes ids, in order of preference.
TOKENIZER_NAMES = ("tokenizer.json", "tokenizer.model")
#: Files beside them with BOS, stop ids and the chat format.
RULE_NAMES = (
    "tokenizer_config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "additional_chat_templates/default.jinja",
    "added_tokens.json",
    # Which class of transformers opens the file.
    "config.json",
)
#: Tokens that have a name of their own in tokenizer_config.json.
_NAMED = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
#: How an added token is found in a text.
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def find_tokenizer(folder: Path) -> Path:
    """Return the tokenizer file of a model folder.

    Raises:
        ExportError: There is none.
    """
    for name in TOKENIZER_NAMES:
        if (folder / name).is_file() or (folder / name).is_symlink():
            return folder / name
    old = " (vocab.json and merges.txt are not read: save tokenizer.json with AutoTokenizer)"
    raise ExportError(
        f"{folder}: no tokenizer ({' or '.join(TOKENIZER_NAMES)}); put it there or give"
        f" `tokenizer: FILE`{old if (folder / 'vocab.json').is_file() else ''}"
    )


def rule_files(tokenizer: Path) -> list[Path]:
    """Files beside a tokenizer that decide how it is used."""
    return [path for name in RULE_NAMES if (path := tokenizer.parent / name).is_file()]


def read_tokenizer_file(path: Path, eos_ids: tuple[int, ...] | None = None) -> TokenizerData:
    """Read a tokenizer and the rules in the files beside it.

    Args:
        path: tokenizer.json, or a tokenizer.model of Llama 2 (SentencePiece) or 3 (tiktoken).
        eos_ids: Ids that end a reply where generation_config.json has none.

    Raises:
        ExportError: It can't be read, is of an unknown kind, or a rule isn't known.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ExportError(f"can't read the tokenizer {path}: {error.strerror}") from error
    refuse_lfs_pointer(data, path)
    rules = _read_rules(path)
    if data.lstrip()[:1] == b"{":
        try:
            content, notes = as_transformers(data.decode("utf-8"), rules.config, rules.model, path)
            return replace(_with_rules(path, content, rules, eos_ids, None), notes=notes)
        except UnicodeDecodeError as error:
            raise ExportError(f"{path}: not UTF-8: {error}") from error
    if is_tiktoken(data):
        if rules.known:
            raise ExportError(
                f"{path}: a tiktoken file beside tokenizer_config.json: which special tokens it has"
                " isn't known; save tokenizer.json with transformers (AutoTokenizer)"
            )
        return read_tiktoken(data, path)
    return _from_sentencepiece(path, data, rules, eos_ids)


@dataclass(frozen=True, slots=True)
class _Rules:
    """What the files beside a tokenizer say."""

    #: tokenizer_config.json over special_tokens_map.json.
    config: dict[str, Any]
    generation: dict[str, Any]
    #: Content of chat_template.jinja, which wins over the config's.
    template: str | None
    #: added_tokens.json: text to id.
    added: dict[str, Any]
    #: config.json.
    model: dict[str, Any]

    @property
    def known(self) -> bool:
        """Whether the folder says anything about the tokenizer."""
        return bool(self.config or self.added)


def _read_rules(path: Path) -> _Rules:
    files = {item.name: item for item in rule_files(path)}

    def read(name: str) -> dict[str, Any]:
        return read_json(files[name]) if name in files else {}

    template = files.get("chat_template.jinja", files.get("default.jinja"))
    try:
        text = None if template is None else template.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(f"can't read {template}: {error}") from error
    return _Rules(
        read("special_tokens_map.json") | read("tokenizer_config.json"),
        read("generation_config.json"),
        text,
        read("added_tokens.json"),
        read("config.json"),
    )


def _with_rules(
    path: Path,
    content: str,
    rules: _Rules,
    eos_ids: tuple[int, ...] | None,
    pieces: Pieces | None,
) -> TokenizerData:
    """Put rules to a tokenizer; `pieces` are a SentencePiece file's own, None for tokenizer.json.

    A tokenizer.json says itself what is put around a text: transformers doesn't ask add_bos_token
    of tokenizer_config.json then.
    """
    bare = TokenizerData(content, None, add_bos=False, stop_ids=(), chat_template=None)
    try:
        plain = Tokenizer(bare)
        before, after = plain.around()
    except ExportError as error:
        raise ExportError(f"{path}: {error.message}") from error
    if plain.is_random:
        raise ExportError(
            f"{path}: model.dropout leaves out merges by chance, so a text has other ids each time;"
            " set it to null"
        )
    content = _add_tokens(plain, content, rules, path)
    if rules.config.get("split_special_tokens"):
        raise ExportError(
            f"{path.parent / 'tokenizer_config.json'}: split_special_tokens true isn't supported:"
            " names of special tokens in a text would be plain text"
        )
    if rules.config.get("fix_mistral_regex"):
        raise ExportError(
            f"{path.parent / 'tokenizer_config.json'}: fix_mistral_regex true isn't supported:"
            " transformers cuts texts by another pattern then. Save the tokenizer with it"
        )
    named = {name: token_text(rules.config.get(name)) for name in _NAMED}
    if pieces is not None:
        for name, index in (("bos_token", pieces.bos), ("eos_token", pieces.eos)):
            named[name] = named[name] or (pieces.tokens[index] if index >= 0 else "")
    bos_id, eos_id = plain.token_id(named["bos_token"]), plain.token_id(named["eos_token"])
    if after or before[1:]:
        texts = [plain.token_text(token) for token in (*before, *after)]
        raise ExportError(
            f"{path}: post_processor puts {texts} around a text; only one token before it is"
            " supported (add_eos_token false)"
        )
    if before:
        bos_id = before[0]
        named["bos_token"] = named["bos_token"] or plain.token_text(bos_id)
    add_bos = bool(before) if pieces is None else _adds_bos(rules, bos_id, path)
    generation = path.parent / "generation_config.json"
    asked = eos_numbers(rules.generation, generation)
    stops = set(asked if asked is not None else eos_ids or ())
    stops |= {eos_id} if eos_id is not None else set()
    if not stops:
        found = (plain.token_id(name) for name in ("</s>", "<|endoftext|>"))
        stops = {stop for stop in found if stop is not None}
    return TokenizerData(
        json=content,
        bos_id=bos_id,
        add_bos=add_bos,
        stop_ids=tuple(sorted(stops)),
        chat_template=_template(rules, path),
        bos_token=named.pop("bos_token"),
        eos_token=named.pop("eos_token"),
        special=tuple((name, text) for name, text in named.items() if text),
    )


def _adds_bos(rules: _Rules, bos_id: int | None, path: Path) -> bool:
    """Whether a SentencePiece tokenizer begins a text with BOS."""
    if rules.config.get("add_eos_token"):
        raise ExportError(
            f"{path.parent / 'tokenizer_config.json'}: add_eos_token true isn't supported"
        )
    if not rules.config:
        return bos_id is not None
    value = rules.config.get("add_bos_token")
    if not isinstance(value, bool):
        raise ExportError(
            f"{path.parent / 'tokenizer_config.json'}: add_bos_token is {value!r}; transformers 4"
            " begins a text with BOS then, 5 doesn't. Say true or false"
        )
    return value and bos_id is not None


def _add_tokens(plain: Tokenizer, content: str, rules: _Rules, path: Path) -> str:
    """Add the tokens that only the config knows, as transformers does; returns tokenizer.json.

    Raises:
        ExportError: A token would get another id than the files say.
    """
    wanted: dict[str, tuple[int | None, AddedToken]] = {}
    for index, item in _objects(rules.config, "added_tokens_decoder", path).items():
        if not isinstance(item, dict) or not index.isdecimal() or not token_text(item):
            raise ExportError(
                f"{path.parent / 'tokenizer_config.json'}: added_tokens_decoder.{index} is no token"
            )
        wanted[token_text(item)] = (int(index), _token(item))
    # How these are found in a text is what this file says, also of those that are there already.
    decoder = set(wanted)
    for text, found in rules.added.items():
        wanted.setdefault(text, (found if type(found) is int else None, _special(text)))
    extra: list[Any] = []
    for key in ("additional_special_tokens", "extra_special_tokens"):
        more = rules.config.get(key) or []
        if not isinstance(more, dict | list):
            raise ExportError(
                f"{path.parent / 'tokenizer_config.json'}: {key} is {more!r}, a list of tokens is"
                " expected"
            )
        extra += more.values() if isinstance(more, dict) else more
    for name in (*_NAMED, ""):
        for item in [rules.config.get(name)] if name else extra:
            if text := token_text(item):
                wanted.setdefault(text, (None, _token(item)))
                wanted[text][1].special |= bool(name)
    known = plain.added()
    missing = [
        text
        for text, (_, token) in wanted.items()
        if text not in known or (text in decoder and repr(known[text]) != repr(token))
    ]
    if missing:
        order = sorted(missing, key=lambda text: (wanted[text][0] is None, wanted[text][0] or 0))
        content = plain.with_added([wanted[text][1] for text in order])
    for text, (number, _) in wanted.items():
        if number is not None and plain.token_id(text) != number:
            raise ExportError(
                f"{path}: token {text!r} has id {plain.token_id(text)}, the files beside it say"
                f" {number}; the tokenizer's files belong to different models"
            )
    return content


def _token(item: Any) -> AddedToken:
    """A token with its flags, where it has some."""
    if not isinstance(item, dict):
        return _special(token_text(item))
    flags = {flag: bool(item[flag]) for flag in _FLAGS if flag in item}
    return AddedToken(token_text(item), **flags)


def _special(text: str) -> AddedToken:
    return AddedToken(text, special=True, normalized=False)


def _objects(config: dict[str, Any], key: str, path: Path) -> dict[str, Any]:
    found = config.get(key) or {}
    if not isinstance(found, dict):
        raise ExportError(
            f"{path.parent / 'tokenizer_config.json'}: {key} is a {type(found).__name__}, an"
            " object is expected"
        )
    return found


def _template(rules: _Rules, path: Path) -> str | None:
    """The chat template; of several the one named default, as transformers takes it."""
    found = rules.config.get("chat_template")
    if rules.template is not None or found is None:
        return rules.template
    config = path.parent / "tokenizer_config.json"
    if isinstance(found, list):
        pairs = [item for item in found if isinstance(item, dict)]
        found = {item.get("name"): item.get("template") for item in pairs}
    if isinstance(found, dict):
        if found.get("default") is None:
            raise ExportError(
                f"{config}: chat_template has {', '.join(map(str, found))}, none of them is named"
                " default"
            )
        found = found["default"]
    if not isinstance(found, str):
        raise ExportError(f"{config}: chat_template is {str(found)[:80]!r}, a text is expected")
    return found


def _from_sentencepiece(
    path: Path, data: bytes, rules: _Rules, eos_ids: tuple[int, ...] | None
) -> TokenizerData:
    """Read Llama 2's kind; with a tokenizer_config.json beside it as transformers' class does."""
    scheme = "each"
    if rules.known:
        kind = rules.config.get("tokenizer_class")
        if kind not in (None, LLAMA, f"{LLAMA}Fast"):
            raise ExportError(
                f"{path.parent / 'tokenizer_config.json'}: tokenizer_class {kind!r} isn't read from"
                " tokenizer.model; save tokenizer.json with transformers (AutoTokenizer)"
            )
        if rules.config.get("add_prefix_space") is False:
            raise ExportError(
                f"{path.parent / 'tokenizer_config.json'}: add_prefix_space false isn't supported"
                " for tokenizer.model; save tokenizer.json with transformers (AutoTokenizer)"
            )
        scheme = "always" if rules.config.get("legacy") else "first"
    pieces = read_pieces(data, path, scheme=scheme)
    return _with_rules(path, pieces.json, rules, eos_ids, pieces)
