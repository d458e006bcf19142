"""`tokenizer: FILE` beside a program or a GGUF: what lies beside it counts, its notes are told."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest

from farm.core.artifact import (
    Bundle,
    ExportRequest,
    ModelMetadata,
    ModelSource,
    ObjectRef,
    Toolchain,
    ToolchainVersions,
)
from farm.core.reference import ReferenceRequest
from models import recipes
from models.exporting import prebuilt
from models.exporting.identify import prepare_export
from models.exporting.prebuilt import describe_prebuilt
from models.orders import ExportOrder
from models.reference.ids import prebuilt_tokenizer, tokenised
from models.sources.gguf import GgufCheckpoint
from models.staging import Staging
from models.tokenizer import Tokenizer, byte_tokenizer
from tests.unit.models.test_sources import write_gguf

RECIPE = recipes.get("xnnpack-fp32")


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """A tokenizer that transformers' class reads otherwise than its file says."""
    folder = tmp_path / "given"
    folder.mkdir()
    rules = {"tokenizer_class": "Qwen2Tokenizer", "pad_token": "<|eos|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(rules))
    (folder / "tokenizer.json").write_text(byte_tokenizer(512).json)
    return folder / "tokenizer.json"


def program(given: Path) -> ModelSource:
    path = given.parent.parent / "model.pte"
    path.write_bytes(b"program")
    return ModelSource("ours", "pte", str(path), str(given))


def test_every_file_that_decides_a_bundle_is_in_its_key(given: Path, tmp_path: Path) -> None:
    request = ExportRequest(program(given), RECIPE, Toolchain("default"))
    versions = ToolchainVersions("3.11", "2", "1", "0")

    def key() -> str:
        return prepare_export(request, tmp_path / "cache", versions).key

    keys = [key()]
    for name in ("chat_template.jinja", "generation_config.json", "tokenizer_config.json"):
        (given.parent / name).write_text("{}" if name.endswith("json") else "{{ messages }}")
        keys.append(key())
    assert len(set(keys)) == 4


def test_what_a_given_tokenizer_notes_is_told(
    given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_gguf(tmp_path / "model.gguf")
    (note,) = GgufCheckpoint(tmp_path / "model.gguf", tmp_path, given).notes
    assert "transformers' Qwen2Tokenizer builds" in note
    monkeypatch.setattr(prebuilt, "read_methods", lambda _path: {})
    (tmp_path / "staging").mkdir()
    request = ExportRequest(program(given), RECIPE, Toolchain("default"))
    order = ExportOrder(request, "key", str(tmp_path), str(tmp_path / "staging"))
    assert describe_prebuilt(order, Staging(order.staging)).warnings == (note,)


def asked(given: Path) -> ReferenceRequest:
    nothing = ObjectRef("0" * 64, 1, "model.pte")
    metadata = ModelMetadata(512, 1, 0, 128, 128, 3, (5,))
    bundle = Bundle(
        "key", "ours", RECIPE.name, "default", nothing, None, None, None, metadata, "xnnpack"
    )
    return ReferenceRequest(
        program(given), RECIPE, Toolchain("default"), bundle, "builtin", 64, "Hi"
    )


def test_a_program_s_prompts_may_print_every_named_token(given: Path) -> None:
    found = prebuilt_tokenizer(asked(given))
    assert (found.bos_id, found.stop_ids) == (3, (5,))
    assert found.special == (("pad_token", "<|eos|>"),)


def test_what_a_run_asks_is_the_same_on_every_day(given: Path) -> None:
    (given.parent / "chat_template.jinja").write_text("{{ strftime_now('%Y') }} of {{ bos_token }}")
    request = asked(given)
    data = prebuilt_tokenizer(request)
    found, tokenizer = tokenised(request, data), Tokenizer(data)
    assert found.prompt_text == "2025 of "
    assert list(found.prompt) == tokenizer.encode("2025 of ", bos=False)
    assert tokenizer.chat_text("Hi") == f"{date.today():%Y} of "  # noqa: DTZ011 (as a template has it)
