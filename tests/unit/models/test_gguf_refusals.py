"""GGUF files: what would be read wrongly is refused by key, the rest is as in llama.cpp."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy
import pytest

from farm.core.artifact import ExportRequest, ModelSource, Toolchain
from farm.core.errors import ExportError
from farm.core.reference import ReferenceRequest
from models import recipes
from models.checkpoint import Checkpoint
from models.exporting.identify import own_versions, prepare_export
from models.exporting.task import run_export
from models.orders import ExportOrder, ReferenceOrder
from models.reference.task import run_reference
from models.sources import open_for, open_here
from models.sources.gguf import GgufCheckpoint
from models.sources.gguf_tokenizer import read_tokenizer
from models.tokenizer import Tokenizer, byte_tokenizer
from models.worker import Reporter
from tests.unit.models.test_sources import write_gguf

Change = Callable[[gguf.GGUFWriter], None]


def key(name: str, value: Any) -> Change:
    def apply(writer: gguf.GGUFWriter) -> None:
        if isinstance(value, bool):
            writer.add_bool(name, value)
        elif isinstance(value, int):
            writer.add_uint32(name, value)
        elif isinstance(value, float):
            writer.add_float32(name, value)
        elif isinstance(value, str):
            writer.add_string(name, value)
        else:
            writer.add_array(name, value)

    return apply


def tensor(name: str, *shape: int, dtype: str = "f4") -> Change:
    return lambda writer: writer.add_tensor(name, numpy.ones(shape, dtype))


REFUSED: dict[str, tuple[Change, str]] = {
    "output bias": (tensor("blk.0.attn_output.bias", 256), "attn_output.bias would not be used"),
    "ffn bias": (tensor("blk.0.ffn_up.bias", 256), "blk.0.ffn_up.bias would not be used"),
    "norm of heads": (tensor("blk.0.attn_q_norm.weight", 64), "attn_q_norm.weight would not"),
    "long factors": (tensor("rope_factors_long.weight", 32), "rope_factors_long.weight would"),
    "factors": (tensor("rope_freqs.weight", 16), "rope_freqs.weight: 32 positive numbers"),
    "layer beyond": (tensor("blk.1.ffn_up.weight", 256, 256), "blk.1.ffn_up.weight would not"),
    "integers": (tensor("output.weight", 512, 256, dtype="i4"), "output.weight is I32"),
    "unknown key": (key("llama.mystery", 2.0), "llama.mystery is 2.0: farm doesn't know it"),
    "soft cap": (key("llama.final_logit_softcapping", 30.0), "a soft cap of the logits"),
    "experts": (key("llama.expert_count", 8), "llama.expert_count is 8"),
    "window": (key("llama.attention.sliding_window", 64), "sliding_window is 64"),
    "scale": (key("llama.logit_scale", 8.0), "llama.logit_scale is 8.0"),
    "partial": (key("llama.rope.dimension_count", 32), "rope.dimension_count is 32"),
    "values": (key("llama.attention.value_length", 32), "attention.value_length is 32"),
    "yarn": (key("llama.rope.scaling.type", "yarn"), "rope.scaling.type.*'yarn' isn't"),
    "split": (key("split.count", 2), "split.count: this is file 1 of 2; join them"),
    "adapter": (key("general.type", "adapter"), "general.type is 'adapter'"),
    "adapter key": (key("adapter.lora.alpha", 8.0), "adapter.lora.alpha: an adapter"),
    "word": (key("llama.rope.scaling.factor", "4"), "rope.scaling.factor is '4', no number"),
    "tokenizer key": (key("tokenizer.ggml.mystery", 1), "tokenizer.ggml.mystery: farm"),
    "charsmap": (key("tokenizer.ggml.precompiled_charsmap", [1, 2]), "precompiled_charsmap"),
    "merge": (key("tokenizer.ggml.merges", ["a zzzz"]), "can't be read: Token `zzzz`"),
    "eos at the end": (key("tokenizer.ggml.add_eos_token", True), "add_eos_token true"),
    "bos missing": (key("tokenizer.ggml.add_bos_token", True), "bos_token_id is missing"),
    "beyond": (key("tokenizer.ggml.eot_token_id", 600), "eot_token_id is 600, there are 512"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_read_wrongly_is_refused(name: str, tmp_path: Path) -> None:
    change, words = REFUSED[name]
    path = tmp_path / "model.gguf"
    write_gguf(path, change=change)
    with pytest.raises(ExportError, match=words) as refused:
        GgufCheckpoint(path, tmp_path)
    assert str(path) in refused.value.message


def opened(tmp_path: Path, *changes: Change, without: tuple[str, ...] = ()) -> Checkpoint:
    path = tmp_path / "model.gguf"

    def all_of(writer: gguf.GGUFWriter) -> None:
        for change in changes:
            change(writer)

    write_gguf(path, change=all_of, without=without)
    return GgufCheckpoint(path, tmp_path)


def test_keys_that_change_nothing_are_taken(tmp_path: Path) -> None:
    found = opened(
        tmp_path,
        key("llama.expert_count", 0),
        key("llama.vocab_size", 512),
        key("llama.rope.dimension_count", 64),
        key("llama.attention.value_length", 64),
        key("llama.rope.scaling.type", "none"),
        key("llama.rope.scaling.factor", 4.0),
        key("general.file_type", 0),
        key("quantize.imatrix.chunks_count", 128),
        key("mradermacher.quantized_by", "someone"),
        key("tokenizer.ggml.add_space_prefix", False),
        key("tokenizer.ggml.padding_token_id", 7),
        key("tokenizer.chat_template.tool_use", "x"),
        key("split.count", 1),
    )
    assert found.config.rope_factors == ()


@pytest.mark.parametrize(
    "change", [key("llama.rope.scale_linear", 4.0), key("llama.rope.scaling.factor", 4.0)]
)
def test_scaling_without_a_type_is_linear_as_in_llama_cpp(change: Change, tmp_path: Path) -> None:
    assert opened(tmp_path, change).config.rope_factors == (4.0,) * 32


def test_linear_scaling_and_factors_multiply(tmp_path: Path) -> None:
    factors = numpy.linspace(1, 32, 32, dtype="f4")
    found = opened(
        tmp_path,
        key("llama.rope.scaling.factor", 2.0),
        lambda writer: writer.add_tensor("rope_freqs.weight", factors),
    )
    assert found.config.rope_factors == tuple(float(value) * 2.0 for value in factors)


def test_arrays_with_one_number_for_each_layer(tmp_path: Path) -> None:
    name = "llama.feed_forward_length"
    found = opened(tmp_path, key(name, [256, 256]), without=("feed_forward_length",))
    assert found.config.hidden == 256
    with pytest.raises(ExportError, match=rf"{name} is \[256, 96\]: layers of different"):
        opened(tmp_path, key(name, [256, 96]), without=("feed_forward_length",))


def test_missing_and_unknown_pre_tokenizers_need_a_file(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"ggml\.pre: the pre-tokenizer is missing"):
        opened(tmp_path, without=("pre",))
    given = tmp_path / "tokenizer.json"
    given.write_text(byte_tokenizer(512).json)
    path = tmp_path / "model.gguf"
    found = GgufCheckpoint(path, tmp_path, given)
    assert found.tokenizer.json == given.read_text()
    assert found.tokenizer.stop_ids == (5,), "what the file leaves open is the GGUF's"
    assert {file.name for file in found.files} == {"model.gguf", "tokenizer.json"}
    with pytest.raises(ExportError, match="can't read the tokenizer"):
        GgufCheckpoint(path, tmp_path, tmp_path / "none.json")


def test_old_tensor_types_are_named(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(path)
    data = bytearray(path.read_bytes())
    name = b"blk.0.ffn_down.weight"
    at = data.index(name) + len(name) + 4 + 2 * 8
    data[at : at + 4] = struct.pack("<I", 31)
    path.write_bytes(data)
    with pytest.raises(ExportError, match="a tensor has type Q4_0_4_4"):
        GgufCheckpoint(path, tmp_path)


def test_numbers_that_are_not_finite_are_named(tmp_path: Path) -> None:
    row = numpy.ones((512, 256), "f4")
    row[7, 3] = numpy.nan
    found = opened(tmp_path, lambda writer: writer.add_tensor("output.weight", row))
    with pytest.raises(ExportError, match=r"model\.gguf: tensor output\.weight has 1 numbers"):
        found.tensor("output.weight")


def fields(**more: Any) -> dict[str, Any]:
    tokens = ["<s>", "</s>", "a", "b", "ab"]
    found: dict[str, Any] = {"model": "gpt2", "pre": "gpt-2", "tokens": tokens, "merges": ["a b"]}
    found |= {"bos_token_id": 0, "eos_token_id": 1, "token_type": [3, 3, 1, 1, 1]}
    return {f"tokenizer.ggml.{name}": value for name, value in (found | more).items()}


def rebuilt(content: dict[str, Any], path: Path) -> Tokenizer:
    return Tokenizer(read_tokenizer(lambda name, default=None: content.get(name, default), path))


@pytest.mark.parametrize(
    ("more", "begins"),
    [
        ({}, False),
        ({"pre": "llama-bpe"}, True),
        ({"pre": "llama-v3"}, True),
        ({"pre": "llama3", "add_bos_token": False}, False),
        ({"add_bos_token": True}, True),
    ],
)
def test_bos_follows_llama_cpps_rules(more: dict[str, Any], begins: bool, tmp_path: Path) -> None:
    assert rebuilt(fields(**more), tmp_path).encode("ab") == ([0, 4] if begins else [4])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"merges": []}, r"ggml\.merges is missing"),
        ({"pre": ["gpt-2"]}, r"the pre-tokenizer \['gpt-2'\] isn't"),
        ({"add_bos_token": "false"}, r"add_bos_token is 'false', true or false is expected"),
    ],
)
def test_a_tokenizer_that_would_cut_otherwise_is_refused(
    change: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=words):
        rebuilt(fields(**change), tmp_path)


def test_what_llama_cpp_runs_as_it_is_needs_a_tokenizer_only(tmp_path: Path) -> None:
    path, staging = tmp_path / "model.gguf", tmp_path / "staging"
    staging.mkdir()
    write_gguf(path, architecture="gemma2")
    source, recipe = ModelSource("ours", kind="gguf", path=str(path)), recipes.get("gguf")
    with pytest.raises(ExportError, match=r"'gemma2' isn't supported.* With `recipe: gguf`"):
        open_for(recipes.get("xnnpack-8da4w"), source, tmp_path, lambda _done, _total: None)
    assert open_here(source, tmp_path, recipe) is not None
    request = ExportRequest(source, recipe, Toolchain("default"))
    silent = Reporter(io.StringIO())
    prepared = prepare_export(request, tmp_path, own_versions())
    order = ExportOrder(request, prepared.key, str(tmp_path), str(staging))
    found = run_export(order, silent).result
    assert (staging / "model.gguf").read_bytes() == path.read_bytes()
    assert (found.bundle.metadata.vocab_size, found.bundle.metadata.layers) == (512, 1)
    assert "no reference: logits of this model aren't computed here" in found.warnings[0]
    asked = ReferenceRequest(source, recipe, request.toolchain, found.bundle, "builtin", 64, "Hi")
    answer = run_reference(ReferenceOrder(asked, str(tmp_path), str(staging)), silent).result
    assert (len(answer.tokens), answer.eager_fp32, answer.source.by) == (64, None, "")
    write_gguf(path, architecture="gemma2", without=("pre",))
    with pytest.raises(ExportError, match="the pre-tokenizer is missing"):
        open_for(recipe, source, tmp_path, lambda _done, _total: None)


def test_pieces_without_scores_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"ggml\.scores has 0 entries for 5 tokens"):
        rebuilt(fields(model="llama"), tmp_path)
    with pytest.raises(ExportError, match=r"ggml\.token_type has 2 entries for 5 tokens"):
        rebuilt(fields(token_type=[3, 3]), tmp_path)
