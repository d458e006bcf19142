"""The worker's protocol, end to end in a process of its own."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from farm import codec
from farm.core.artifact import ExportRequest, LogitsRef, ModelSource, Toolchain
from farm.core.reference import ReferenceRequest
from farm.tasks import kept_worker
from models import recipes
from models.exporting.identify import own_versions, prepare_export, reference_key
from models.orders import ExportAnswer, ExportOrder, ReferenceAnswer, ReferenceOrder
from models.tokenizer import Tokenizer, byte_tokenizer

pytestmark = pytest.mark.export

TINY = ModelSource("tiny-llama")
REQUEST = ExportRequest(TINY, recipes.get("xnnpack-8da4w"), Toolchain("default"))


@pytest.fixture(scope="module", autouse=True)
def _no_idle_worker() -> Iterator[None]:
    yield
    kept_worker.end_idle()


def work(text: str) -> tuple[int, list[dict[str, Any]]]:
    """Have a request performed; returns the exit code of its process and the lines it printed."""
    lines: list[dict[str, Any]] = []
    # The variable that names a test would ask for a worker of that test's own.
    same = {key: value for key, value in os.environ.items() if key != "PYTEST_CURRENT_TEST"}
    with (
        mock.patch.dict(os.environ, same, clear=True),
        kept_worker.lent(Path(sys.executable)) as worker,
    ):
        worker.order(text)
        while (line := worker.lines.get(timeout=300)) is not None:
            lines.append(json.loads(line))
            if lines[-1]["type"] == "end":
                return int(lines.pop()["code"]), lines
        pytest.fail("".join(worker.tail))


def check_files(folder: Path, files: dict[str, str]) -> None:
    for sha256, name in files.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == sha256


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[ExportAnswer, Path]:
    folder = tmp_path_factory.mktemp("export")
    key = prepare_export(REQUEST, folder, own_versions()).key
    code, lines = work(codec.to_json(ExportOrder(REQUEST, key, str(folder), str(folder))))
    assert code == 0
    assert {line["type"] for line in lines} == {"stage", "result"}
    names = [line["name"] for line in lines if line["type"] == "stage"]
    stages = ["open", "record", "read", "lower", "quantise", "compose", "write", "check"]
    assert list(dict.fromkeys(names)) == stages
    return codec.from_data(ExportAnswer, lines[-1]["result"]), folder


def test_export_answer_describes_its_files(exported: tuple[ExportAnswer, Path]) -> None:
    answer, folder = exported
    check_files(folder, answer.files)
    result = answer.result
    assert answer.files[result.bundle.pte.sha256] == "model.pte"
    assert result.bundle.tokenizer is not None
    assert answer.files[result.bundle.tokenizer.sha256] == "tokenizer.json"
    assert result.bundle.metadata.vocab_size == 512
    assert result.versions == own_versions()
    assert result.delegation is not None
    assert 0 < result.delegation.delegated < result.delegation.total
    assert 1.0 < result.cpu_s < 200.0
    assert result.peak_rss_bytes > 100 * 2**20
    assert any("limited to 512" in text for text in result.warnings)


def test_reference_answer_holds_both_eager_logits(
    exported: tuple[ExportAnswer, Path], tmp_path: Path
) -> None:
    bundle = exported[0].result.bundle
    request = ReferenceRequest(
        TINY, REQUEST.recipe, REQUEST.toolchain, bundle, "builtin", 24, "Hello"
    )
    code, lines = work(codec.to_json(ReferenceOrder(request, str(tmp_path), str(tmp_path))))
    assert code == 0, lines
    answer = codec.from_data(ReferenceAnswer, lines[-1]["result"])
    check_files(tmp_path, answer.files)
    result = answer.result
    assert len(result.tokens) == 24
    assert result.prompt == tuple(Tokenizer(byte_tokenizer(512)).chat("Hello"))
    for logits in (result.eager_fp32, result.eager_quantised):
        assert isinstance(logits, LogitsRef)
        assert (logits.rows, logits.cols) == (24, 512)
        assert logits.object.size_bytes == 24 * 512 * 4
    assert result.eager_fp32 != result.eager_quantised
    assert reference_key(request, "a") == reference_key(request, "a") != reference_key(request, "b")


def test_prebuilt_program_is_described_not_exported(
    exported: tuple[ExportAnswer, Path], tmp_path: Path
) -> None:
    _, folder = exported
    source = ModelSource("ours", "pte", str(folder / "model.pte"), str(folder / "tokenizer.json"))
    request = ExportRequest(source, REQUEST.recipe, REQUEST.toolchain)
    key = prepare_export(request, tmp_path, own_versions()).key
    code, lines = work(codec.to_json(ExportOrder(request, key, str(tmp_path), str(tmp_path))))
    assert code == 0, lines
    result = codec.from_data(ExportAnswer, lines[-1]["result"]).result
    assert result.bundle.pte.sha256 == exported[0].result.bundle.pte.sha256
    assert not result.bundle.has_reference
    assert result.delegation is None
    metadata = exported[0].result.bundle.metadata
    assert result.bundle.metadata.vocab_size == metadata.vocab_size
    assert result.bundle.metadata.stop_ids == metadata.stop_ids
    assert result.bundle.metadata.max_context == 512


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("no json", "ConfigError", "not a request of this protocol"),
        ('{"task": "dance"}', "ConfigError", "not a request of this protocol"),
        (
            codec.to_json(ExportOrder(REQUEST, "k", "/tmp", "/nowhere/at/all")),
            "ConfigError",
            "no staging folder",
        ),
    ],
)
def test_bad_requests_are_answered_with_an_error(text: str, kind: str, words: str) -> None:
    code, lines = work(text)
    assert code == 1
    assert lines[-1]["type"] == "error"
    assert lines[-1]["kind"] == kind
    assert words in lines[-1]["message"]


def test_recipe_that_does_not_fit_is_refused_before_any_work(tmp_path: Path) -> None:
    request = ExportRequest(TINY, recipes.get("xnnpack-8da4w-g128"), REQUEST.toolchain)
    code, lines = work(codec.to_json(ExportOrder(request, "k", str(tmp_path), str(tmp_path))))
    assert code == 1
    assert lines[-1]["kind"] == "ExportError"
    assert "group_size 128 divides none" in lines[-1]["message"]
    assert [line["name"] for line in lines if line["type"] == "stage"] == ["open"]
    assert not list(tmp_path.glob("*.pte"))
