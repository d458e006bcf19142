"""The main job on this machine, from the command line to the report: real export, real runner."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.command import CONFIGS, Farm
from tests.pace import slack

TINY = str(CONFIGS / "tiny.yaml")
ONLY_LOCAL = ("--select", "transport=local", "--live", "off")

pytestmark = pytest.mark.export


def cell(report: dict[str, Any]) -> dict[str, Any]:
    (result,) = report["results"]
    found: dict[str, Any] = result
    return found


def _but_launches(correctness: dict[str, Any]) -> Any:
    """How many launches and windows a run takes depends on its scatter; the rest may not."""
    return json.loads(re.sub(r"\bin \d+ (launches|windows)", r"in N \1", json.dumps(correctness)))


@pytest.fixture(scope="module")
def night(warm_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Farm:
    """One finished run without Ray, shared by the tests that look at it."""
    farm = Farm(warm_home, tmp_path_factory.mktemp("night"))
    asked = ["Name two colours.", {"text": "Count.", "max_new_tokens": 4}, "so " * 600]
    words = ("--set", f"prompts={json.dumps(asked)}")
    done = farm("run", TINY, "--cluster", "none", *ONLY_LOCAL, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 3 answers given; nothing is judged by them" in done.stdout
    assert (
        done.stdout.rstrip().splitlines()[-1]
        == "1/1 judged: 1 passed, 0 failed; speed not gated -> exit 0"
    )
    return farm


def test_report_is_what_the_schema_says(night: Farm) -> None:
    schema = json.loads(night("schema").stdout)
    jsonschema.validate(night.report(), schema)


def test_cell_has_every_number_the_contract_names(night: Farm) -> None:
    result = cell(night.report())
    stages = [(s["from"], s["to"], s["path"]) for s in result["correctness"]["stages"]]
    # Eager logits don't depend on how tokens are chunked: one comparison serves both paths.
    assert ("eager_fp32", "eager_quantised", "decode") in stages
    for path in ("decode", "prefill"):
        assert ("eager_quantised", "host_pte", path) in stages
        assert ("host_pte", "device_pte", path) in stages
    last = [s for s in result["correctness"]["stages"] if s["from"] == "host_pte"]
    assert all(s["bit_equal"] for s in last), "same binary, same ISA"
    assert {s["tokens"] for s in last if s["path"] == "decode"} == {256}
    metrics = {(p["metric"], p["regime"]): p for p in result["performance"]}
    for metric in ("pp128", "tg128", "ttft", "load", "inter_token"):
        measured = metrics[metric, "warm"]
        assert measured["median"] > 0
        assert measured["ci95"][0] <= measured["median"] <= measured["ci95"][1]
    # At least the launches of the config; more where they scattered too much.
    launches = {s["launch"] for s in metrics["tg128", "warm"]["samples"]}
    assert len(launches) >= 7
    assert len(metrics["tg128", "warm"]["samples"]) == len(launches) * 10
    assert result["conditions"]["launches"]
    assert result["memory"]["peak_rss_bytes"] > 1 << 20
    assert result["correctness"]["generated_text"] is not None


def test_prompts_are_answered_by_the_deployed_program_on_the_device(night: Farm) -> None:
    colours, count, long = cell(night.report())["answers"]
    assert colours["prompt"] == "Name two colours."
    assert isinstance(colours["text"], str)
    assert len(count["ids"]) <= 4
    assert {colours["stopped_by"], count["stopped_by"]} <= {"stop", "length"}
    assert (long["text"], long["ids"]) == (None, None)
    assert "tokens, the artifact's context" in long["reason"]
    folder = night.cwd / "runs" / "latest"
    for name in ("report.md", "report.html"):
        assert "Name two colours." in (folder / name).read_text()
    logs = {path.name for path in folder.glob("attempts/*/1/*")}
    assert {"prompt-1.stdout", "prompt-2.stdout"} <= logs


def test_run_folder_is_complete(night: Farm) -> None:
    folder = night.cwd / "runs" / "latest"
    names = {"journal.db", "plan.json", "report.json", "report.md", "report.html", "junit.xml"}
    assert names | {"events.jsonl", "attempts"} <= {path.name for path in folder.iterdir()}
    logs = {path.name for path in folder.glob("attempts/*/1/*")}
    assert "launch-0.stdout" in logs
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert [e["seq"] for e in events] == list(range(1, len(events) + 1))
    for name in ("table", "json", "junit", "markdown", "html", "pytorch"):
        assert night("report", "latest", "--format", name).returncode == 0, name


@pytest.mark.ray
def test_second_run_on_ray_exports_and_pushes_nothing_and_reports_the_same(night: Farm) -> None:
    first = night.report()
    started = time.monotonic()
    done = night("run", TINY, *ONLY_LOCAL)
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - started < 60 * slack()
    second = night.report()
    assert [e["cache_hit"] for e in second["exports"]] == [True]
    assert cell(second)["pushed_bytes"] == 0
    assert first.keys() == second.keys()
    for key in ("cell_id", "artifact", "outcome", "device", "model", "recipe"):
        assert cell(first)[key] == cell(second)[key]
    assert _but_launches(cell(first)["correctness"]) == _but_launches(cell(second)["correctness"])
    assert not night.processes(), "Ray or a runner is left over"


@pytest.mark.ray
def test_interrupt_ends_everything_within_seconds_and_reports(farm: Farm) -> None:
    running = farm.start("run", TINY, *ONLY_LOCAL, "--set", "workload.launches=100")
    assert running.stdout is not None
    for line in running.stdout:
        if "measure" in line:
            break
    running.send_signal(signal.SIGINT)
    sent = time.monotonic()
    rest, _ = running.communicate(timeout=30)
    code = running.returncode
    took = time.monotonic() - sent
    assert code == 130, rest
    assert took < 4 * slack(), f"took {took:.1f} s"
    assert cell(farm.report())["flags"] == ["interrupted"]
    assert rest.rstrip().endswith("1 not judged (1 interrupted); speed not gated -> exit 130")
    assert not farm.processes()


def test_damaged_artifact_is_noticed_and_made_again(
    warm_home: Path, tmp_path: Path, night: Farm
) -> None:
    sha256 = cell(night.report())["artifact"]["sha256"]
    path = warm_home / "store" / "objects" / sha256[:2] / sha256
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.chmod(0o644)
    path.write_bytes(content)
    farm = Farm(warm_home, tmp_path)
    done = farm("export", TINY, "--json")
    assert done.returncode == 0, done.stderr
    (export,) = json.loads(done.stdout)
    assert export["cache_hit"] is False
    assert export["artifact"]["sha256"] == sha256, "two exports of one key are equal"


def test_resume_runs_only_what_has_no_verdict(night: Farm) -> None:
    folder = night.cwd / "runs" / "latest"
    before = cell(night.report())
    done = night("run", TINY, "--cluster", "none", *ONLY_LOCAL, "--resume", "latest")
    assert done.returncode == 0, done.stdout + done.stderr
    assert cell(night.report())["performance"] == before["performance"], "it was not run again"
    with sqlite3.connect(folder / "journal.db") as journal:
        journal.execute("DELETE FROM cells")
    journal.close()
    done = night("run", TINY, "--cluster", "none", *ONLY_LOCAL, "--resume", "latest")
    assert done.returncode == 0, done.stdout + done.stderr
    assert cell(night.report())["performance"] != before["performance"]


def test_plan_runs_nothing(farm: Farm) -> None:
    done = farm("plan", TINY, "--select", "transport=local", "--json")
    plan = json.loads(done.stdout)
    assert [c["place"] for c in plan["cells"]] == ["local"]
    assert not (farm.cwd / "runs").exists()


def test_bench_needs_no_config(farm: Farm, tmp_path: Path) -> None:
    assert farm("export", TINY, "--copy", str(tmp_path / "out")).returncode == 0
    pte = tmp_path / "out" / "tiny-llama-xnnpack-8da4w.pte"
    done = farm("bench", str(pte), "-p", "32", "-n", "16", "-l", "2", "--json")
    assert done.returncode == 0, done.stderr
    rates = {p["metric"]: p["median"] for p in json.loads(done.stdout)["performance"]}
    assert rates["pp32"] > 0
    assert rates["tg16"] > 0
    imports = subprocess.run(
        [*_python(), "-X", "importtime", "-c", "import farm.commands.bench"],
        capture_output=True,
        text=True,
        env=farm.environment,
        check=True,
    ).stderr
    assert "| torch" not in imports
    assert "ray" not in {line.rpartition("|")[2].strip() for line in imports.splitlines()}


def _python() -> list[str]:
    import sys

    return [sys.executable]
