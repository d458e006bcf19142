"""The examples of configs/nightly, run as they stand, with other paths, by the command itself.

Their inventory isn't there: each night ends with exit 2 before any run, which is what has to be
told. What a whole night does is for tests/integration/test_nightly.py.
"""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.command import CONFIGS, SOURCES

EXAMPLES = CONFIGS / "nightly"
SUBJECT = "farm nightly configs/llama_q4.yaml: no report (exit 2)"


class Place:
    """A machine with a checkout, a FARM_HOME, and a mail program that keeps what it is given."""

    def __init__(self, root: Path) -> None:
        self.root, self.checkout, self.home = root, root / "opt", root / "lib"
        for folder in (self.home, root / "etc", root / "log", root / "bin", root / "temp"):
            folder.mkdir(parents=True)
        self.script(root / "bin" / "mail", f'printf "%s\\n" "$@" > {root}/mail; cat >> {root}/mail')
        self.clean_checkout()

    def script(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def clean_checkout(self) -> None:
        """Check out anew: what isn't the repository's is gone; then install."""
        subprocess.run(["rm", "-rf", str(self.checkout)], check=True)
        self.checkout.mkdir()
        (self.checkout / "configs").symlink_to(CONFIGS)
        farm = f'PYTHONPATH={SOURCES} exec {sys.executable} -m farm "$@"'
        self.script(self.checkout / ".venv" / "bin" / "farm", farm)

    def moved(self, text: str) -> str:
        for path, here in (
            ("/opt/farm", self.checkout),
            ("/var/lib/farm", self.home),
            ("/var/log", self.root / "log"),
            ("/etc/farm", self.root / "etc"),
        ):
            text = text.replace(path, str(here))
        return text

    def run(self, command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        path = f"{self.root / 'bin'}:{os.environ['PATH']}"
        return subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", self.moved(command)],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=self.checkout,
            env={**os.environ, "PATH": path, "FARM_HOME": str(self.home), **environment},
            check=False,
        )


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_the_crontab_mails_the_night_that_ended(place: Place) -> None:
    (place.home / "night.txt").write_text("yesterday's\n\nall well\n")
    line = (EXAMPLES / "crontab").read_text().strip().splitlines()[-1]
    assert "%" not in line, "cron makes a newline of it"
    done = place.run(line.split(None, 5)[5])
    assert done.returncode == 0, done.stderr
    mail = (place.root / "mail").read_text()
    assert mail.startswith(f"-s\n{SUBJECT}\nrelease-team\n")
    assert "inventory.yaml" in mail
    assert "yesterday" not in mail
    assert "all well" not in mail


def test_the_systemd_service_ends_with_the_code_of_the_night(place: Place) -> None:
    units = configparser.ConfigParser(strict=False, interpolation=None)
    units.optionxform = str  # type: ignore[assignment,method-assign]
    units.read(EXAMPLES / "farm-nightly.service")
    service = units["Service"]
    assert place.moved(service["WorkingDirectory"]) == str(place.checkout)
    done = place.run(service["ExecStart"])
    assert done.returncode == 2, done.stderr
    assert (place.home / "night.txt").read_text().startswith(SUBJECT)
    timer = configparser.ConfigParser(interpolation=None)
    timer.read(EXAMPLES / "farm-nightly.timer")
    assert timer["Timer"]["OnCalendar"] == "*-*-* 02:30:00"


def test_the_workflow_tells_each_night_although_the_checkout_cleans(place: Place) -> None:
    workflow = yaml.safe_load((EXAMPLES / "github-actions.yml").read_text())
    steps = workflow["jobs"]["nightly"]["steps"]
    _, night, summary = (step["run"] for step in steps if "run" in step)
    files = {
        "RUNNER_TEMP": str(place.root / "temp"),
        "GITHUB_STEP_SUMMARY": str(place.root / "summary"),
        "GITHUB_OUTPUT": str(place.root / "output"),
    }
    for count in (1, 2):
        place.clean_checkout()
        assert place.run(night, **files).returncode == 2
        assert place.run(summary, **files).returncode == 0
        assert (place.root / "summary").read_text().count(SUBJECT) == count
    assert (place.root / "output").read_text() == "", "there is no run to upload"
    (place.root / "temp" / "night.txt").write_text("s\n\nline\nReports: /var/runs/r1\n")
    place.run(summary, **files)
    assert (place.root / "output").read_text() == "folder=/var/runs/r1\n"
