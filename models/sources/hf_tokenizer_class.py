"""Which parts of a tokenizer.json transformers 5 takes, and which its class builds itself.

Most models are opened with the file as it is. A class with a name of its own takes vocabulary,
merges and post_processor from the file and makes how a text is cut anew, whatever the file says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farm.core.errors import ExportError
from models.sources.gguf_tokenizer import QWEN2, metaspace
from models.tokenizer import BYTE_LEVEL

LLAMA = "LlamaTokenizer"
_QWEN, _GEMMA, _GPT2 = "Qwen2Tokenizer", "GemmaTokenizer", "GPT2Tokenizer"
#: The file as it is.
_PLAIN = ""

#: transformers' class for a model_type. It counts where tokenizer_config.json names none or the
#: same; llama and smollm3 have none, so there the name in tokenizer_config.json counts.
_OF_MODEL = {
    **dict.fromkeys(("qwen2", "qwen3"), _QWEN),
    **dict.fromkeys(("gemma2", "gemma3_text"), _GEMMA),
    **dict.fromkeys(("granite", "olmo2", "phi3", "mistral", "ministral"), _PLAIN),
}
#: Models whose own class counts whatever tokenizer_config.json names.
_FIRST = ("qwen2", "phi3")
#: Further classes of transformers that build something of their own, by what their names begin
#: with; a name that it doesn't know is the file as it is.
_OTHERS = (
    *("Albert", "Barthez", "Bert", "BigBird", "Blenderbot", "CLIP", "Camembert", "CodeGen"),
    *("CodeLlama", "Cohere", "Deberta", "Esm", "Funnel", "GPTNeoX", "Herbert", "Layout", "Luke"),
    *("MBart", "MPNet", "Nllb", "OpenAIGPT", "Pegasus", "Qwen3_5", "Reformer", "RemBert"),
    *("Roberta", "SeamlessM4T", "Splinter", "T5", "Whisper", "XGLM", "XLM", "XLNet"),
)
#: Normalizer of Llama 2's older files.
_EACH = {
    "type": "Sequence",
    "normalizers": [
        {"type": "Prepend", "prepend": "\u2581"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
    ],
}


@dataclass(frozen=True, slots=True)
class _Built:
    """What a class makes anew."""

    normalizer: dict[str, Any] | None
    pre_tokenizer: dict[str, Any]
    #: Of the BPE.
    byte_fallback: bool
    fuse_unk: bool
    #: Token of what has none; empty is none.
    unknown: str = ""


def as_transformers(
    content: str, rules: Mapping[str, Any], model: Mapping[str, Any], path: Path
) -> tuple[str, tuple[str, ...]]:
    """Return a tokenizer.json that cuts texts as transformers does, and a note where it changed.

    Args:
        content: The file.
        rules: tokenizer_config.json.
        model: config.json beside it.
        path: The file, for error messages.

    Raises:
        ExportError: transformers' class isn't known here, or the file isn't one of its kind.
    """
    name = _class(rules, model, byte_level='"ByteLevel"' in content)
    if name == _PLAIN:
        return content, ()
    try:
        data = json.loads(content)
        kind = data["model"]["type"]
    except (ValueError, KeyError, TypeError) as error:
        raise ExportError(f"{path}: not a tokenizer.json ({error!r})") from error
    remedy = "If the file itself is right, " + (
        "give it outside the model's folder, as `tokenizer: FILE`"
        if model.get("model_type") in _FIRST
        else "write `PreTrainedTokenizerFast` as tokenizer_class into tokenizer_config.json"
    )
    if name.startswith(_OTHERS) or kind != "BPE":
        raise ExportError(
            f"{path}: tokenizer_class {name!r}: transformers cuts texts in a way of that class's"
            f" own, whatever the file ({kind}) says. {remedy}"
        )
    built = _built(name, rules)
    parts = {"normalizer": built.normalizer, "pre_tokenizer": built.pre_tokenizer}
    flags: dict[str, Any] = {"byte_fallback": built.byte_fallback, "fuse_unk": built.fuse_unk}
    flags |= {"ignore_merges": False, "unk_token": built.unknown or None}
    differing = [key for key, value in parts.items() if _core(data.get(key)) != _core(value)]
    differing += [
        # Where every byte has a token, none is unknown.
        f"model.{key}"
        for key, value in flags.items()
        if (data["model"].get(key) or False) != (value or False)
        and (key != "unk_token" or built.unknown)
    ]
    if not differing:
        return content, ()
    # A space before every stretch, as the file has it, is what `always` means.
    same = built.pre_tokenizer == metaspace("always") and data.get("normalizer") == _EACH
    data |= parts
    data["model"] |= flags
    note = (
        f"{path}: transformers' {name} builds {', '.join(differing)} itself, other than the file"
        f" has it; done as transformers does. {remedy}"
    )
    return json.dumps(data, ensure_ascii=False), () if same else (note,)


def _class(rules: Mapping[str, Any], model: Mapping[str, Any], *, byte_level: bool) -> str:
    """The class that builds, or that the file is taken as it is."""
    kind = model.get("model_type")
    own = _OF_MODEL.get(kind) if isinstance(kind, str) else None
    named = rules.get("tokenizer_class") or model.get("tokenizer_class")
    given = named.removesuffix("Fast") if isinstance(named, str) else None
    if own is not None and (given is None or given == own or own == _PLAIN or kind in _FIRST):
        return own
    if given == LLAMA and byte_level:
        return _PLAIN
    known = given in (LLAMA, _QWEN, _GEMMA, _GPT2) or (given or "").startswith(_OTHERS)
    return given if given is not None and known else _PLAIN


def _built(name: str, rules: Mapping[str, Any]) -> _Built:
    prefix = rules.get("add_prefix_space")
    if name == LLAMA:
        scheme = "never" if prefix is False else "always" if rules.get("legacy") else "first"
        return _Built(None, metaspace(scheme), byte_fallback=True, fuse_unk=True)
    if name == _GEMMA:
        space = {"String": " "}
        mark = {"type": "Replace", "pattern": space, "content": "\u2581"}
        cut = {"type": "Split", "pattern": space, "behavior": "MergedWithPrevious", "invert": False}
        unknown = token_text(rules.get("unk_token")) or "<unk>"
        return _Built(mark, cut, byte_fallback=True, fuse_unk=True, unknown=unknown)
    if name == _QWEN:
        cut, to_bytes = QWEN2["pretokenizers"]
        to_bytes = {**to_bytes, "add_prefix_space": bool(prefix)}
        pre = {"type": "Sequence", "pretokenizers": [cut, to_bytes]}
        return _Built({"type": "NFC"}, pre, byte_fallback=False, fuse_unk=False)
    by_bytes = {**BYTE_LEVEL, "add_prefix_space": bool(prefix)}
    return _Built(None, by_bytes, byte_fallback=False, fuse_unk=False)


def token_text(value: Any) -> str:
    """Text of a token as tokenizer_config.json has it: plain, or an object with its flags."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else ""


def _core(part: Any) -> Any:
    """A normalizer or pre-tokenizer without what changes no ids, to be compared."""
    if isinstance(part, list):
        return [_core(item) for item in part]
    if not isinstance(part, dict):
        return part
    for key in ("normalizers", "pretokenizers"):
        steps = part.get(key)
        if part.get("type") == "Sequence" and isinstance(steps, list) and len(steps) == 1:
            return _core(steps[0])
    return {key: _core(value) for key, value in part.items() if key != "trim_offsets"}
