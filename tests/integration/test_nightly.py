"""The commands of the README, night after night."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.command import CONFIGS, Farm
from tests.unit.commands.test_nightly_told import listening

TINY = str(CONFIGS / "tiny.yaml")
#: Tests share their cores with others: what must be told for sure is memory, which doesn't care.
LOCAL = (
    "--cluster", "none", "--select", "transport=local", "--live", "off",
    "--set", "gates={perplexity: '<= 1.02x host', regress: '40%'}", "--set", "workload.launches=2",
    "--set", "require={judged: '90%', speed: '0%'}", "--set", "workload.budget_s=8",
)  # fmt: skip

pytestmark = pytest.mark.export


def test_three_nights(new_home: Path, tmp_path: Path) -> None:
    # A store of its own: an export is forgotten on the way, which others would make again.
    farm = Farm(new_home, tmp_path)
    done = farm("nightly", TINY, *LOCAL)
    assert done.returncode == 2
    assert "--allow-no-baseline" in done.stderr

    done = farm("nightly", TINY, *LOCAL, "--allow-no-baseline")
    assert done.returncode == 0, done.stdout + done.stderr
    assert any("no baseline: this night would see" in a for a in farm.report()["alarms"])
    first = farm.report()["results"][0]
    done = farm("baseline", "set", "latest", "tiny")
    if "speed_untrusted" not in first["flags"]:
        assert done.returncode == 0, done.stderr
        against: tuple[str, ...] = ()  # the baseline that is named like the config
    else:  # others use these cores: such numbers are no baseline; its report can be one by name
        assert done.returncode == 2
        assert "none of its speeds can be trusted" in done.stderr
        kept = tmp_path / "first.json"
        kept.write_text((farm.cwd / "runs" / "latest" / "report.json").read_text())
        against = ("--baseline", str(kept))

    done = farm("nightly", TINY, *LOCAL, *against)
    result = farm.report()["results"][0]
    baseline = result["baseline"]
    # The same bytes test the machine: a busy one makes them undecided, never REGRESSED.
    assert baseline["method"] == "identity"
    if baseline["verdict"] == "PASS":
        assert "byte for byte" in baseline["reason"]
    else:
        assert baseline["verdict"] in ("NOISY", "INCOMPARABLE", "INSUFFICIENT")
    passed = (result["outcome"], done.returncode) == ("passed", 0)
    assert passed == (baseline["verdict"] == "PASS"), done.stdout + done.stderr

    # Attention without the custom operators: the artifact of a night on which they were lost.
    plain = tmp_path / "plain"
    recipe = "matrix.recipe=[xnnpack-8da4w-plain-sdpa]"
    done = farm("export", TINY, "--set", recipe, "--copy", str(plain))
    assert done.returncode == 0, done.stderr
    model = (
        f"models=[{{name: tiny-llama, pte: {plain}/tiny-llama-xnnpack-8da4w-plain-sdpa.pte,"
        f" tokenizer: {plain}/tiny-llama-tokenizer.json}}]"
    )
    mail = tmp_path / "night.txt"
    with listening() as told:
        to = ("--webhook", told.url, "--mail", str(mail))
        done = farm("nightly", TINY, *LOCAL, *against, *to, "--set", model)
    assert done.returncode == 1, done.stdout + done.stderr
    last = done.stdout.splitlines()[-1]
    ((_, message),) = told.got
    assert last.replace(">", "&gt;") in message["text"]
    assert mail.read_text().startswith(f"farm nightly tiny: FAILED (exit 1)\n\n{last}\n")
    result = farm.report()["results"][0]
    assert (result["baseline"]["verdict"], result["baseline"]["method"]) == ("REGRESSED", "paired")
    assert result["outcome"] == "failed"
    metrics = {m["metric"]: m for m in result["baseline"]["metrics"]}
    assert metrics["peak_rss_bytes"]["verdict"] == "REGRESSED"
    # One look fails nothing: a second sitting of the same run found the loss too.
    assert metrics["peak_rss_bytes"]["confirmed"] is True
    assert "confirmed by a second sitting" in result["reason"]
    second = result["second"]
    alone = {m["metric"]: m["ratio"] for m in second["metrics"]}
    assert alone["peak_rss_bytes"] > 1.4
    assert {s["arm"] for p in second["performance"] for s in p["samples"]} >= {"baseline"}
    assert second["attempts"][0]["started_at"] > result["attempts"][-1]["ended_at"]
    assert f"second sitting, side by side with the baseline: {result['cell_id']}" in done.stdout
    rows = {(p["metric"], p["regime"]): p for p in result["performance"]}
    assert {s["arm"] for s in rows["pp128", "warm"]["samples"]} == {"candidate", "baseline"}

    # The baseline's artifact is no longer in the store: the numbers of the nights are all there is.
    home = Path(farm.environment["FARM_HOME"])
    (home / "store" / "actions" / f"export-{first['artifact']['key']}.json").unlink()
    done = farm("nightly", TINY, *LOCAL, *against, "--set", model)
    result = farm.report()["results"][0]
    assert result["baseline"]["method"] == "sittings"
    speeds = {m["metric"]: m["verdict"] for m in result["baseline"]["metrics"]}
    assert speeds["tg128"] == "INSUFFICIENT"
    assert result["speed_decision"] == "undecided"
    assert "unpaired" in result["flags"]
    assert "no longer in the content store" in result["conditions"]["unpaired"]

    shown = farm("history", "show", "*:local", "--metric", "tg128", "--json")
    (line,) = json.loads(shown.stdout)
    assert (line["nights"], len(line["drawn"])) == (4, 4)

    listed = farm("history", "--json")
    nights = {path.name for path in (farm.cwd / "runs").iterdir() if not path.is_symlink()}
    assert len(nights) == 4
    assert nights <= {run["run_id"] for run in json.loads(listed.stdout)}
