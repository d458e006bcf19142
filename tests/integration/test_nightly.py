"""The commands of the README, night after night."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.command import CONFIGS, Farm

TINY = str(CONFIGS / "tiny.yaml")
#: Tests share their cores with others: only a loss of four fifths can be told for sure.
LOCAL = (
    "--cluster", "none", "--select", "transport=local", "--live", "off",
    "--set", "gates={perplexity: '<= 1.02x host', regress: '80%'}",
)  # fmt: skip

pytestmark = pytest.mark.export


def test_three_nights(farm: Farm, tmp_path: Path) -> None:
    done = farm("nightly", TINY, *LOCAL)
    assert done.returncode == 2
    assert "--allow-no-baseline" in done.stderr

    done = farm("nightly", TINY, *LOCAL, "--allow-no-baseline")
    assert done.returncode == 0, done.stdout + done.stderr
    done = farm("baseline", "set", "latest", "tiny")
    assert done.returncode == 0, done.stderr

    done = farm("nightly", TINY, *LOCAL)
    assert done.returncode == 0, done.stdout + done.stderr
    baseline = farm.report()["results"][0]["baseline"]
    assert baseline["verdict"] in ("PASS", "IMPROVED")
    assert {m["metric"] for m in baseline["metrics"]} >= {"pp128", "tg128"}

    slower = tmp_path / "slower"
    done = farm("export", TINY, "--set", "models=[tiny-llama-deep]", "--copy", str(slower))
    assert done.returncode == 0, done.stderr
    model = (
        f"models=[{{name: tiny-llama, pte: {slower}/tiny-llama-deep-xnnpack-8da4w.pte,"
        f" tokenizer: {slower}/tiny-llama-deep-tokenizer.json}}]"
    )
    done = farm("nightly", TINY, *LOCAL, "--set", model)
    assert done.returncode == 1, done.stdout + done.stderr
    result = farm.report()["results"][0]
    assert result["baseline"]["verdict"] == "REGRESSED"
    assert result["outcome"] == "failed"

    listed = farm("history", "--json")
    assert listed.stdout.count('"run_id"') == 3
