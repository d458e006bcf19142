"""Wrong configs: each is refused with its file, its key, and what is right."""

from __future__ import annotations

from pathlib import Path

import pytest

from farm.config.load import load_run
from farm.core.errors import ConfigError
from farm.core.rules.waivers import check_cells
from farm.core.spec import Waiver

GOOD = """
name: t
models: [tiny-llama]
workload: {prefill: [128], decode: [64], depth: [0, 512]}
gates: {perplexity: "<= 1.01x host", decode_tok_s: ">= 5", regress: "3%"}
"""

WAIVER = "cells: '*', until: 2027-01-01, reason: known"

#: What is overridden, the key that the error names, and what it says.
WRONG = [
    # typos of gates
    ("gates={decode_tok_sec: '>= 5'}", "gates.decode_tok_sec", "did you mean decode_tok_s?"),
    ("gates={decod_tok_s: '>= 5'}", "gates.decod_tok_s", "did you mean decode_tok_s?"),
    ("gates={Perplexity: '<= 20'}", "gates.Perplexity", "did you mean perplexity?"),
    ("gates={peak_rss: '<= 1e9'}", "gates.peak_rss", "did you mean peak_rss_bytes?"),
    ("gates={regres: '2%'}", "gates", "regres: '2%' can't be read"),
    ("gates={regression: '<= 2'}", "gates.regression", "did you mean regress?"),
    ("gates={kl: '<= 0.1'}", "gates.kl", "did you mean kl_m"),
    ("gates={top1: '>= 0.9'}", "gates.top1", "did you mean top1_agreement?"),
    ("gates={tg128: '>= 5'}", "gates.tg128", "did you mean"),
    ("gates={tg64@d1024: '>= 5'}", "gates.tg64@d1024", "did you mean tg64"),
    ("gates={ttft: '<= 1'}", "gates.ttft", "did you mean ttft"),
    # bounds that nothing can decide
    ("gates={decode_tok_s: '>= 5x host'}", "gates.decode_tok_s", "can never be decided: host has"),
    ("gates={peak_rss_bytes: '<= 2x host'}", "gates.peak_rss_bytes", "`<= 2`"),
    ("gates={kl_mean: '<= 2x eager_fp32'}", "gates.kl_mean", "`x eager_quantised`"),
    ("gates={decode_tok_s: '== 5'}", "gates.decode_tok_s", "write `<=` or `>=`"),
    ("gates={perplexity: '<= 0.5'}", "gates.perplexity", "can never be met"),
    ("gates={top1_agreement: '>= 1.5'}", "gates.top1_agreement", "lies between 0 and 1"),
    ("gates={cosine_min: '> 1'}", "gates.cosine_min", "can never be met"),
    ("gates={load_s: '<= 0'}", "gates.load_s", "can never be met"),
    ("gates={decode_tok_s: '>= 0'}", "gates.decode_tok_s", "can never fail"),
    ("gates={kl_mean: '<= 1e999'}", "gates.kl_mean", "no finite number"),
    ("gates={perplexity: '<= 0x host'}", "gates.perplexity", "a factor above 0"),
    ("gates={decode_tok_s: 5}", "gates", "write for example `>= 5`"),
    ("gates={decode_tok_s: '>= -5'}", "gates", "can't be read"),
    ("gates={regress: '0%'}", "gates.regress", "write for example `2%`"),
    ("gates={regress: '100%'}", "gates.regress", "can't be decided"),
    ("gates={regress: automatic}", "gates", "'automatic' is neither `auto` nor a percentage"),
    ("gates={regress: '-2%'}", "gates", "is no percentage"),
    # gates on what the workload doesn't give
    ("workload={decode: [], depth: [0]}", "gates.decode_tok_s", "it measures pp128, load, ttft"),
    ("models=[{name: m, pte: m.pte}]|gates={kl_mean: '<= 1'}", "gates.kl_mean", "`x host`"),
    # waivers
    (f"waivers=[{{{WAIVER}, gate: regres}}]", "waivers.0.gate", "did you mean regress?"),
    (f"waivers=[{{{WAIVER}, gate: ttft_s}}]", "waivers.0.gate", "judges nothing here"),
    (f"waivers=[{{{WAIVER}, gate: regress, metric: tg46}}]", "waivers.0.metric", "mean tg64"),
    (f"waivers=[{{{WAIVER}, gate: perplexity, max_loss: 5%}}]", "waivers.0.max_loss", "regress"),
    (f"waivers=[{{{WAIVER}, gate: regress, max_loss: -5%}}]", "waivers.0.max_loss", "percentage"),
    ("waivers=[{cells: '*', gate: regress, until: soon, reason: abc}]", "waivers.0.until", "date"),
    ("waivers=[{cells: '*', gate: regress, reason: abc}]", "waivers.0.until", "required"),
    ("waivers=[{cells: '', gate: regress, until: 2027-01-01, reason: abc}]", "waivers.0.cells",
     "at least 1 character"),
    (f"waivers=[{{{WAIVER}, gate: regress, isue: x}}]", "waivers.0.isue", "did you mean issue?"),
    # shares, budgets, names
    ("require={judged: 101%}", "require.judged", "not between 0% and 100%"),
    ("require={speed: -0.1}", "require.speed", "not between 0% and 100%"),
    ("require={judgd: 90%}", "require.judgd", "did you mean judged?"),
    ("workload.budget_s=-60", "workload.budget_s", "greater than 0"),
    ("workload.launches=0", "workload.launches", "greater than or equal to 1"),
    ("workload.precision=0%", "workload.precision", "greater than 0"),
    ("exclude=[{recipe: xnnpack-8da4}]", "exclude.0.recipe", "did you mean xnnpack-8da4w?"),
    ("exclude=[{threads: 3}]", "exclude.0.threads", "has: auto"),
    ("gate={perplexity: '<= 2'}", "gate", "did you mean gates?"),
]  # fmt: skip


@pytest.mark.parametrize(("override", "key", "says"), WRONG, ids=[one[0] for one in WRONG])
def test_a_wrong_config_is_refused(tmp_path: Path, override: str, key: str, says: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(GOOD)
    load_run(path)
    with pytest.raises(ConfigError) as caught:
        load_run(path, override.split("|"))
    first = caught.value.message.splitlines()[0]
    assert first.startswith(f"{path}: {key}: "), first
    assert says in first
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "gates",
    [
        "{tg64@d512: '>= 5', pp128: '> 1', 'ttft@pp128@d512': '<= 2'}",
        "{kl_mean: '<= 1.5x host', cosine_min: '>= 0.9', top1_agreement: '== 1'}",
        "{perplexity: '<= 1.3x eager_fp32', load_s: '< 9', inter_token_s: '<= 0.1'}",
        "{max_abs_error: '== 0', peak_rss_bytes: '<= 3e8', regress: '1.5%'}",
    ],
)
def test_gates_that_can_decide_are_taken(tmp_path: Path, gates: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(GOOD)
    load_run(path, [f"gates={gates}"])


@pytest.mark.parametrize("gate", ["regress", "perplexity", "decode_tok_s", "bit_equal", "canary"])
def test_waivers_of_gates_that_judge_are_taken(tmp_path: Path, gate: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(GOOD)
    spec, _ = load_run(path, [f"waivers=[{{{WAIVER}, gate: {gate}}}]"])
    assert spec.waivers[0].gate == gate


def test_a_waiver_of_no_cell_of_the_plan_is_refused() -> None:
    cells = ["tiny-llama/xnnpack-8da4w:executorch:auto:pixel8"]
    held = Waiver("tiny-llama/*", "regress", "2027-01-01", "known")
    lost = Waiver("tiny-llama/*:pixel9", "regress", "2027-01-01", "known")
    check_cells([held], cells, "run.yaml")
    with pytest.raises(ConfigError) as caught:
        check_cells([held, lost], cells, "run.yaml")
    assert caught.value.message.startswith("run.yaml: waivers.1.cells: 'tiny-llama/*:pixel9'")
    assert f"`{cells[0]}`" in caught.value.message


def test_several_mistakes_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(GOOD)
    with pytest.raises(ConfigError) as caught:
        load_run(path, ["gates={tokens: '>= 5', load_s: '<= 0'}"])
    assert [line.split(": ")[1] for line in caught.value.message.splitlines()] == [
        "gates.tokens",
        "gates.load_s",
    ]
