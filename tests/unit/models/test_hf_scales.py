"""Checkpoints with scales beside their weights: exactly their product, or refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from farm.core.errors import ExportError
from tests.unit.models.test_sources import HF_CONFIG, hf, opened

__all__ = ["hf"]

Q = "model.layers.0.self_attn.q_proj.weight"
FP8: dict[str, Any] = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic"}
FP8 |= {"weight_block_size": [128, 96]}
WEIGHTS: dict[str, Any] = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"}
WEIGHTS |= {"dynamic": False, "group_size": None, "observer": "minmax", "block_structure": None}


def compressed(dtype: str = "int", **change: Any) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": WEIGHTS | {"type": dtype} | change}
    group["input_activations"] = {"num_bits": 8, "type": dtype, "dynamic": True}
    form = {"int": "int-quantized", "float": "float-quantized"}[dtype]
    return {
        "quant_method": "compressed-tensors",
        "format": form,
        "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
    }


def save(folder: Path, settings: dict[str, Any], scale: tuple[int, ...], **more: Any) -> Any:
    """Round q_proj as the settings say; returns what its numbers and scales stand for."""
    path = folder / "model.safetensors"
    stored = load_file(path)
    draw = torch.Generator().manual_seed(1)
    scales = torch.rand(scale, generator=draw) / 64 + 0.001
    suffix = "_scale_inv" if settings["quant_method"] == "fp8" else "_scale"
    if settings.get("format") == "int-quantized":
        numbers = torch.randint(-127, 128, (256, 256), generator=draw, dtype=torch.int8)
    else:
        numbers = (torch.randn(256, 256, generator=draw) * 60).to(torch.float8_e4m3fn)
    stored |= {Q: numbers, Q + suffix: scales, **more}
    save_file({name: value for name, value in stored.items() if value is not None}, path)
    (folder / "config.json").write_text(json.dumps(HF_CONFIG | {"quantization_config": settings}))
    return numbers.float(), scales


@pytest.mark.parametrize(
    ("settings", "scale", "high", "wide"),
    [
        (FP8, (2, 3), 128, 96),
        (compressed(), (256, 1), 1, 256),
        (compressed("float"), (256,), 1, 256),
        (compressed("float", strategy="tensor"), (), 256, 256),
        (compressed(strategy="group", group_size=64), (256, 4), 1, 64),
        (compressed("float", strategy="block", block_structure=[128, 128]), (2, 2), 128, 128),
    ],
    ids=["fp8", "rows", "flat", "one", "groups", "blocks"],
)
def test_weights_are_numbers_times_scales(
    settings: dict[str, Any], scale: tuple[int, ...], high: int, wide: int, hf: Path, tmp_path: Path
) -> None:
    numbers, scales = save(hf, settings, scale)
    grid = scales.reshape(-(-256 // high), -(-256 // wide))
    checkpoint = opened("hf", hf, tmp_path)
    found = checkpoint.tensor("layers.0.attention.wq.weight")
    assert found.dtype == torch.float32
    for row, column in ((0, 0), (255, 255), (127, 95), (128, 96), (130, 200)):
        assert found[row, column] == numbers[row, column] * grid[row // high, column // wide]
    assert float(found.abs().max()) > 0.1
    plain = checkpoint.tensor("layers.0.attention.wk.weight")
    assert torch.equal(plain, load_file(hf / "model.safetensors")[Q.replace("q_proj", "k_proj")])


ONE = torch.ones(1)
REFUSED: dict[str, tuple[dict[str, Any], tuple[int, ...], dict[str, Any], str]] = {
    "e5m2": (FP8 | {"fmt": "e5m2"}, (2, 3), {}, r'config.fmt is "e5m2"'),
    "static": (FP8 | {"activation_scheme": "static"}, (2, 3), {}, "activation_scheme"),
    "unknown key": (FP8 | {"scale_fmt": "ue8m0"}, (2, 3), {}, "scale_fmt.*is unknown"),
    "no block": (FP8 | {"weight_block_size": None}, (2, 3), {}, "weight_block_size is null"),
    "no scales": (FP8, (2, 3), {Q + "_scale_inv": None}, r"F8_E4M3; .*_scale_inv is missing"),
    "other shape": (FP8, (3, 2), {}, r"has shape \[3, 2\]; .*\[2, 3\] is expected"),
    "plain weight": (FP8, (2, 3), {Q: torch.ones(256, 256)}, "would not be used.* is F32"),
    "of nothing": (FP8, (2, 3), {"model.x.weight_scale_inv": ONE}, "x.weight_scale_inv"),
    "odd scales": (
        FP8,
        (2, 3),
        {Q + "_scale_inv": torch.ones(2, 3, dtype=torch.int32)},
        "is I32, no plain number",
    ),
    "other numbers": (compressed("float"), (256,), {Q: torch.ones(256, 256).char()}, "is I8, com"),
    "zero points": (compressed(), (256, 1), {Q + "_zero_point": ONE}, "zero_point"),
    "asymmetric": (compressed(symmetric=False), (256, 1), {}, "weights.symmetric is false"),
    "four bits": (compressed(num_bits=4), (256, 1), {}, "weights.num_bits is 4"),
    "order": (compressed(actorder="group"), (256, 1), {}, "weights.actorder"),
    "no group": (compressed(strategy="group"), (256, 4), {}, "group_size is null"),
    "packed": (compressed() | {"format": "pack-quantized"}, (256, 1), {}, "pack-quantized"),
    "cache": (compressed() | {"kv_cache_scheme": {"a": 1}}, (256, 1), {}, "kv_cache_scheme"),
    "no groups": (compressed() | {"config_groups": {}}, (256, 1), {}, "config_groups is"),
    "awq": (FP8 | {"quant_method": "awq"}, (2, 3), {}, "quant_method awq"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_such_a_product_is_refused(name: str, hf: Path, tmp_path: Path) -> None:
    settings, scale, more, words = REFUSED[name]
    save(hf, settings, scale, **more)
    with pytest.raises(ExportError, match=words) as refused:
        opened("hf", hf, tmp_path)
    assert str(hf) in refused.value.message
