"""The independent source: transformers on the same folder, and anchors on their own ids."""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from farm.commands import known_good
from farm.core.artifact import Bundle, ModelMetadata, ModelSource, ObjectRef, Toolchain
from farm.core.errors import ExportError, UnknownName
from farm.core.reference import ReferenceRequest, SourceCheck
from farm.judge.rules import judge_source
from farm.paths import model_cache
from models import known, recipes
from models.reference.anchors import anchor_error, find_anchor, perplexity
from models.reference.bounds import find_bound
from models.reference.logits import eager_logits
from models.reference.peer import ask
from models.reference.source import check_source
from models.sources.hf import HfCheckpoint
from models.sources.seeded import SeededCheckpoint
from models.staging import Staging
from models.texts import forced_tokens, read_text
from models.tokenizer import Tokenizer
from tests.integration.models import families
from tests.integration.models.exports import library_noise

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
        return check_source(request, checkpoint, tokens, staging, tmp_path / "cache")


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
    assert found.perplexity == pytest.approx(found.own_perplexity, rel=1e-5)


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


@pytest.mark.parametrize("ruled", [False, True])
def test_a_tokenizer_from_elsewhere_is_the_source_s_too(
    ruled: bool, folder: Path, tmp_path: Path
) -> None:
    given = tmp_path / "elsewhere" / "tokenizer.json"
    given.parent.mkdir()
    shutil.copy(folder / "tokenizer.json", given)
    if ruled:
        rules = {"tokenizer_class": "PreTrainedTokenizerFast"}
        (given.parent / "tokenizer_config.json").write_text(json.dumps(rules))
    other = json.loads(given.read_text())
    other["model"]["merges"] = []
    (folder / "tokenizer.json").write_text(json.dumps(other))
    assert checked(HfCheckpoint(folder, given, tmp_path), folder, tmp_path).ids_equal is True
    assert checked(HfCheckpoint(folder, None, tmp_path), folder, tmp_path).ids_equal is True


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


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-llama-deep"])
def test_the_anchor_of_a_seeded_model_is_what_transformers_computes(name: str) -> None:
    entry = known.get(name)
    assert entry.seeded is not None
    checkpoint = SeededCheckpoint(*entry.seeded)
    anchor = find_anchor(checkpoint.files, Path("nowhere"), name)
    assert anchor is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers and its dependencies, not ours
        theirs = ask(checkpoint, "", anchor["tokens"])
    assert theirs.ids is None
    assert anchor_error(anchor, theirs.logits) <= 1e-4
    assert perplexity(theirs.logits, anchor["tokens"]) == pytest.approx(anchor["perplexity"])


def test_an_anchor_of_other_weights_fails_and_does_not_vanish(folder: Path, tmp_path: Path) -> None:
    checkpoint = opened(folder, tmp_path)
    request = replace(asked(folder), model=ModelSource("tiny-llama"))
    found = check_source(request, checkpoint, range(64), Staging(str(tmp_path)), tmp_path)
    assert (found.by, found.max_abs_error) == ("anchor", None)
    assert "belongs to other weights" in found.reason
    (gate,) = judge_source(found)
    assert (gate.passed, gate.reason) == (False, found.reason)


def test_measured_anchors_and_bounds_are_what_later_references_find(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FARM_HOME", str(tmp_path / "home"))
    cache, model = model_cache(tmp_path / "home"), known_good.source_of(str(folder))
    assert (model.kind, known_good.source_of("tiny-llama").kind) == ("hf", "registry")
    with pytest.raises(UnknownName, match="tiny-llama"):
        known_good.source_of("tiny-lama")
    checkpoint = opened(folder, tmp_path)
    with library_noise():
        anchor = known_good.measure_anchor(model, None, tokens=48)
        bound = known_good.measure_bound(model, "xnnpack-8da4w", None, tokens=48)
        again = known_good.measure_bound(model, "xnnpack-4w", None, tokens=48)
    assert find_anchor(checkpoint.files, cache) == anchor.data
    ids = anchor.data["tokens"]
    for recipe, kept in (("xnnpack-8da4w", bound), ("xnnpack-4w", again)):
        found = find_bound(checkpoint.files, recipes.get(recipe), ids, cache)
        assert found is not None
        assert (found.kl_mean, found.same_text) == (kept.data["kl_mean"], True)
        assert 0 < found.kl_mean < 1
    found_by = checked(checkpoint, folder, tmp_path)
    assert found_by.by == "transformers", "another folder than the one that it was kept in"


def test_an_anchor_of_a_model_that_is_read_wrongly_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FARM_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(known_good, "source_bound", lambda _largest: 1e-12)
    with library_noise(), pytest.raises(ExportError, match="reads this checkpoint wrongly"):
        known_good.measure_anchor(known_good.source_of(str(folder)), None, tokens=48)
    assert not (tmp_path / "home" / "models" / "anchors").exists()
