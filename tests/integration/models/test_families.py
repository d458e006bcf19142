"""Our eager model equals transformers' for every family, from every format of one checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from farm.core.artifact import ModelSource
from models.checkpoint import Checkpoint
from models.reference.logits import eager_logits
from models.sources import open_source
from models.sources.hf import HfCheckpoint
from tests.integration.models import families

pytestmark = pytest.mark.export

TOLERANCE = 1e-4


def our_logits(checkpoint: Checkpoint, folder: Path) -> torch.Tensor:
    target = folder / "logits.f32"
    return families.read_logits(target, eager_logits(checkpoint, None, families.TOKENS, target))


def opened(kind: str, path: Path, cache: Path) -> Checkpoint:
    source = ModelSource("ours", kind=kind, path=str(path))  # type: ignore[arg-type]
    return open_source(source, cache, lambda _done, _total: None)


@pytest.mark.parametrize("name", families.FAMILIES)
def test_equals_transformers_and_other_formats(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "hf"
    expected = families.save_hf(name, folder)
    assert float(expected.std()) > 0.3, "logits without spread would hide errors"
    checkpoint = opened("hf", folder, tmp_path)
    assert isinstance(checkpoint, HfCheckpoint)
    ours = our_logits(checkpoint, tmp_path)
    assert families.max_difference(ours, expected) <= TOLERANCE

    families.save_gguf(checkpoint, tmp_path / "model.gguf")
    from_gguf = our_logits(opened("gguf", tmp_path / "model.gguf", tmp_path), tmp_path)
    assert families.max_difference(from_gguf, expected) <= TOLERANCE

    for shards in (1, 2):
        meta = tmp_path / f"meta{shards}"
        meta.mkdir()
        families.save_meta(checkpoint, meta, shards)
        from_meta = our_logits(opened("meta", meta, tmp_path), tmp_path)
        assert families.max_difference(from_meta, expected) <= TOLERANCE


def test_unscaled_rope_would_be_found(tmp_path: Path) -> None:
    from dataclasses import replace

    expected = families.save_hf("llama3-untied", tmp_path / "hf")
    checkpoint = opened("hf", tmp_path / "hf", tmp_path)
    checkpoint.config = replace(checkpoint.config, rope_scaling=None)
    assert families.max_difference(our_logits(checkpoint, tmp_path), expected) > 10 * TOLERANCE


def test_other_rope_pairing_would_be_found(tmp_path: Path) -> None:
    """The comparison is sharp: reading halves as neighbours is far outside the tolerance."""
    from dataclasses import replace

    expected = families.save_hf("llama2", tmp_path / "hf")
    checkpoint = opened("hf", tmp_path / "hf", tmp_path)
    checkpoint.config = replace(checkpoint.config, rope_pairing="interleaved")
    assert families.max_difference(our_logits(checkpoint, tmp_path), expected) > 100 * TOLERANCE
