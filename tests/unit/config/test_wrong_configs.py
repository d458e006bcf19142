"""Wrong configs: each is refused with its file, its key, and what is right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from farm.config.load import load_inventory, load_run
from farm.core.errors import ConfigError
from farm.core.rules.waivers import check_cells
from farm.core.spec import Waiver
from farm.planning.catalog import resolve_names

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
    ("gates={regres: '2%'}", "gates.regres", "can't be read, did you mean regress?"),
    ("gates={perplexity: '<= 1.01x hots'}", "gates.perplexity", "(host, eager_fp32, eager_quan"),
    ("gates={regression: '<= 2'}", "gates.regression", "did you mean regress?"),
    ("gates={kl: '<= 0.1'}", "gates.kl", "did you mean kl_m"),
    ("gates={top1: '>= 0.9'}", "gates.top1", "did you mean top1_agreement?"),
    ("gates={tg128: '>= 5'}", "gates.tg128", "did you mean"),
    ("gates={tg64@d1024: '>= 5'}", "gates.tg64@d1024", "did you mean tg64"),
    ("gates={ttft: '<= 1'}", "gates.ttft", "did you mean ttft"),
    ("gates={canary: '<= 1'}", "gates.canary", "a built-in rule"),
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
    ("gates={decode_tok_s: 5}", "gates.decode_tok_s", "write for example `>= 5`"),
    ("gates={decode_tok_s: '>= -5'}", "gates.decode_tok_s", "can't be read"),
    ("gates={perplexity: '== 12.3'}", "gates.perplexity", "measured values vary"),
    ("gates=[perplexity]", "gates", "write keys and values"),
    # wrong units
    ("gates={peak_rss_bytes: '<= 2GiB'}", "gates.peak_rss_bytes", "write a number of bytes"),
    ("gates={ttft_s: '<= 200ms'}", "gates.ttft_s", "write a number of seconds"),
    ("gates={decode_tok_s: '>= 5 tok/s'}", "gates.decode_tok_s", "a number of tokens per second"),
    ("gates={peak_rss_bytes: '<= 2'}", "gates.peak_rss_bytes", "can never be met"),
    ("gates={peak_rss_bytes: '<= 1e20'}", "gates.peak_rss_bytes", "can never fail"),
    ("gates={decode_tok_s: '>= 1e9'}", "gates.decode_tok_s", "can never be met"),
    ("gates={ttft_s: '<= 1e9'}", "gates.ttft_s", "can never fail"),
    ("gates={tg64@d512: '> 1e8'}", "gates.tg64@d512", "can never be met"),
    ("gates={perplexity: '<= 0.1x host'}", "gates.perplexity", "a factor of 1 or above"),
    ("gates={top1_agreement: '>= 1.5x host'}", "gates.top1_agreement", "a factor of 1 or below"),
    # bounds that pass what is slow or wrong
    ("gates={decode_tok_s: '<= 5'}", "gates.decode_tok_s", "write `>=`"),
    ("gates={tg64@d512: '< 5'}", "gates.tg64@d512", "more is better"),
    ("gates={ttft_s: '>= 0.1'}", "gates.ttft_s", "less is better"),
    ("gates={peak_rss_bytes: '> 1e7'}", "gates.peak_rss_bytes", "write `<=`"),
    ("gates={kl_max: '>= 0.1'}", "gates.kl_max", "the wrong way round"),
    ("gates={cosine_min: '<= 0.9'}", "gates.cosine_min", "write `>=`"),
    ("gates={perplexity: '>= 0.5x host'}", "gates.perplexity", "write `<=`"),
    ("gates={regress: '0%'}", "gates.regress", "write for example `2%`"),
    ("gates={regress: '100%'}", "gates.regress", "can't be decided"),
    ("gates={regress: automatic}", "gates.regress", "neither `auto` nor a percentage such as"),
    ("gates={regress: '-2%'}", "gates.regress", "neither `auto` nor a percentage"),
    ("gates={regress: '<= 2%'}", "gates.regress", "such as `2%`"),
    ("gates={regress: 2}", "gates.regress", "write `2%` or `auto`"),
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
    (f"waivers=[{{{WAIVER}, gate: decode_tok_s, metric: pp128}}]", "waivers.0.metric",
     "it judges tg64"),
    (f"waivers=[{{{WAIVER}, gate: canary, metric: tg64}}]", "waivers.0.metric", "judges canary"),
    ("waivers={cells: '*'}", "waivers", "write a list"),
    ("waivers=[{cells: '', gate: regress, until: 2027-01-01, reason: abc}]", "waivers.0.cells",
     "at least 1 character"),
    (f"waivers=[{{{WAIVER}, gate: regress, isue: x}}]", "waivers.0.isue", "did you mean issue?"),
    (f"waivers=[{{{WAIVER}, gate: '*'}}]", "waivers.0.gate", "judges nothing here"),
    (f"waivers=[{{{WAIVER}, gate: regress, max_loss: .nan}}]", "waivers.0.max_loss", "percentage"),
    ("waivers=[{cells: '*', gate: regress, until: 01/02/2027, reason: abc}]", "waivers.0.until",
     "write a date such as 2027-01-31"),
    ("waivers=[{cells: '*', gate: regress, until: 20270101, reason: abc}]", "waivers.0.until",
     "write a date such as 2027-01-31"),
    ("waivers=[{cells: '*', gate: regress, until: 2027-01-01, reason: '   '}]",
     "waivers.0.reason", "at least 3 characters"),
    # shares, budgets, names
    ("toolchains={release: {executorch: ''}}", "toolchains.release.executorch", "at least 1 char"),
    ("require={judged: 101%}", "require.judged", "not between 0% and 100%"),
    ("require={speed: -0.1}", "require.speed", "not between 0% and 100%"),
    ("require={judgd: 90%}", "require.judgd", "did you mean judged?"),
    ("workload.budget_s=-60", "workload.budget_s", "greater than 0"),
    ("workload.budget_s=.inf", "workload.budget_s", "finite"),
    ("workload.budget_s=.nan", "workload.budget_s", "finite"),
    ("workload.budget_s=3600", "workload.budget_s", "limits.job_s ends it after 14400 s"),
    ("limits.job_s=480", "workload.budget_s", "a second sitting may take 4 times as long, 480 s"),
    ("require={judged: .nan}", "require.judged", "no percentage"),
    ("require={judged: 95}", "require.judged", "not between 0% and 100%"),
    ("workload.depth=[]", "workload.depth", "at least 1 item"),
    ("workload.prefill=[128, 64, 128]", "workload.prefill", "128 is there twice"),
    ("workload.prefill=128", "workload.prefill", "write a list"),
    ("matrix.recipe=[xnnpack-fp32, xnnpack-fp32]", "matrix.recipe", "is there twice"),
    ("matrix.toolchain=[nightly]", "matrix.toolchain", "known: default"),
    ("models=[tiny-llama, {name: tiny-llama, hf: x}]", "models", "is there twice"),
    ("devices=[{each: 'ram>=lots'}]", "devices.0.each", "write for example `ram>=6GiB`"),
    ("limits={run_s: .inf}", "limits.run_s", "finite"),
    ("workload.launches=0", "workload.launches", "greater than or equal to 1"),
    ("workload.precision=0%", "workload.precision", "greater than 0"),
    ("exclude=[{recipe: xnnpack-8da4}]", "exclude.0.recipe", "did you mean xnnpack-8da4w?"),
    ("exclude=[{threads: 3}]", "exclude.0.threads", "has: auto"),
    ("exclude=[{}]", "exclude", "would leave out every cell"),
    ("exclude=[{recpe: x}]", "exclude", "did you mean recipe?"),
    ("gate={perplexity: '<= 2'}", "gate", "did you mean gates?"),
    # decoding without a pause, and the gate's own check
    ("workload.sustaned_s=600", "workload.sustaned_s", "did you mean sustained_s?"),
    ("workload.sustained_s=0", "workload.sustained_s", "greater than 0"),
    ("workload={decode: [], sustained_s: 60}|gates={}", "workload", "it needs `decode`"),
    ("gates={steady_tok_s: '>= 5'}", "gates.steady_tok_s", "nothing of the workload gives it"),
    ("gates={stedy_tok_s: '>= 5'}", "gates.stedy_tok_s", "did you mean steady_tok_s?"),
    ("self_check={every: 0}", "self_check.every", "greater than or equal to 1"),
    ("self_check={slower: xnnpack-8da4w}", "self_check.slower", "is what the matrix runs"),
    (f"waivers=[{{{WAIVER}, gate: kl_mean, stage: device}}]", "waivers.0.stage", "device_pte"),
    (f"waivers=[{{{WAIVER}, gate: regress, stage: device_pte}}]", "waivers.0.stage", "built-in"),
    # a switch is no number: it would be read as 1
    ("workload.launches=true", "workload.launches", "true and false are no value of it"),
    ("workload.launches=yes", "workload.launches", "no value of it"),
    ("workload.decode=[true]", "workload.decode", "no value of it"),
    ("correctness.tokens=on", "correctness.tokens", "no value of it"),
    # prompts whose answers people read
    ("prompts=['']", "prompts.0", "an empty prompt asks nothing"),
    ("prompts=[hi, {text: hi, max_new_token: 3}]", "prompts.1.max_new_token",
     "did you mean max_new_tokens?"),
    ("prompts=[{text: hi, max_new_tokens: 0}]", "prompts.0.max_new_tokens", "greater than or"),
    ("prompts=[{max_new_tokens: 5}]", "prompts.0.text", "required"),
    ("prompts=hi", "prompts", "list"),
    ("promts=[hi]", "promts", "did you mean prompts?"),
    ("self_check={evry: 7}", "self_check.evry", "did you mean every?"),
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


@pytest.mark.parametrize(
    "gate", ["regress", "perplexity", "decode_tok_s", "bit_equal", "canary", "timed_tokens"]
)
def test_waivers_of_gates_that_judge_are_taken(tmp_path: Path, gate: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(GOOD)
    spec, config = load_run(path, [f"waivers=[{{{WAIVER}, gate: {gate}}}]"])
    assert spec.waivers[0].gate == gate
    assert json.loads(json.dumps(config))["waivers"][0]["until"] == "2027-01-01", "reports are JSON"


def test_a_planted_artifact_needs_a_recipe_that_there_is(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(GOOD)
    spec, _ = load_run(path, ["workload.depth=[0]", "self_check={slower: xnnpack-fp3}"])
    with pytest.raises(ConfigError, match=r"self_check\.slower: .*xnnpack-fp32"):
        resolve_names(spec)


@pytest.mark.parametrize(
    ("override", "key", "says"),
    [
        ("models=[tiny-lama]", "models.0", "did you mean tiny-llama?"),
        ("matrix.recipe=[xnnpack-8da4]", "matrix.recipe.0", "did you mean xnnpack-8da4w?"),
        ("matrix.runner=[executorh]", "matrix.runner.0", "did you mean executorch?"),
        ("correctness.text=nowhere.txt", "correctness.text", "there is no file"),
    ],
)
def test_a_name_of_nothing_is_refused(tmp_path: Path, override: str, key: str, says: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(GOOD)
    spec, _ = load_run(path, ["workload.depth=[0]", override])
    with pytest.raises(ConfigError) as caught:
        resolve_names(spec)
    assert caught.value.message.startswith(f"{path}: {key}: ")
    assert says in caught.value.message


def test_gates_on_decoding_without_a_pause_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(GOOD)
    gates = "gates={steady_tok_s: '>= 5', first_minute_tok_s: '>= 8'}"
    spec, _ = load_run(path, ["workload.sustained_s=600", gates])
    assert spec.workload.sustained_s == 600


def test_a_waiver_of_no_cell_of_the_plan_is_refused() -> None:
    cells = ["tiny-llama/xnnpack-8da4w:executorch:auto:pixel8"]
    held = Waiver("tiny-llama/*", "regress", "2027-01-01", "known")
    lost = Waiver("tiny-llama/*:pixel9", "regress", "2027-01-01", "known")
    check_cells([held], cells, "run.yaml")
    with pytest.raises(ConfigError) as caught:
        check_cells([held, lost], cells, "run.yaml")
    assert caught.value.message.startswith("run.yaml: waivers.1.cells: 'tiny-llama/*:pixel9'")
    assert f"`{cells[0]}`" in caught.value.message


def test_what_yaml_itself_trips_over_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(GOOD + "waivers: [{cells: '*', gate: regress, until: 2026-13-01, reason: abc}]")
    with pytest.raises(ConfigError, match=r"run.yaml: is not YAML: month must be in"):
        load_run(path)
    path.write_text(GOOD)
    with pytest.raises(ConfigError, match=r"--set 'waivers=.*: is not YAML: month must be in"):
        load_run(path, ["waivers=[{until: 2026-13-01}]"])


@pytest.mark.parametrize(
    ("more", "key", "lines"),
    [
        ("gates: {regress: '50%'}\n", "gates", (5, 6)),
        ("require: {judged: 90%, speed: 90%, judged: 0%}\n", "require.judged", (6, 6)),
        ("waivers:\n- cells: a\n  gate: regress\n  cells: '*'\n", "waivers.0.cells", (7, 9)),
    ],
)
def test_a_key_that_stands_twice_is_refused(
    tmp_path: Path, more: str, key: str, lines: tuple[int, int]
) -> None:
    """YAML takes none of them, PyYAML the last: half of the gates would be gone."""
    path = tmp_path / "run.yaml"
    path.write_text(GOOD + more)
    with pytest.raises(ConfigError) as caught:
        load_run(path)
    told = f"{path}: {key}: stands there twice, on lines {lines[0]} and {lines[1]}; leave one"
    assert caught.value.message == told
    path.write_text(GOOD)
    with pytest.raises(ConfigError, match=r"workload=.*: budget_s: stands there twice"):
        load_run(path, ["workload={budget_s: 60, prefill: [16], budget_s: 1}"])


def test_an_anchor_that_leads_to_itself_ends(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(f"{GOOD}waivers: &all [*all]\n")
    with pytest.raises(ConfigError, match=r"waivers\.0"):
        load_run(path)


def test_a_merged_key_may_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "inventory.yaml"
    path.write_text(
        "devices:\n- &one {name: a, transport: ssh, host: a.lab, port: 22}\n"
        "- {<<: *one, name: b, port: 23}\n"
    )
    first, second = load_inventory(path).entries
    assert (first.port, second.name, second.host, second.port) == (22, "b", "a.lab", 23)


@pytest.mark.parametrize(
    ("keys", "key"),
    [
        ("transport: ssh, host: a.lab, port: true", "port"),
        ("transport: local, thermal: {battery_max_c: -5}", "thermal.battery_max_c"),
        ("transport: local, thermal: {wait_max_s: on}", "thermal.wait_max_s"),
    ],
)
def test_a_wrong_inventory_is_refused(tmp_path: Path, keys: str, key: str) -> None:
    path = tmp_path / "inventory.yaml"
    path.write_text(f"devices:\n- {{name: a, {keys}}}\n")
    with pytest.raises(ConfigError, match=f"devices.0.{key}"):
        load_inventory(path)


def test_several_mistakes_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(GOOD)
    with pytest.raises(ConfigError) as caught:
        load_run(path, ["gates={tokens: '>= 5', load_s: '<= 0'}"])
    assert [line.split(": ")[1] for line in caught.value.message.splitlines()] == [
        "gates.tokens",
        "gates.load_s",
    ]
