"""Meta's format: params.json and the index of a .pth, read without torch or refused by name."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest

from farm.core.errors import ExportError
from models.config import ModelConfig
from models.sources.meta import guessed, read_params, read_shapes, shard_files

PARAMS: dict[str, Any] = {"dim": 64, "n_layers": 2, "n_heads": 4, "norm_eps": 1e-5}
#: As Meta's own Llama 3.2 1B has it.
LLAMA_3_2 = PARAMS | {
    "ffn_dim_multiplier": 1.5,
    "multiple_of": 256,
    "n_kv_heads": 2,
    "rope_theta": 500000.0,
    "use_scaled_rope": True,
    "vocab_size": 512,
}
#: As ExecuTorch's converter for Qwen 3 writes it.
QWEN3 = LLAMA_3_2 | {
    "use_scaled_rope": False,
    "use_hf_rope": True,
    "attention_qkv_bias": False,
    "use_qk_norm": True,
    "qk_norm_before_rope": True,
    "hidden_dim": 160,
    "head_dim": 16,
}
Shapes = dict[str, tuple[int, ...]]
SHAPES: Shapes = {"layers.0.feed_forward.w1.weight": (160, 64), "output.weight": (512, 64)}
BIASED: Shapes = SHAPES | {"layers.0.attention.wq.bias": (64,)}


def read(tmp_path: Path, data: Any, shapes: Shapes = SHAPES) -> ModelConfig:
    path = tmp_path / "params.json"
    path.write_text(json.dumps(data))
    return read_params(path, shapes, 1, 512)


@pytest.mark.parametrize("data", [PARAMS, LLAMA_3_2, QWEN3, PARAMS | {"mystery": None}])
def test_files_that_people_have_are_taken(data: dict[str, Any], tmp_path: Path) -> None:
    config = read(tmp_path, data)
    assert config.hidden == 160
    assert config.qk_norm == ("use_qk_norm" in data)
    assert (config.rope_scaling is not None) == bool(data.get("use_scaled_rope"))


def test_old_name_of_theta(tmp_path: Path) -> None:
    assert read(tmp_path, PARAMS | {"rope_freq_base": 5e5}).rope_theta == 5e5
    with pytest.raises(ExportError, match=r"rope_theta is 10000\.0 and rope_freq_base"):
        read(tmp_path, PARAMS | {"rope_freq_base": 5e5, "rope_theta": 10000.0})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (PARAMS | {"no_rope_layer_interval": 4}, "no_rope_layer_interval is 4"),
        (PARAMS | {"partial_rotary_factor": 0.75}, "partial_rotary_factor is 0.75"),
        (PARAMS | {"act_fn": "gelu"}, 'act_fn is "gelu"'),
        (PARAMS | {"embedding_scale_factor": 8.0}, "embedding_scale_factor is 8.0"),
        (PARAMS | {"residual_multiplier": 0.2}, "residual_multiplier is 0.2"),
        (PARAMS | {"attention_multiplier": 0.01}, "attention_multiplier is 0.01"),
        (PARAMS | {"logits_scaling": 8}, "logits_scaling is 8"),
        (PARAMS | {"post_attention_norm": True}, "post_attention_norm is true"),
        (PARAMS | {"rms_norm_add_unit_offset": True}, "the kind of norm"),
        (PARAMS | {"local_rope_theta": 10000.0}, "local_rope_theta"),
        (PARAMS | {"moe": True}, "a mixture of experts"),
        (PARAMS | {"quantization_args": {"group_size": 32}}, "quantised before"),
        (PARAMS | {"lora_args": {"rank": 16}}, "an adapter"),
        (PARAMS | {"mystery": 1}, "mystery is 1: farm does not know this key"),
        (PARAMS | {"use_qk_norm": True}, "use_qk_norm without qk_norm_before_rope"),
        (PARAMS | {"attention_qkv_bias": True}, "attention_qkv_bias is True.*no biases"),
        (PARAMS | {"hidden_dim": 128}, "hidden_dim is 128.*160 rows"),
        (PARAMS | {"dim": None}, "dim is missing"),
        (PARAMS | {"dim": "64"}, "dim is '64', a number is expected"),
        (PARAMS | {"rope_theta": float("nan")}, "rope_theta is nan, a finite number is expected"),
        (PARAMS | {"norm_eps": float("inf")}, "norm_eps is inf, a finite number is expected"),
        (PARAMS | {"dim": 10**400}, "dim is 10{19}, a finite number is expected"),
        (PARAMS | {"use_scaled_rope": "yes"}, "use_scaled_rope is 'yes'"),
        ([PARAMS], "an object is expected"),
    ],
)
def test_what_would_be_read_wrongly_is_refused(data: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=words) as refused:
        read(tmp_path, data)
    assert str(tmp_path / "params.json") in refused.value.message


def test_shards_follow_each_other_by_number(tmp_path: Path) -> None:
    names = [f"consolidated.{n}.pth" for n in (0, 1, 2, 10)]
    for name in (*names, "optimizer.pth"):
        (tmp_path / name).touch()
    assert [path.name for path in shard_files(tmp_path)] == names


def test_a_factor_that_nothing_says_is_told(tmp_path: Path) -> None:
    (note,) = guessed(tmp_path / "params.json", read(tmp_path, LLAMA_3_2))
    assert "use_scaled_rope without rope_scale_factor; 32 is taken" in note
    given = read(tmp_path, LLAMA_3_2 | {"rope_scale_factor": 8})
    assert guessed(tmp_path / "params.json", given) == ()


def test_biases_make_a_qwen2(tmp_path: Path) -> None:
    assert read(tmp_path, PARAMS, BIASED).qkv_bias
    with pytest.raises(ExportError, match="attention_qkv_bias is False, and the weights have"):
        read(tmp_path, PARAMS | {"attention_qkv_bias": False}, BIASED)


def index(path: Path, content: Any) -> Path:
    """A .pth whose index holds plain values."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps(content))
    return path


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], "holds a list, no dictionary"),
        ({"epoch": 3}, "entry epoch is no tensor"),
        ({"model": {"a": 1}}, "nested under `model`"),
    ],
)
def test_other_pth_files_are_refused(content: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=words):
        read_shapes(index(tmp_path / "consolidated.00.pth", content))
