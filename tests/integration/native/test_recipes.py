"""Recipes that need operators of ours, exported small and run by farm-runner."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models import known, recipes
from models.sources.seeded import SeededCheckpoint
from tests.integration.models import exports
from tests.unit.native.kernel_problems import AMX, AVX512

from .conftest import Run, Start

pytestmark = pytest.mark.export


@pytest.mark.parametrize("quantised_kv_cache", [False, True], ids=["fp32-cache", "int8-cache"])
def test_the_runner_computes_what_eager_computes(
    start: Start, tmp_path: Path, quantised_kv_cache: bool
) -> None:
    entry = known.get("tiny-llama")
    assert entry.seeded is not None
    model = SeededCheckpoint(entry.seeded[0], 0)
    recipe = replace(recipes.get("xnnpack-fp32"), quantised_kv_cache=quantised_kv_cache)
    exports.export(model, recipe, tmp_path / "model.pte")
    expected = exports.eager(model, recipe, tmp_path).numpy()
    passes = [
        {"name": "decode", "chunks": [1] * len(exports.TOKENS)},
        {"name": "prefill", "chunks": [30, 10]},
    ]
    tokens = [int(token) for token in exports.TOKENS]
    request = {"protocol": 1, "threads": 2, "tokens": tokens, "logits": passes}
    run = start(tmp_path / "model.pte", request)
    assert run.code == 0, run.err
    assert np.abs(run.logits("decode") - expected).max() <= 1e-3
    prefill = torch.from_numpy(run.logits("prefill").copy())
    assert exports.kl_mean(torch.from_numpy(expected[[29, 39]]), prefill) <= 1e-3


def _logits(start: Start, folder: Path, threads: int) -> tuple[Run, bytes]:
    tokens = [int(token) for token in exports.TOKENS]
    passes = [{"name": "decode", "chunks": [1] * 5}, {"name": "prefill", "chunks": [7, 17, 16]}]
    request = {"protocol": 1, "threads": threads, "tokens": tokens, "logits": passes}
    run = start(folder / "model.pte", request)
    assert run.code == 0, run.err
    return run, run.logits("decode").tobytes() + run.logits("prefill").tobytes()


@pytest.mark.parametrize("group", [32, 128])
def test_our_4_bit_products_give_the_bits_of_xnnpack(
    start: Start, start_tuned: Start, tmp_path: Path, group: int
) -> None:
    flags = frozenset(Path("/proc/cpuinfo").read_text().split())
    if "avx2" not in flags or ("avx_vnni" in flags and not flags >= AVX512):
        pytest.skip("XNNPACK has code for this CPU that is none of those we have our own for")
    entry = known.get("tiny-llama")
    assert entry.seeded is not None
    shape = replace(entry.seeded[0], dim=128, hidden=256)
    recipe = replace(recipes.get("xnnpack-8da4w"), group_size=group)
    exports.export(SeededCheckpoint(shape, 0), recipe, tmp_path / "model.pte")
    ours, our_bits = _logits(start_tuned, tmp_path, 2)
    stock, stock_bits = _logits(start, tmp_path, 1)
    assert our_bits == stock_bits
    product = "qdu8_f32_qb4w" if flags >= AVX512 else "qd8_f32_qb4w"
    lent = {f"xnnpack::{product}=farm", "xnnpack::qb4w_packing=farm"}
    if flags >= AMX:
        lent.add("xnnpack::qdu8_f32_qb4w_amx=farm")
    assert lent <= set(ours.one("hello")["kernels"])
    assert not lent & set(stock.one("hello")["kernels"])
