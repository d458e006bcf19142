"""Tokenizers of real folders give transformers' ids, stops and chat, or are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from farm.core.errors import ExportError
from models.sources.sentencepiece_file import read_pieces
from models.sources.tokenizer_files import read_tokenizer_file
from models.texts import read_text
from models.tokenizer import Tokenizer
from tests.integration.models.checkpoints import library_noise
from tests.unit.models.pieces import train_pieces

pytestmark = pytest.mark.export

CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXTS = [
    "Once upon a time",
    "naïve café 12345 \u4f60\u597d \U0001f600",
    "a<|im_end|>b <|im_end|> c",
    "a\tb\n\nc",
    *read_text("builtin").split("\n\n")[:4],
]
IDS = {"<|im_start|>": 600, "<|im_end|>": 601}


def fine_tune(folder: Path, **change: Any) -> Path:
    """A Llama 2 with ChatML: tokenizer.model, added tokens and a template, no tokenizer.json."""
    path, _ = train_pieces(folder)
    flags: dict[str, Any] = {
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "single_word": False,
    }
    tokens = {str(i): {"content": t, "special": True} | flags for t, i in IDS.items()}
    rules: dict[str, Any] = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": "<s>",
        "eos_token": "<|im_end|>",
    }
    rules |= {"unk_token": "<unk>", "add_bos_token": True, "chat_template": CHAT}
    rules |= {"added_tokens_decoder": tokens} | change
    (folder / "tokenizer_config.json").write_text(json.dumps(rules))
    (folder / "added_tokens.json").write_text(json.dumps(IDS))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [601, 2]}))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return path


@pytest.mark.parametrize(
    "change", [{}, {"legacy": False}, {"legacy": True}, {"add_bos_token": False}]
)
def test_sentencepiece_with_added_tokens(change: dict[str, Any], tmp_path: Path) -> None:
    ours = Tokenizer(read_tokenizer_file(fine_tune(tmp_path, **change)))
    with library_noise() as transformers:
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
        for text in TEXTS:
            assert ours.encode(text) == theirs(text)["input_ids"]
        message = [{"role": "user", "content": "Hi there"}]
        chat = theirs.apply_chat_template(message, add_generation_prompt=True)["input_ids"]
    assert ours.chat("Hi there") == chat
    assert ours.data.stop_ids == (2, 601)
    assert ours.token_id("<|im_end|>") == 601


def test_tokens_with_other_ids_are_refused(tmp_path: Path) -> None:
    path = fine_tune(tmp_path)
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<|third|>": 700}))
    with pytest.raises(ExportError, match=r"'<\|third\|>' has id 602, .* say 700"):
        read_tokenizer_file(path)


#: Flags of a token that tokenizer.json has already, in tokenizer_config.json.
FLAGS: list[dict[str, Any]] = [
    {},
    {"special": True, "rstrip": True},
    {"special": False, "lstrip": True, "rstrip": True, "normalized": False},
    {"normalized": True, "single_word": True},
]


@pytest.mark.parametrize("flags", FLAGS)
def test_a_token_is_found_as_its_last_file_says(flags: dict[str, Any], tmp_path: Path) -> None:
    from models.tokenizer import byte_tokenizer

    data = byte_tokenizer(512)
    (tmp_path / "tokenizer.json").write_text(data.json)
    number = Tokenizer(data).token_id("<|user|>")
    again = {str(number): {"content": "<|user|>", **flags}}
    rules = {"tokenizer_class": "PreTrainedTokenizerFast", "added_tokens_decoder": again}
    rules |= {"pad_token": {"__type": "AddedToken", "content": "<|new|>", "lstrip": True}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(rules))
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates/default.jinja").write_text("{{ messages[0].content }}")
    ours = Tokenizer(read_tokenizer_file(tmp_path / "tokenizer.json"))
    with library_noise() as transformers:
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
        for text in ("a<|user|>b <|user|> c", "a <|user|>, <|new|> b <|new|>"):
            assert ours.encode(text) == theirs(text)["input_ids"]
        message = [{"role": "user", "content": "Hi <|user|> b"}]
        assert ours.chat("Hi <|user|> b") == theirs.apply_chat_template(message)["input_ids"]


@pytest.mark.parametrize("begins", [True, False])
@pytest.mark.parametrize("asked", [{}, {"add_bos_token": False}, {"add_bos_token": True}])
def test_bos_of_a_tokenizer_json(asked: dict[str, bool], begins: bool, tmp_path: Path) -> None:
    """The file says it itself; transformers doesn't ask the config then."""
    import tokenizers
    from tokenizers import processors

    from models.tokenizer import byte_tokenizer

    data = byte_tokenizer(512)
    made = tokenizers.Tokenizer.from_str(data.json)
    if begins:
        special = [(data.bos_token, data.bos_id)]
        made.post_processor = processors.TemplateProcessing(
            single="<|bos|> $A", special_tokens=special
        )
    made.enable_truncation(max_length=4)
    (tmp_path / "tokenizer.json").write_text(made.to_str())
    rules = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": data.bos_token}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(rules | asked))
    ours = Tokenizer(read_tokenizer_file(tmp_path / "tokenizer.json"))
    with library_noise() as transformers:
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
        for text in ("ab", "Once upon a time"):
            assert ours.encode(text) == theirs(text)["input_ids"]


@pytest.mark.parametrize("legacy", [None, False, True])
@pytest.mark.parametrize(
    "kind", ["LlamaTokenizer", "LlamaTokenizerFast", "PreTrainedTokenizerFast"]
)
def test_llamas_tokenizer_json(kind: str, legacy: bool | None, tmp_path: Path) -> None:
    """transformers builds its own spaces for the class of that name, whatever the file has."""
    path, _ = train_pieces(tmp_path)
    content = read_pieces(path.read_bytes(), path, scheme="each").json
    path.unlink()
    (tmp_path / "tokenizer.json").write_text(content)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    rules: dict[str, Any] = {
        "tokenizer_class": kind,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "legacy": legacy,
    }
    rules = {key: value for key, value in rules.items() if value is not None}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(rules))
    data = read_tokenizer_file(tmp_path / "tokenizer.json")
    with library_noise() as transformers:
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
        for text in (*TEXTS, "  two", "a</s>b", "a</s> b</s>\nc"):
            assert Tokenizer(data).encode(text) == theirs(text)["input_ids"]
    assert bool(data.notes) == (kind != "PreTrainedTokenizerFast" and not legacy)


def _digits(data: dict[str, Any]) -> None:
    cut = {"type": "Digits", "individual_digits": True}
    steps = [cut, data["pre_tokenizer"]]
    data["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}


def _decomposed(data: dict[str, Any]) -> None:
    data["normalizer"] = {"type": "NFD"}


def _as_it_is(data: dict[str, Any]) -> None:
    del data


#: Model type, class in tokenizer_config.json, change of the file, and what else the class reads.
CLASSES: list[tuple[str, str | None, Any, dict[str, Any], bool]] = [
    ("llama", "GPT2Tokenizer", _digits, {}, True),
    ("llama", "GPT2Tokenizer", _as_it_is, {}, False),
    ("llama", "GPT2TokenizerFast", _as_it_is, {"add_prefix_space": True}, True),
    ("llama", "LlamaTokenizerFast", _digits, {}, False),
    ("llama", "SomebodysTokenizer", _digits, {}, False),
    ("llama", "Qwen2Tokenizer", _decomposed, {}, True),
    ("llama", "GemmaTokenizer", _as_it_is, {"unk_token": "<|spare0|>"}, True),
    ("qwen2", "PreTrainedTokenizerFast", _decomposed, {}, True),
    ("qwen2", None, _digits, {}, True),
    ("qwen3", "PreTrainedTokenizerFast", _decomposed, {}, False),
    ("mistral", "LlamaTokenizerFast", _digits, {}, False),
    ("granite", "GPT2Tokenizer", _digits, {}, False),
]


@pytest.mark.parametrize(("kind", "name", "change", "rules", "noted"), CLASSES)
def test_what_the_class_builds_counts(
    kind: str, name: str | None, change: Any, rules: dict[str, Any], noted: bool, tmp_path: Path
) -> None:
    """A class of transformers' own cuts texts its own way, whatever tokenizer.json says."""
    from models.tokenizer import byte_tokenizer

    data = byte_tokenizer(512)
    content = json.loads(data.json)
    change(content)
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    rules = {"bos_token": data.bos_token, "eos_token": data.eos_token} | rules
    rules |= {} if name is None else {"tokenizer_class": name}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(rules))
    found = read_tokenizer_file(tmp_path / "tokenizer.json")
    with library_noise() as transformers:
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
        for text in (
            *TEXTS,
            "don't DON'T  12345 e\u0301 \u00e9 \u00b2",
            "a\u0301<|eos|> 1<|user|>2",
        ):
            assert Tokenizer(found).encode(text) == theirs(text)["input_ids"]
    assert bool(found.notes) == noted


def test_a_class_that_cuts_in_an_unknown_way_is_refused(tmp_path: Path) -> None:
    from models.tokenizer import byte_tokenizer

    path = tmp_path / "tokenizer.json"
    path.write_text(byte_tokenizer(512).json)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "CohereTokenizerFast"}')
    with pytest.raises(ExportError, match=r"tokenizer\.json: tokenizer_class 'CohereTokenizer'"):
        read_tokenizer_file(path)
    (tmp_path / "tokenizer_config.json").write_text('{"fix_mistral_regex": true}')
    with pytest.raises(ExportError, match=r"tokenizer_config\.json: fix_mistral_regex true"):
        read_tokenizer_file(path)
    (tmp_path / "tokenizer_config.json").write_text('{"extra_special_tokens": 3}')
    with pytest.raises(ExportError, match=r"tokenizer_config\.json: extra_special_tokens is 3"):
        read_tokenizer_file(path)
