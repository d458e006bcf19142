"""A run that goes on in one process, watched and ended from others."""

from __future__ import annotations

import contextlib
import subprocess

from tests.command import CONFIGS, Farm
from tests.pace import slack


def lines_until(process: subprocess.Popen[str], text: str) -> str:
    """Read what a command prints until a line has this text."""
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if text in line:
            return seen
    raise AssertionError(f"ended without {text!r}: {seen}")


def ended(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_watch_and_cancel(farm: Farm) -> None:
    config = str(CONFIGS / "tiny.yaml")
    many = ("--set", "workload.launches=90", "--set", "workload.max_launches=90")
    with contextlib.ExitStack() as stack:
        running = farm.start("run", config, "--cluster", "none", "--live", "off", *many)
        stack.callback(ended, running)
        lines_until(running, "local: measure")
        (folder,) = (path for path in (farm.cwd / "runs").glob("2*") if path.is_dir())
        watching = farm.start("watch", "latest", "--live", "off")
        stack.callback(ended, watching)
        seen = lines_until(watching, "local: measure")
        wrong = farm("cancel", folder.name, "tiny-llama/xnnpack-8da4w:executorch:t1:lokal")
        assert wrong.returncode == 2, wrong.stdout + wrong.stderr
        assert "did you mean tiny-llama/xnnpack-8da4w:executorch:t1:local?" in wrong.stderr
        told = farm("cancel", folder.name)
        assert told.returncode == 0, told.stdout + told.stderr
        assert str(folder) in told.stdout
        rest, _ = running.communicate(timeout=60 * slack())
        seen += watching.communicate(timeout=60 * slack())[0]
    last = "0/1 judged: 0 passed, 0 failed; 1 not judged (1 interrupted)"
    assert last in rest
    assert running.returncode == 130
    assert last in seen
    assert watching.returncode == 130
    assert f"run {folder.name} (tiny): 1 cells on 1 devices" in seen
    assert (folder / "report.json").exists()
    none = farm("watch", "latest")
    assert none.returncode == 3
    assert "no run is going on" in none.stderr
