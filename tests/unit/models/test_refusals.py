"""Hub folders: what would be read wrongly is refused with file and key, the rest is taken."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
from safetensors.numpy import load_file, save_file

from farm.core.artifact import ExportRequest, ModelSource, Toolchain
from farm.core.errors import ExportError
from models import recipes
from models.checkpoint import Checkpoint
from models.exporting import task
from models.orders import ExportOrder
from models.sources import open_here
from models.sources.hf_config import read_config
from models.tokenizer import byte_tokenizer
from models.worker import Reporter
from tests.unit.models.published_configs import PUBLISHED
from tests.unit.models.test_sources import HF_CONFIG, hf, opened

__all__ = ["hf"]

#: What is changed in a folder that is read well.
Change = Callable[[Path], None]


def config(**change: Any) -> Change:
    def apply(folder: Path) -> None:
        (folder / "config.json").write_text(json.dumps(HF_CONFIG | change))

    return apply


def write(name: str, content: Any) -> Change:
    def apply(folder: Path) -> None:
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name).write_text(text)

    return apply


def without(name: str) -> Change:
    def apply(folder: Path) -> None:
        left = {key: value for key, value in HF_CONFIG.items() if key != name}
        (folder / "config.json").write_text(json.dumps(left))

    return apply


def index_of_a_list(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text('{"weight_map": [1]}')


def tensor(name: str, dtype: str = "f4", shape: tuple[int, ...] = (256, 256)) -> Change:
    def apply(folder: Path) -> None:
        path = folder / "model.safetensors"
        save_file(load_file(path) | {name: numpy.ones(shape, dtype)}, path)

    return apply


def renamed(old: str, new: str) -> Change:
    def apply(folder: Path) -> None:
        path = folder / "model.safetensors"
        found = load_file(path)
        found[new] = found.pop(old)
        save_file(found, path)

    return apply


def dangling(name: str) -> Change:
    def apply(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to("../blobs/gone")

    return apply


Q = "model.layers.0.self_attn.q_proj"
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
PIECE = {"content": "<new>", "special": True}

#: What is changed, the file that is named, and words of the message.
REFUSED: dict[str, tuple[Change, str, str]] = {
    "quantised": (
        config(quantization_config={"quant_method": "gptq"}),
        "config.json",
        "quantization_config: .*quant_method gptq",
    ),
    "mlx": (config(quantization={"bits": 4}), "config.json", "quantization: "),
    "unknown key": (config(mystery_scale=2.0), "config.json", "mystery_scale is 2.0: farm doesn't"),
    "multiplier": (config(embedding_multiplier=12.0), "config.json", "the scale of the embedding"),
    "soft cap": (config(final_logit_softcapping=30.0), "config.json", "final_logit_softcapping"),
    "mixture": (config(num_local_experts=8), "config.json", "num_local_experts is 8"),
    "partial": (config(partial_rotary_factor=0.5), "config.json", "partial_rotary_factor is 0.5"),
    "window": (config(sliding_window=64), "config.json", "sliding_window is 64"),
    "layer types": (
        config(layer_types=["sliding_attention"]),
        "config.json",
        "layer_types is",
    ),
    "head": (
        config(architectures=["LlamaForSequenceClassification"]),
        "config.json",
        "architectures is",
    ),
    "code": (config(auto_map={"AutoModel": "a.B"}), "config.json", "auto_map"),
    "mlp bias": (config(mlp_bias=True), "config.json", "mlp_bias is true"),
    "nested rope": (
        config(rope_parameters={"full_attention": {"rope_type": "default"}}),
        "config.json",
        "rope_parameters.full_attention",
    ),
    "rope key": (
        config(rope_scaling={"factor": 4.0}),
        "config.json",
        "rope_scaling.factor: RoPE of type 'default' has no such key",
    ),
    "rope word": (
        config(rope_scaling=LLAMA3 | {"factor": "8.0"}),
        "config.json",
        "rope_scaling.factor is '8.0', a number",
    ),
    "rope missing": (
        config(rope_scaling={"type": "llama3", "factor": 8.0}),
        "config.json",
        "rope_scaling.low_freq_factor is missing",
    ),
    "rope list": (config(rope_scaling=[1]), "config.json", "rope_scaling is"),
    "text": (config(hidden_size="256"), "config.json", "hidden_size is '256', a number"),
    "half a layer": (config(num_hidden_layers=1.5), "config.json", "a whole number"),
    "null": (config(vocab_size=None), "config.json", "vocab_size is missing"),
    "array": (write("config.json", [1]), "config.json", "an object is expected"),
    "eos": (config(eos_token_id="</s>"), "config.json", "eos_token_id is '</s>'"),
    "eos beyond": (config(eos_token_id=600), "tokenizer.json", "eos_token_id 600"),
    "scales": (tensor(f"{Q}.weight_scale_inv"), "model.safetensors", "quantised before"),
    "gptq": (renamed(f"{Q}.weight", f"{Q}.qweight"), "model.safetensors", "qweight.*quantised"),
    "lora": (tensor("base_model.model.x.lora_A.weight"), "model.safetensors", "adapter"),
    "bias": (tensor(f"{Q}.bias", shape=(256,)), "model.safetensors", "q_proj.bias.*a bias"),
    "layer beyond": (
        tensor("model.layers.1.mlp.up_proj.weight"),
        "model.safetensors",
        r"model\.layers\.1\.mlp\.up_proj\.weight would not be used",
    ),
    "renamed": (renamed("model.norm.weight", "model.ln_f.weight"), "model.safetensors", "ln_f"),
    "twice": (tensor("norm.weight", shape=(256,)), "model.safetensors", "there twice"),
    "int8": (tensor(f"{Q}.weight", "i1"), "model.safetensors", "q_proj.weight is I8"),
    "head elsewhere": (tensor("model.lm_head.weight"), "model.safetensors", "lm_head"),
    "no head": (config(tie_word_embeddings=False), "", "lm_head.weight is missing"),
    "adapter": (
        write("adapter_config.json", {"peft_type": "LORA"}),
        "adapter_config.json",
        "an adapter",
    ),
    "index": (
        index_of_a_list,
        "model.safetensors.index.json",
        "weight_map",
    ),
    "dangling weights": (dangling("model.safetensors"), "model.safetensors", "isn't there"),
    "dangling config": (dangling("config.json"), "config.json", "a link to ../blobs/gone"),
    "dangling tokenizer": (dangling("tokenizer.json"), "tokenizer.json", "can't read"),
    "lfs weights": (write("model.safetensors", LFS), "model.safetensors", "git lfs pull"),
    "lfs tokenizer": (write("tokenizer.json", LFS), "tokenizer.json", "git lfs pull"),
    "tokens added": (
        write("tokenizer_config.json", {"added_tokens_decoder": {"512": PIECE}}),
        "tokenizer.json",
        "'<new>' has id 512, the embedding has 512 rows",
    ),
    "other id": (
        write("tokenizer_config.json", {"added_tokens_decoder": {"9": PIECE}}),
        "tokenizer.json",
        "the files beside it say 9",
    ),
    "token list": (
        write("tokenizer_config.json", {"added_tokens_decoder": [1]}),
        "tokenizer_config.json",
        "added_tokens_decoder is a list",
    ),
    "split": (
        write("tokenizer_config.json", {"split_special_tokens": True}),
        "tokenizer_config.json",
        "split_special_tokens true",
    ),
    "rules": (write("tokenizer_config.json", [1]), "tokenizer_config.json", "an object"),
    "stops": (
        write("generation_config.json", {"eos_token_id": {"a": 1}}),
        "generation_config.json",
        "eos_token_id",
    ),
    "templates": (
        write("tokenizer_config.json", {"chat_template": [{"name": "rag", "template": "x"}]}),
        "tokenizer_config.json",
        "none of them is named default",
    ),
    "merges by chance": (
        write(
            "tokenizer.json", byte_tokenizer(512).json.replace('"dropout":null', '"dropout":0.1')
        ),
        "tokenizer.json",
        "model.dropout leaves out merges by chance",
    ),
    "template of no text": (
        write("tokenizer_config.json", {"chat_template": 5}),
        "tokenizer_config.json",
        "chat_template is '5', a text is expected",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_read_wrongly_is_refused(name: str, hf: Path, tmp_path: Path) -> None:
    change, file, words = REFUSED[name]
    change(hf)
    with pytest.raises(ExportError, match=words) as refused:
        opened("hf", hf, tmp_path)
    assert str(hf / file) in refused.value.message


#: Changes that leave the model what it is.
TAKEN: dict[str, Change] = {
    "nulls": config(head_dim=None, num_key_value_heads=2, rope_scaling=None, sliding_window=None),
    "unknown null": config(mystery=None),
    "defaults": without("rms_norm_eps"),
    "neutral": config(attention_bias=False, mlp_bias=False, embedding_multiplier=1.0),
    "wide window": config(sliding_window=128),
    "window off": config(sliding_window=64, use_sliding_window=False),
    "full layers": config(layer_types=["full_attention"]),
    "linear of one": config(rope_scaling={"type": "linear", "factor": 1.0}),
    "rotations": tensor("model.layers.0.self_attn.rotary_emb.inv_freq", shape=(32,)),
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_changes_nothing_is_taken(name: str, hf: Path, tmp_path: Path) -> None:
    TAKEN[name](hf)
    checkpoint = opened("hf", hf, tmp_path)
    assert checkpoint.config.head_dim == 64
    assert checkpoint.config.rope_factors == ()
    assert not checkpoint.notes


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configs_are_taken(name: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    data = PUBLISHED[name]
    path.write_text(json.dumps(data))
    read = read_config(path)
    assert read.config.dim == data["hidden_size"]
    assert read.config.rope_theta == float(data.get("rope_theta", 10000.0))
    assert (read.config.rope_scaling is not None) == (name in ("llama-3.2-1b", "fine-tune"))
    assert read.notes == ()


def noted(hf: Path, tmp_path: Path) -> tuple[Checkpoint, str]:
    checkpoint = opened("hf", hf, tmp_path)
    (note,) = checkpoint.notes
    return checkpoint, note


def test_transformers_choice_between_two_thetas(hf: Path, tmp_path: Path) -> None:
    config(rope_theta=10000.0, rope_parameters={"rope_theta": 5e5})(hf)
    checkpoint, note = noted(hf, tmp_path)
    assert checkpoint.config.rope_theta == 5e5
    assert "rope_theta is 10000 and rope_parameters.rope_theta 500000" in note


def test_transformers_choice_between_two_ropes(hf: Path, tmp_path: Path) -> None:
    linear = {"rope_type": "linear", "factor": 4.0}
    config(rope_scaling=linear, rope_parameters={"rope_type": "default", "rope_theta": 5e5})(hf)
    checkpoint, note = noted(hf, tmp_path)
    assert checkpoint.config.rope_factors == (4.0,) * 32
    assert checkpoint.config.rope_theta == 10000.0, "rope_scaling wins as a whole"
    assert "rope_scaling and rope_parameters disagree" in note


def test_stored_head_beside_the_tie_flag(hf: Path, tmp_path: Path) -> None:
    tensor("lm_head.weight", shape=(512, 256))(hf)
    checkpoint, note = noted(hf, tmp_path)
    assert not checkpoint.config.tied
    assert "lm_head.weight and the embedding differ" in note
    renamed("lm_head.weight", "model.x.rotary_emb.inv_freq")(hf)
    path = hf / "model.safetensors"
    stored = load_file(path)
    save_file(stored | {"lm_head.weight": stored["model.embed_tokens.weight"]}, path)
    again = opened("hf", hf, tmp_path)
    assert again.config.tied
    assert not again.notes, "the same matrix twice is no disagreement"


def test_tied_model_that_stores_only_its_head(hf: Path, tmp_path: Path) -> None:
    renamed("model.embed_tokens.weight", "lm_head.weight")(hf)
    checkpoint = opened("hf", hf, tmp_path)
    assert checkpoint.config.tied
    assert checkpoint.tensor("tok_embeddings.weight").shape == (512, 256)


def test_single_file_beside_an_index(hf: Path, tmp_path: Path) -> None:
    write("model.safetensors.index.json", {"weight_map": {"a": "gone.safetensors"}})(hf)
    _, note = noted(hf, tmp_path)
    assert "model.safetensors lies beside an index of other files" in note


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_numbers_that_are_not_finite_are_named(value: str, hf: Path, tmp_path: Path) -> None:
    path = hf / "model.safetensors"
    found = load_file(path)
    found[f"{Q}.weight"][3, 5] = float(value)
    save_file(found, path)
    checkpoint = opened("hf", hf, tmp_path)
    words = rf"model\.safetensors: tensor {Q}\.weight has 1 numbers .* \({value}\) at \[3, 5\]"
    with pytest.raises(ExportError, match=words):
        checkpoint.tensor("layers.0.attention.wq.weight")


def test_stop_ids_come_from_config_json_where_nothing_else_has_them(
    hf: Path, tmp_path: Path
) -> None:
    config(eos_token_id=[7, 9])(hf)
    assert opened("hf", hf, tmp_path).tokenizer.stop_ids == (7, 9)
    write("generation_config.json", {"eos_token_id": 11})(hf)
    assert opened("hf", hf, tmp_path).tokenizer.stop_ids == (11,)


def test_tokenizer_beside_a_program_is_read_by_the_plan(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(LFS)
    source = ModelSource("ours", kind="pte", path="model.pte", tokenizer=str(path))
    with pytest.raises(ExportError, match=r"tokenizer\.json: .*git lfs pull"):
        open_here(source, tmp_path)


def test_the_template_is_what_transformers_takes(hf: Path, tmp_path: Path) -> None:
    write("tokenizer_config.json", {"chat_template": {"rag": "x", "default": "y"}})(hf)
    assert opened("hf", hf, tmp_path).tokenizer.chat_template == "y"
    (hf / "chat_template.jinja").write_text("")
    assert opened("hf", hf, tmp_path).tokenizer.chat_template == ""


@pytest.mark.parametrize("kind", ["hf", "gguf", "meta"])
def test_what_the_system_refuses_to_look_at(kind: str, tmp_path: Path) -> None:
    """As it does with folders that may not be entered, which root may."""
    path = tmp_path / ("x" * 300)
    with pytest.raises(ExportError, match=r"model ours: can't read .*xxx: File name too long"):
        opened(kind, path, tmp_path)


def test_root_of_the_hubs_cache_and_a_file(hf: Path, tmp_path: Path) -> None:
    root = tmp_path / "models--org--name"
    (root / "snapshots" / "abc").mkdir(parents=True)
    with pytest.raises(ExportError, match=r"root of the hub's cache: give .*snapshots/abc"):
        opened("hf", root, tmp_path)
    with pytest.raises(ExportError, match="is a file; give its folder"):
        opened("hf", hf / "config.json", tmp_path)


def test_what_was_chosen_reaches_the_exports_warnings(
    hf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_nothing(_checkpoint: Checkpoint, _request: Any, folder: Path, _report: Any) -> Any:
        (folder / "model.pte").write_bytes(b"program")
        return task.Outcome()

    config(rope_theta=10000.0, rope_parameters={"rope_theta": 5e5})(hf)
    monkeypatch.setitem(task._ENGINES, "farm", write_nothing)
    recipe = replace(recipes.get("xnnpack-8da4w"), max_context=128, max_seq=128)
    source = ModelSource("ours", kind="hf", path=str(hf))
    staging = tmp_path / "staging"
    staging.mkdir()
    order = ExportOrder(
        ExportRequest(source, recipe, Toolchain("own")), "key", str(tmp_path), str(staging)
    )
    warnings = task.run_export(order, Reporter(io.StringIO())).result.warnings
    assert any("rope_parameters.rope_theta" in text for text in warnings)
