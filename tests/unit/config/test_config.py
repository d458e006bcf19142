from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from farm.config.load import load_inventory, load_run
from farm.core.artifact import Toolchain
from farm.core.errors import ConfigError
from farm.core.plan import Catalog, Plan
from farm.core.spec import Require, Resources
from farm.planning.planning import Prepared, plan_data

GOOD = """
name: t
models: [tiny-llama, {name: ours, pte: model.pte, tokenizer: tok.json}]
toolchains: {release: {executorch: "==1.5.1"}}
devices: [{each: "transport=adb"}, {pool: s24, select: "model=SM-S921B", any: 2}]
gates: {perplexity: "<= 1.01x host", decode_tok_s: ">= 5", regress: "3%"}
require: {judged: "95%"}
waivers: [{cells: "*", gate: perplexity, until: 2027-01-01, reason: known}]
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return path


def test_everything_arrives(tmp_path: Path) -> None:
    spec, data = load_run(write(tmp_path, GOOD))
    assert [(m.name, m.kind) for m in spec.models] == [("tiny-llama", "registry"), ("ours", "pte")]
    assert spec.models[1].path == str(tmp_path / "model.pte")
    assert spec.matrix.toolchain == ("release",)
    assert [(g.metric, g.op, g.value, g.relative_to) for g in spec.gates] == [
        ("perplexity", "<=", 1.01, "host"),
        ("decode_tok_s", ">=", 5.0, None),
    ]
    assert spec.regress == pytest.approx(0.03)
    assert not spec.regress_auto
    auto, _ = load_run(write(tmp_path, GOOD.replace('regress: "3%"', "regress: auto")))
    assert (auto.regress, auto.regress_auto) == (0.02, True)
    assert spec.require == Require(Fraction(95, 100), None)
    assert spec.waivers[0].until == "2027-01-01"
    assert data["name"] == "t"


def test_a_toolchain_names_one_release_of_torch_each(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    spec, _ = load_run(path, ['toolchains.release.torch="2.14.0"'])
    assert spec.toolchains == (Toolchain("release", "==1.5.1", torch="2.14.0"),)
    assert load_run(path)[0].toolchains == (Toolchain("release", "==1.5.1"),)
    with pytest.raises(ConfigError, match=r"toolchains\.release\.torchao"):
        load_run(path, ['toolchains.release.torchao=">=0.18"'])


def test_values_of_a_runners_variables_reach_the_runner_and_no_report(tmp_path: Path) -> None:
    env = "{API_KEY: s3cret, FARM_XNNPACK: stock}"
    runner = f"runners: {{mine: {{argv: [./x], parse: jsonl, env: {env}}}}}"
    path = write(tmp_path, GOOD + runner)
    spec, data = load_run(path)
    assert dict(spec.runners[0].env)["API_KEY"] == "s3cret"
    assert data["runners"]["mine"]["env"] == {"API_KEY": "***", "FARM_XNNPACK": "stock"}
    bare = replace(spec, matrix=replace(spec.matrix, recipe=()))
    plan = Prepared(bare, data, Catalog({}, {}, {}, {}), Plan((), (), (), ()))
    assert "s3cret" not in repr(plan_data(plan))
    # Another value is another config, although both are shown alike.
    other = load_run(path, ["runners.mine.env.API_KEY=other"])[0]
    assert other.sha256 != spec.sha256


def test_overrides_apply_before_validation(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    spec, _ = load_run(path, ["models=[llama-3.2-1b]", "workload.decode=[8, 16]"])
    assert [m.name for m in spec.models] == ["llama-3.2-1b"]
    assert spec.workload.decode == (8, 16)
    assert spec.sha256 != load_run(path)[0].sha256


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("wrkload.decode=1", "wrkload: unknown key; allowed: name, toolchains"),
        ("workload.decod=1", "workload.decod: unknown key; allowed: prefill, decode"),
        ("matrix.threads=[0]", "matrix.threads.0: write `auto` or a number from 1 to 256"),
        ("models=[]", "models: Tuple should have at least 1 item"),
        ("models=[{name: x}]", "models.0: name exactly one source: hf, gguf, meta or pte"),
        ("devices=[{each: 'ram>>3'}]", "devices.0.each: selector 'ram>>3' can't be read"),
        ("devices=[{each: '', any: 1}]", "devices.0: write either"),
        ("gates={perplexity: about 5}", "gates: perplexity: 'about 5' can't be read"),
        ("require={judged: most}", "require.judged: 'most' is no percentage"),
        ("matrix.toolchain=[nope]", "'nope' is not defined; known: default, release"),
        ("exclude=[{speed: 1}]", "exclude: 'speed' is no field of a cell"),
    ],
)
def test_errors_name_file_and_key_and_what_is_allowed(
    tmp_path: Path, override: str, says: str
) -> None:
    path = write(tmp_path, GOOD)
    with pytest.raises(ConfigError) as caught:
        load_run(path, [override])
    assert caught.value.message.startswith(f"{path}: ")
    assert says in caught.value.message
    assert "\n" not in caught.value.message, "one mistake gives one line"


@pytest.mark.parametrize("text", ["[1, 2", "- a\n- b\n", "name: \xff"])
def test_what_is_no_config_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"run\.yaml"):
        load_run(path)


def test_missing_file_says_where_examples_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        load_run(tmp_path / "absent.yaml")


@pytest.mark.parametrize("override", ["novalue", "=3", "name.deep=1", "name=[1"])
def test_bad_overrides(tmp_path: Path, override: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        load_run(write(tmp_path, GOOD), [override])


def test_inventory(tmp_path: Path) -> None:
    path = tmp_path / "inv.yaml"
    path.write_text(
        "devices:\n"
        "  - {name: p, transport: adb, serial: S, recover: [reconnect, {command: uhubctl}]}\n"
        "  - {name: s, transport: ssh, host: h, identity: key, labels: {tier: gold}}\n"
        "defaults: {adb: none, local: false}\n"
    )
    inventory = load_inventory(path)
    assert [e.name for e in inventory.entries] == ["p", "s"]
    assert inventory.entries[0].recover == ("reconnect", "command: uhubctl")
    assert inventory.entries[1].identity == str(tmp_path / "key")
    assert (inventory.adb_auto, inventory.local) == (False, False)
    assert load_inventory(None).local is True


@pytest.mark.parametrize(
    ("device", "says"),
    [
        ("{name: p, transport: adb}", "needs `serial`"),
        ("{name: p, transport: ssh}", "needs `host`"),
        ("{name: p, transport: usb}", "devices.0.transport"),
        ("{name: p, transport: adb, serial: s}, {name: p, transport: adb, serial: t}", "twice"),
    ],
)
def test_inventory_errors(tmp_path: Path, device: str, says: str) -> None:
    path = tmp_path / "inv.yaml"
    path.write_text(f"devices: [{device}]\n")
    with pytest.raises(ConfigError, match=says):
        load_inventory(path)


def test_export_takes_cpus_memory_and_a_time(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("name: x\nmodels: [m]\nexport: {cpus: 3, memory: 6GiB, timeout_s: 90}\n")
    assert load_run(path)[0].export == Resources(3, 6 << 30, 90.0)
    path.write_text("name: x\nmodels: [m]\nexport: {memory: much, cpus: 0}\n")
    with pytest.raises(ConfigError, match=r"export\.memory: write a size such as `6GiB`"):
        load_run(path)
