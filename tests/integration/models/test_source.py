"""The independent source: transformers on the same folder, and anchors on their own ids."""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from farm.core.artifact import (
    Bundle,
    ModelMetadata,
    ModelSource,
    ObjectRef,
    ReferenceRequest,
    SourceCheck,
    Toolchain,
)
from models import recipes
from models.reference.logits import eager_logits
from models.reference.source import check_source
from models.sources.hf import HfCheckpoint
from models.staging import Staging
from models.texts import forced_tokens, read_text
from models.tokenizer import Tokenizer
from tests.integration.models import families

pytestmark = pytest.mark.export


def asked(folder: Path) -> ReferenceRequest:
    nothing = ObjectRef("0" * 64, 1, "model.pte")
    metadata = ModelMetadata(families.VOCAB, 3, 0, 1024, 1024, None, ())
    bundle = Bundle(
        "key", "ours", "xnnpack-fp32", "default", nothing, None, None, None, metadata, "xnnpack"
    )
    model = ModelSource("ours", kind="hf", path=str(folder))
    return ReferenceRequest(
        model, recipes.get("xnnpack-fp32"), Toolchain("default"), bundle, "builtin", 64, "Hello"
    )


def checked(checkpoint: HfCheckpoint, folder: Path, tmp_path: Path) -> SourceCheck:
    request, staging = asked(folder), Staging(str(tmp_path))
    tokens = forced_tokens(Tokenizer(checkpoint.tokenizer), read_text("builtin"), 64)
    eager_logits(checkpoint, None, tokens, staging.folder / "eager_fp32.f32")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers and its dependencies, not ours
        return check_source(request, checkpoint, tokens, staging)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "hf"
    families.save_hf("llama3-untied", folder)
    return folder


def opened(folder: Path, tmp_path: Path) -> HfCheckpoint:
    return HfCheckpoint(folder, folder / "tokenizer.json", tmp_path)


def test_a_checkpoint_that_is_read_rightly(folder: Path, tmp_path: Path) -> None:
    found = checked(opened(folder, tmp_path), folder, tmp_path)
    assert (found.by, found.tokens, found.ids_equal, found.reason) == ("transformers", 64, True, "")
    assert found.max_abs_error is not None
    assert found.max_abs_error <= 1e-4


@pytest.mark.parametrize(
    "fault", [{"rope_theta": 10000.0}, {"norm_eps": 1e-2}, {"rope_pairing": "interleaved"}]
)
def test_a_fault_that_loader_and_export_share(
    fault: dict[str, object], folder: Path, tmp_path: Path
) -> None:
    checkpoint = opened(folder, tmp_path)
    checkpoint.config = replace(checkpoint.config, **fault)  # type: ignore[arg-type]
    found = checked(checkpoint, folder, tmp_path)
    assert found.max_abs_error is not None
    assert found.max_abs_error > 1e-3


def test_token_ids_that_part_are_named(folder: Path, tmp_path: Path) -> None:
    checkpoint = opened(folder, tmp_path)
    checkpoint.tokenizer = replace(checkpoint.tokenizer, bos_id=1, add_bos=True)
    found = checked(checkpoint, folder, tmp_path)
    assert found.ids_equal is False
    assert found.reason.startswith("token 0 is 1, the source has")


def test_a_folder_that_transformers_can_not_load_is_no_source(folder: Path, tmp_path: Path) -> None:
    checkpoint = opened(folder, tmp_path)
    (folder / "config.json").write_text('{"model_type": "unheard-of"}')
    found = checked(checkpoint, folder, tmp_path)
    assert (found.by, found.max_abs_error) == ("", None)
    assert found.reason.startswith("transformers can't load it")


def test_without_transformers_the_reason_says_what_to_install(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = opened(folder, tmp_path)
    monkeypatch.setitem(sys.modules, "transformers", None)
    found = checked(checkpoint, folder, tmp_path)
    assert found.by == ""
    assert "pip install transformers" in found.reason
