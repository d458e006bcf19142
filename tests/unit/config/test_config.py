from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from farm.config.load import load_inventory, load_run
from farm.core.artifact import Toolchain
from farm.core.deployment import parse_stages
from farm.core.errors import ConfigError
from farm.core.plan import Catalog, Plan
from farm.core.spec import DeployWish, Require, Resources, RunSpec
from farm.planning.catalog import resolve_names
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


def test_a_toolchain_may_be_a_checkout_for_runners(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    words = ["toolchains={main: {source: ../et, preset: llm-release}}"]
    spec, _ = load_run(path, words)
    place = str(tmp_path.parent / "et")
    (toolchain,) = spec.toolchains
    assert Path(toolchain.source).resolve() == Path(place)
    assert (toolchain.executorch, toolchain.preset) == ("", "llm-release")
    with pytest.raises(ConfigError, match=r"run\.yaml: toolchains\.main\.source: .*no checkout"):
        resolve_names(replace(spec, models=spec.models[:1]))
    for wrong, says in (
        ("{preset: llm}", "executorch or source is needed"),
        ('{executorch: "==1.5.1", preset: llm}', "preset: needs `source`"),
        ("{source: ../et, torch: '2.14.0'}", "torch: needs `executorch`"),
    ):
        with pytest.raises(ConfigError, match=f"toolchains\\.main.*{says}"):
            load_run(path, [f"toolchains={{main: {wrong}}}"])


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
        ("gates={perplexity: about 5}", "gates.perplexity: 'about 5' can't be read"),
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


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"[1, 2", "is not YAML"),
        (b"- a\n- b\n", "must be a mapping"),
        (b"name: \xff", "byte 6 is not UTF-8: save the file in that encoding"),
        ("name: a".encode("utf-16"), "byte 0 is not UTF-8"),
    ],
)
def test_what_is_no_config_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"run\.yaml: {says}"):
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
        # YAML alone would take the last one: a list of devices would be gone in silence.
        (
            "{name: p, transport: adb, serial: s}]\ndevices: [",
            "devices: stands there twice, on lines 1 and 2",
        ),
        ("{name: p, transport: adb, serial: s, serial: t}", "devices.0.serial: stands there twice"),
        ("{name: a/b, transport: local}", "devices.0.name: a name has letters"),
        ("{name: p, transport: adb, serial: 0123456}", "serial: write a text, in quotes"),
        ("{name: p, transport: ssh, host: pi@pi5}", "devices.0.host: write a name .* `user`"),
        ("{name: p, transport: ssh, host: 'pi5:22'}", "devices.0.host: .* `port`"),
        ("{name: p, transport: ssh, host: '[fe80::1]:22'}", "devices.0.host: .* `port`"),
        ("{name: p, transport: ssh, host: ' pi5'}", "devices.0.host: "),
        ("{name: p, transport: adb, serial: s, host: h}", "devices.0.host: adb has no use for it"),
        ("{name: p, transport: adb, serial: s, adb_server: rack2}", "adb_server: write host:port"),
        ("{name: p, transport: local, root: /}", "devices.0.root: write the whole path"),
        ("{name: p, transport: local, root: farm}", "devices.0.root: write the whole path"),
        ("{name: p, transport: local, expect: {oss: '15'}}", "expect.oss: .* did you mean os"),
        ("{name: p, transport: local, recover: [{command: ''}]}", "recover.0.command"),
    ],
)
def test_inventory_errors(tmp_path: Path, device: str, says: str) -> None:
    path = tmp_path / "inv.yaml"
    path.write_text(f"devices: [{device}]\n")
    with pytest.raises(ConfigError, match=says):
        load_inventory(path)


@pytest.mark.parametrize("host", ["fe80::1", "[fe80::1]", "fe80::1%eth0", "10.0.0.7", "pi-5.lab"])
def test_an_address_is_a_host(tmp_path: Path, host: str) -> None:
    path = tmp_path / "inv.yaml"
    path.write_text(f"devices: [{{name: p, transport: ssh, host: '{host}', port: '2222'}}]\n")
    (entry,) = load_inventory(path).entries
    assert (entry.host, entry.port) == (host, 2222)


def test_export_takes_cpus_memory_and_a_time(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("name: x\nmodels: [m]\nexport: {cpus: 3, memory: 6GiB, timeout_s: 90}\n")
    assert load_run(path)[0].export == Resources(3, 6 << 30, 90.0)
    path.write_text("name: x\nmodels: [m]\nexport: {memory: much, cpus: 0}\n")
    with pytest.raises(ConfigError, match=r"export\.memory: write a size such as `6GiB`"):
        load_run(path)


def test_a_deploy_is_read_and_its_mistakes_are_named(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"

    def read(text: str) -> RunSpec:
        path.write_text(f"name: n\nmodels: [tiny-llama]\ndeploy: {text}\n")
        return load_run(path)[0]

    wish = read('{to: ring=canary, stages: [1, "100%"], wait: 10min, name: kiosk}').deploy
    assert wish == DeployWish("ring=canary", parse_stages("1,100%"), 600.0, "kiosk")
    for text, why in (
        ("{stages: [1, '100%']}", "to"),
        ("{to: ring=canary, stages: [1]}", "100%"),
        ("{to: ring=canary, stages: ['50%', '10%', '100%']}", "larger"),
        ("{to: 'ring'}", "selector"),
        ("{to: a=b, wait: soon}", "no duration"),
        ("{to: a=b, step: 1}", "deploy.step"),
    ):
        with pytest.raises(ConfigError, match=why):
            read(text)
