"""The examples of CI and Slack: they parse, and do what they say with a farm that is made up."""

from __future__ import annotations

import ast
import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from farm.config.load import load_run

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


def test_every_example_stands_in_the_table() -> None:
    table = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    files = [p for p in EXAMPLES.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    names = [str(p.relative_to(EXAMPLES)) for p in files if p.name != "README.md"]
    assert [name for name in names if f"]({name})" not in table] == []


def test_github_tells_the_night_that_ended_and_publishes_all() -> None:
    flow = yaml.safe_load((EXAMPLES / "ci/github-actions.yml").read_text())
    steps = flow["jobs"]["nightly"]["steps"]
    used = [step["uses"].partition("@")[0] for step in steps if "uses" in step]
    assert "actions/upload-artifact" in used
    assert "actions/upload-pages-artifact" in used
    # What tells is done also after a night that wasn't green.
    told = [step for step in steps if step.get("name") not in (None, "Run")]
    assert all(step["if"].startswith("always()") for step in told)
    assert flow["jobs"]["publish"]["needs"] == "nightly"


@pytest.mark.parametrize("with_report", [True, False])
def test_githubs_summary_is_the_report_or_why_there_is_none(
    tmp_path: Path, with_report: bool
) -> None:
    flow = yaml.safe_load((EXAMPLES / "ci/github-actions.yml").read_text())
    steps = {step.get("name"): step for step in flow["jobs"]["nightly"]["steps"]}
    run = tmp_path / "run"
    run.mkdir()
    (run / "report.md").write_text("# the report\n")
    night = f"s\n\nall well\nReports: {run}\n" if with_report else "s: no report (exit 2)\n"
    (tmp_path / "night.txt").write_text(night)
    files = {name: str(tmp_path / name) for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    env = {**os.environ, **files, "RUNNER_TEMP": str(tmp_path)}

    def sh(text: str) -> None:
        subprocess.run(["bash", "-e", "-c", text], check=True, env=env, timeout=60)

    sh(steps["Find its report"]["run"])
    output = (tmp_path / "GITHUB_OUTPUT").read_text()
    folder = output.removeprefix("folder=").strip()
    assert folder == (str(run) if with_report else "")
    sh(steps["Summary"]["run"].replace("${{ steps.night.outputs.folder }}", folder))
    summary = (tmp_path / "GITHUB_STEP_SUMMARY").read_text()
    assert ("# the report" in summary) == with_report
    assert ("no report (exit 2)" in summary) != with_report


def test_gitlab_keeps_what_is_there_whatever_came_of_the_night() -> None:
    job = yaml.safe_load((EXAMPLES / "ci/gitlab-ci.yml").read_text())["farm-nightly"]
    assert job["artifacts"]["when"] == "always"
    assert job["artifacts"]["reports"]["junit"] == "night/latest/junit.xml"
    assert "allow_failure" not in job


def test_jenkins_tells_also_what_failed() -> None:
    text = (EXAMPLES / "ci/Jenkinsfile").read_text()
    assert text.count("{") == text.count("}")
    post = text[text.index("post {") :]
    assert post.index("always {") < post.index("junit testResults")
    assert text.index("rm -rf night'") < text.index("farm nightly"), "no report of an earlier night"


@pytest.mark.parametrize("folder", [EXAMPLES / "ci", ROOT / "configs" / "nightly"])
def test_no_workflow_uploads_the_journal(folder: Path) -> None:
    workflow = yaml.safe_load((folder / "github-actions.yml").read_text())
    steps = workflow["jobs"]["nightly"]["steps"]
    (upload,) = (s["with"] for s in steps if "upload-artifact@" in s.get("uses", ""))
    names = [line.rpartition("/")[2] for line in upload["path"].splitlines()]
    assert names == ["report.*", "junit.xml"]


@pytest.mark.parametrize("code", [0, 1, 2])
def test_slack_gets_the_address_and_the_night_keeps_its_exit_code(
    tmp_path: Path, code: int
) -> None:
    (tmp_path / "webhook").write_text("https://hooks.example.test/T0\n")
    farm = tmp_path / "farm"
    farm.write_text(f'#!/bin/sh\necho "$FARM_WEBHOOK $*" >> {tmp_path}/asked\n'
                    f'[ "$1" = nightly ] && exit {code}\nexit 0\n')  # fmt: skip
    farm.chmod(0o755)
    env = {
        **os.environ,
        "FARM": str(farm),
        "FARM_WEBHOOK_FILE": str(tmp_path / "webhook"),
        "FARM_RUNS": "/runs",
        "FARM_PAGES": str(tmp_path / "pages"),
    }
    done = subprocess.run(
        [str(EXAMPLES / "ci/slack.sh"), "c.yaml", "lab.yaml"], env=env, timeout=60, check=False
    )
    assert done.returncode == code
    night, page = (tmp_path / "asked").read_text().splitlines()
    assert night == (
        "https://hooks.example.test/T0 nightly c.yaml --inventory lab.yaml --out /runs --live off"
    )
    assert page.endswith(f"history --html {tmp_path}/pages")


def test_the_crontab_has_one_line_that_cron_takes() -> None:
    lines = (EXAMPLES / "ci/crontab").read_text().strip().splitlines()
    job = lines[-1].split(None, 5)
    assert job[:5] == ["30", "2", "*", "*", "*"]
    assert "%" not in job[5], "cron makes a newline of it"
    assert os.access(EXAMPLES / "ci/slack.sh", os.X_OK)


def test_the_vendors_config_is_read() -> None:
    spec, _ = load_run(EXAMPLES / "vendor/vendor.yaml")
    assert [runner.name for runner in spec.runners] == ["vendor"]


def test_python_examples_use_the_public_api_alone() -> None:
    notebook = json.loads((EXAMPLES / "python/look.ipynb").read_text())
    code = "".join(
        "".join(cell["source"]) + "\n" for cell in notebook["cells"] if cell["cell_type"] == "code"
    )
    assert all(not cell.get("outputs") for cell in notebook["cells"])
    for text in (code, (EXAMPLES / "python/look.py").read_text()):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom):
                assert node.module is not None
                assert not node.module.startswith("farm")
            if isinstance(node, ast.Import):
                assert {a.name for a in node.names if a.name.startswith("farm")} <= {"farm"}
