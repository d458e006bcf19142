"""The rotated model is the model; the search for scales finds better ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models import recipes
from models.eager import rotation
from models.eager.quantise import LinearFormat, dequantise, quantise_weight
from models.eager.rotation import Rotated, Rotation
from models.sources.seeded import SeededCheckpoint
from tests.integration.models import exports

from .test_exports import TINY

pytestmark = pytest.mark.export


@pytest.mark.parametrize("size", [1, 2, 9, 64, 576])
def test_a_rotation_keeps_lengths_and_mixes_everything(size: int) -> None:
    matrix = Rotation(size)(torch.eye(size))
    assert float((matrix @ matrix.T - torch.eye(size)).abs().max()) <= 1e-5
    assert float(matrix.abs().max()) <= 2 / size**0.5, "no element stays where it was"


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"tied": True, "qkv_bias": True, "qk_norm": True},
        {"kv_heads": 1, "residual_scale": 0.5, "embedding_scale": 2.0, "logit_scale": 0.25},
    ],
    ids=["llama", "qwen", "granite"],
)
def test_a_rotated_model_gives_the_models_logits(change: dict[str, float], tmp_path: Path) -> None:
    # 36 = 4 x 9: both kinds of factors take part.
    config = replace(TINY, dim=36, layers=2, hidden=96, **change)  # type: ignore[arg-type]
    model = SeededCheckpoint(config, 3)
    plain = exports.eager(model, None, tmp_path)
    assert float((exports.eager(Rotated(model), None, tmp_path) - plain).abs().max()) <= 1e-4
    table = Rotated(model).tensor("tok_embeddings.weight")
    assert float((table - model.tensor("tok_embeddings.weight")).abs().max()) > 0.1


def test_an_outlier_costs_less_in_the_rotated_basis(tmp_path: Path) -> None:
    class Outliers(SeededCheckpoint):
        """One channel of the residual stream is much louder than the rest, as in real models."""

        def tensor(self, name: str) -> torch.Tensor:
            found = super().tensor(name)
            if name == "tok_embeddings.weight":
                found[:, 5] *= 30
            return found

    # Weights of 8 bits: what is lost is lost by activations, whose scale the loud one decides.
    model, recipe = Outliers(TINY, 0), recipes.get("xnnpack-int8")
    plain = exports.eager(model, None, tmp_path)
    lost = [
        exports.kl_mean(plain, exports.eager(model, replace(recipe, rotated=rotated), tmp_path))
        for rotated in (False, True)
    ]
    assert lost[1] < 0.7 * lost[0], lost


def test_searched_scales_are_nearer_and_a_slice_is_rounded_as_the_whole() -> None:
    weight = torch.randn(2500, 64, generator=torch.Generator().manual_seed(1))
    with exports.library_noise():
        ranged, searched = (
            quantise_weight(weight, LinearFormat(4, 32, dynamic=True, searched=searched))
            for searched in (False, True)
        )
        part = quantise_weight(weight[2048:], LinearFormat(4, 32, dynamic=True, searched=True))
    lost = [float((dequantise(one) - weight).pow(2).mean()) for one in (ranged, searched)]
    assert lost[1] < 0.95 * lost[0]
    assert torch.equal(searched.values[2048:], part.values)
    assert torch.equal(searched.scales[2048:], part.scales)


def test_only_what_asks_for_it_is_rotated() -> None:
    model = SeededCheckpoint(TINY, 0)
    assert rotation.as_quantised(model, recipes.get("xnnpack-8da4w-hqq")) is model
    assert isinstance(rotation.as_quantised(model, recipes.get("xnnpack-8da4w-rot")), Rotated)
