from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, tzinfo
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.core.errors import ConfigError, ExportError
from models.chat import render_chat
from models.checkpoint import TokenizerData
from models.sources.gguf_tokenizer import read_tokenizer
from models.sources.tokenizer_files import read_tokenizer_file
from models.texts import forced_tokens, read_text
from models.tokenizer import Tokenizer, bare_tokenizer, byte_tokenizer
from tests.unit.models.pieces import train_pieces

BYTES = Tokenizer(byte_tokenizer(512))


@given(st.text(max_size=80))
def test_byte_tokenizer_encodes_any_text(text: str) -> None:
    if "<|" in text:
        return
    ids = BYTES.encode(text, bos=False)
    assert BYTES.decode(ids) == text
    assert all(0 <= token < 512 for token in ids)


def test_byte_tokenizer_has_exactly_its_vocabulary() -> None:
    assert BYTES.vocab_size == 512
    with pytest.raises(ExportError, match="at least"):
        byte_tokenizer(300)


def test_bos_comes_once() -> None:
    bos = BYTES.data.bos_id
    assert BYTES.encode("a")[0] == bos
    assert BYTES.encode("<|bos|>a").count(bos or -1) == 1
    chat = BYTES.chat("Hi")
    assert chat.count(bos or -1) == 1
    assert BYTES.decode(chat) == "Hi"


def test_broken_chat_template_is_named() -> None:
    data = BYTES.data
    broken = TokenizerData(data.json, None, False, (), "{% for %}")
    with pytest.raises(ExportError, match="chat template"):
        Tokenizer(broken).chat("Hi")


def test_chat_template_can_not_reach_python() -> None:
    data = BYTES.data
    attack = TokenizerData(data.json, None, False, (), "{{ ''.__class__.__mro__ }}")
    with pytest.raises(ExportError, match="chat template"):
        Tokenizer(attack).chat("Hi")


def test_decode_reads_a_file(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(BYTES.data.json)
    assert bare_tokenizer(path).decode(BYTES.encode("the end", bos=False)) == "the end"
    with pytest.raises(ExportError, match="can't read"):
        bare_tokenizer(tmp_path / "none.json")
    path.write_text("{}")
    with pytest.raises(ExportError, match="can't be read"):
        bare_tokenizer(path)


def test_builtin_text_is_long_enough_for_a_sharp_measurement() -> None:
    text = read_text("builtin")
    assert len(text.split()) > 700
    assert len(forced_tokens(BYTES, text, 512)) == 512
    with pytest.raises(ExportError, match="give a longer text"):
        forced_tokens(BYTES, text, 10**6)


def test_unreadable_text_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"correctness\.text"):
        read_text(str(tmp_path / "none.txt"))
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(ConfigError, match="UTF-8"):
        read_text(str(tmp_path / "latin.txt"))


CORPUS = [
    "Hello world, it's 12345 o'clock!  Two  spaces\n\n\tand a tab.",
    "Grüße aus Köln — naïve café, 東京 and 🙂🙂.",
    *read_text("builtin").split("\n\n")[:3],
]


def _rank_file(path: Path) -> dict[bytes, int]:
    """Train a byte-level BPE on the corpus and write it as Llama 3's files are written."""
    ranks = {bytes([byte]): byte for byte in range(256)}
    words = [list(map(bytes, zip(word.encode()))) for text in CORPUS for word in text.split(" ")]
    for _ in range(200):
        pairs: dict[tuple[bytes, bytes], int] = {}
        for word in words:
            for pair in itertools.pairwise(word):
                pairs[pair] = pairs.get(pair, 0) + 1
        left, right = max(sorted(pairs), key=lambda pair: pairs[pair])
        ranks[left + right] = len(ranks)
        for word in words:
            index = 0
            while index < len(word) - 1:
                if (word[index], word[index + 1]) == (left, right):
                    word[index : index + 2] = [left + right]
                index += 1
    lines = [base64.b64encode(token) + b" %d" % rank for token, rank in ranks.items()]
    path.write_bytes(b"\n".join(lines))
    return ranks


def test_tiktoken_file_gives_tiktokens_ids(tmp_path: Path) -> None:
    tiktoken = pytest.importorskip("tiktoken", reason="tiktoken is not installed")
    from models.sources.gguf_tokenizer import _LLAMA3_PATTERN

    path = tmp_path / "tokenizer.model"
    ranks = _rank_file(path)
    data = read_tokenizer_file(path)
    ours = Tokenizer(data)
    peer = tiktoken.Encoding(
        name="peer", pat_str=_LLAMA3_PATTERN, mergeable_ranks=ranks, special_tokens={}
    )
    for text in CORPUS:
        assert ours.encode(text, bos=False) == peer.encode(text)
        assert ours.decode(ours.encode(text)) == text
    assert data.bos_id == len(ranks)
    assert ours.encode("a")[0] == len(ranks)
    assert len(data.stop_ids) == 3


def test_sentencepiece_file_gives_sentencepieces_ids(tmp_path: Path) -> None:
    path, peer = train_pieces(tmp_path)
    data = read_tokenizer_file(path)
    ours = Tokenizer(data)
    for text in CORPUS:
        assert ours.encode(text, bos=False) == peer.encode(text)
    assert ours.encode("a") == [peer.bos_id(), *peer.encode("a")]
    assert data.stop_ids == (peer.eos_id(),)


def test_rules_are_read_beside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(BYTES.data.json)
    rules = {"bos_token": {"content": "<|bos|>"}, "eos_token": "<|eos|>", "chat_template": "x"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(rules))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 9]}))
    data = read_tokenizer_file(path)
    assert data.bos_id == BYTES.data.bos_id
    assert not data.add_bos, "the file itself adds none"
    assert data.stop_ids == (7, 9, *BYTES.data.stop_ids)
    assert data.chat_template == "x"
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(ExportError, match=r"generation_config\.json: not readable JSON"):
        read_tokenizer_file(path)


def rewritten(tmp_path: Path, **change: object) -> Path:
    """The byte tokenizer with some members of its tokenizer.json changed."""
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(json.loads(BYTES.data.json) | change))
    return path


def test_padding_and_truncation_in_the_file_are_switched_off(tmp_path: Path) -> None:
    truncation = {"max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    padding: dict[str, object] = {
        "strategy": {"Fixed": 8},
        "direction": "Left",
        "pad_to_multiple_of": None,
    }
    padding |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "<|spare0|>"}
    path = rewritten(tmp_path, truncation=truncation, padding=padding)
    for ours in (Tokenizer(read_tokenizer_file(path)), bare_tokenizer(path)):
        for text in ("a", "a much longer text"):
            assert ours.encode(text, bos=False) == BYTES.encode(text, bos=False)


def around(single: Sequence[Mapping[str, object]]) -> dict[str, object]:
    tokens = {
        name: {"id": name, "ids": [BYTES.token_id(name)], "tokens": [name]}
        for name in ("<|bos|>", "<|eos|>")
    }
    pair = [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}]
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens}


def _special(name: str) -> dict[str, object]:
    return {"SpecialToken": {"id": f"<|{name}|>", "type_id": 0}}


def test_what_the_file_puts_around_a_text(tmp_path: Path) -> None:
    text: dict[str, object] = {"Sequence": {"id": "A", "type_id": 0}}
    bos, eos = (_special(name) for name in ("bos", "eos"))
    data = read_tokenizer_file(rewritten(tmp_path, post_processor=around([bos, text])))
    assert data.add_bos
    assert data.bos_id == BYTES.data.bos_id, "known without a tokenizer_config.json too"
    assert Tokenizer(data).encode("a") == BYTES.encode("a")
    for single in ([text, eos], [bos, eos, text]):
        path = rewritten(tmp_path, post_processor=around(single))
        with pytest.raises(ExportError, match=r"tokenizer\.json: post_processor puts"):
            read_tokenizer_file(path)


def test_tokens_that_only_the_config_names_are_found_in_a_text(tmp_path: Path) -> None:
    data = json.loads(BYTES.data.json)
    kept = [token for token in data["added_tokens"] if token["content"] != "<|spare3|>"]
    path = rewritten(tmp_path, added_tokens=kept)
    plain = Tokenizer(read_tokenizer_file(path))
    spare = BYTES.token_id("<|spare3|>")
    assert plain.encode("a<|spare3|>", bos=False) != BYTES.encode("a<|spare3|>", bos=False)
    token = {"content": "<|spare3|>", "special": True}
    rules = {"added_tokens_decoder": {str(spare): token}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(rules))
    ours = Tokenizer(read_tokenizer_file(path))
    assert ours.encode("a<|spare3|>", bos=False) == BYTES.encode("a<|spare3|>", bos=False)


RENDERED = {
    "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}": "<é>",
    "{{ messages[0].content | tojson }}": '"<é>"',
    "{{ messages[0] | tojson(indent=1, ensure_ascii=True) }}": (
        '{\n "role": "user",\n "content": "<\\u00e9>"\n}'
    ),
    "{{ pad_token }}{{ sep_token }}{{ bos_token }}": "<|pad|><|bos|>",
    "{% if tools is not none or documents is not none %}x{% endif %}y": "y",
    "{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}": "01",
    "{% if enable_thinking is defined %}x{% endif %}{{ messages[0]['role'] }}": "user",
}


@pytest.mark.parametrize("template", RENDERED)
def test_templates_have_what_transformers_gives_them(template: str) -> None:
    data = replace(BYTES.data, chat_template=template, special=(("pad_token", "<|pad|>"),))
    assert render_chat(data, [{"role": "user", "content": "<é>"}]) == RENDERED[template]


def test_templates_print_the_day(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Clock:
            return cls(2025, 2, 3, tzinfo=tz)

    monkeypatch.setattr("models.chat.datetime", Clock)
    data = replace(BYTES.data, chat_template="{{ strftime_now('%d %b %Y') }}")
    assert render_chat(data, []) == "03 Feb 2025"


@pytest.mark.parametrize("template", ["{{ raise_exception('no system') }}", "{{ 1 / 0 }}"])
def test_templates_that_fail_are_an_error(template: str) -> None:
    data = replace(BYTES.data, chat_template=template)
    with pytest.raises(ExportError, match=r"chat template can't be used \((Template|ZeroDiv)"):
        render_chat(data, [])


def test_a_chat_has_no_bos_beyond_its_templates() -> None:
    data = replace(BYTES.data, chat_template="{{ messages[0].content }}")
    assert Tokenizer(data).chat("a") == BYTES.encode("a", bos=False)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "unigram"}, "model_type unigram isn't supported"),
        ({"user_defined_symbols": ["<tool>"]}, "user-defined symbols .'<tool>'."),
        ({"add_dummy_prefix": False}, "add_dummy_prefix isn't True"),
        ({"remove_extra_whitespaces": True}, "remove_extra_whitespaces isn't False"),
        ({"normalization_rule_name": "nmt_nfkc"}, "the normaliser nmt_nfkc changes"),
    ],
)
def test_sentencepiece_files_of_other_kinds_are_refused(
    change: dict[str, object], words: str, tmp_path: Path
) -> None:
    path, _ = train_pieces(tmp_path, **change)
    with pytest.raises(ExportError, match=words) as refused:
        read_tokenizer_file(path)
    assert str(path) in refused.value.message


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"tokenizer_class": "T5Tokenizer"}, "tokenizer_class 'T5Tokenizer'"),
        ({"add_eos_token": True}, "add_eos_token true"),
        ({"add_prefix_space": False}, "add_prefix_space false"),
        ({"bos_token": "<s>"}, "add_bos_token is None; transformers 4"),
    ],
)
def test_rules_beside_a_sentencepiece_file(
    rules: dict[str, object], words: str, tmp_path: Path
) -> None:
    path, _ = train_pieces(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(rules))
    with pytest.raises(ExportError, match=words):
        read_tokenizer_file(path)


def test_unknown_tokenizers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(b"\x00\x01 not a tokenizer")
    with pytest.raises(ExportError, match="not a tokenizer of a known kind"):
        read_tokenizer_file(path)
    fields = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": ["a"]}
    fields |= {"tokenizer.ggml.pre": "unheard-of"}
    with pytest.raises(ExportError, match="pre-tokenizer 'unheard-of'"):
        read_tokenizer(lambda key, default=None: fields.get(key, default), path)
    with pytest.raises(ExportError, match="no tokenizer inside"):
        read_tokenizer(lambda _key, default=None: default, path)
