"""Published configs of the families are read as what they are, from key to field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from farm.core.errors import ExportError
from models import known
from models.config import ModelConfig, YarnScaling
from models.sources.hf_config import read_config
from tests.unit.models.published_configs import QWEN2_5_0_5B
from tests.unit.models.published_families import PUBLISHED


def read(data: dict[str, Any], tmp_path: Path) -> ModelConfig:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(data))
    return read_config(path).config


#: What sets each apart, and nothing else of it.
EXPECTED: dict[str, dict[str, Any]] = {
    "mistral-7b-instruct": {"window": 0, "windowed": ()},
    "ministral-8b-instruct": {"window": 32768, "windowed": tuple(range(36))},
    "phi-3-mini-4k": {"window": 2047, "windowed": tuple(range(32)), "rotary_dim": 0},
    "phi-4-mini": {
        "rotary_dim": 96,
        "rope_factors": (1.0,) * 48,
        "rope_scale": pytest.approx(1.1902380714238083),
        "max_context": 4096,
        "tied": True,
    },
    "gemma-2-2b-it": {
        "score_cap": 50.0,
        "logit_cap": 30.0,
        "attention_scale": 0.0625,
        "embedding_scale": 48.0,
        "windowed": tuple(range(0, 26, 2)),
        "activation": "gelu_tanh",
        "post_norm": True,
        "qk_norm": False,
        "tied": True,
    },
    "gemma-3-270m-it": {"windowed": (*range(5), *range(6, 11), *range(12, 17)), "tied": True},
    "gemma-3-1b-it": {
        "score_cap": 0.0,
        "logit_cap": 0.0,
        "local_rope_theta": 10000.0,
        "rope_theta": 1000000.0,
        "windowed": tuple(layer for layer in range(26) if layer % 6 != 5),
        "window": 512,
        "qk_norm": True,
    },
    "smollm3-3b": {"unrotated": tuple(range(3, 36, 4)), "windowed": (), "tied": True},
    "granite-3.3-2b": {
        "embedding_scale": 12.0,
        "residual_scale": 0.22,
        "attention_scale": 0.015625,
        "logit_scale": 0.125,
    },
    "olmo2-1b": {"pre_norm": False, "post_norm": True, "qk_norm_whole": True, "tied": False},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configs_are_read(name: str, tmp_path: Path) -> None:
    config = read(PUBLISHED[name], tmp_path)
    for field, value in EXPECTED[name].items():
        assert getattr(config, field) == value, field
    assert config.parameters == pytest.approx(known.get(name).parameters, rel=1e-3)


def test_null_is_no_soft_cap_and_a_missing_key_is_the_usual_one(tmp_path: Path) -> None:
    data = PUBLISHED["gemma-2-2b-it"]
    assert read(data | {"attn_logit_softcapping": None}, tmp_path).score_cap == 0.0
    left = {key: value for key, value in data.items() if key != "attn_logit_softcapping"}
    assert read(left, tmp_path).score_cap == 50.0


def test_layers_with_a_window_that_isnt_given_are_refused(tmp_path: Path) -> None:
    data = PUBLISHED["gemma-2-2b-it"] | {"sliding_window": None}
    with pytest.raises(ExportError, match=r"config\.json: layer_types is"):
        read(data, tmp_path)
    assert read(data | {"layer_types": ["full_attention"] * 26}, tmp_path).windowed == ()


def test_yarn_of_qwen(tmp_path: Path) -> None:
    yarn = {"factor": 4.0, "original_max_position_embeddings": 32768, "type": "yarn"}
    config = read(QWEN2_5_0_5B | {"rope_scaling": yarn}, tmp_path)
    assert config.rope_scaling == YarnScaling(4.0, 32.0, 1.0, 32768, truncate=True)
    assert config.rope_scale == pytest.approx(1.1386294361119891)


def test_every_registered_model_of_these_families_has_a_config_here() -> None:
    assert set(PUBLISHED) == set(EXPECTED)
