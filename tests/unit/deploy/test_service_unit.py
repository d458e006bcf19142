"""The unit of a service: systemd reads it, and words stay words whatever they hold."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from farm.core.rules.service_unit import settings, socket_path, unit_name, unit_text
from tests.unit.deploy.builders import manifest


def test_the_unit_runs_what_is_in_use(tmp_path: Path) -> None:
    text = unit_text(manifest(), "/data/farm")
    assert "WorkingDirectory=/data/farm/deployments/kiosk/current\n" in text
    assert (
        'ExecStart="/data/farm/deployments/kiosk/current/farm-runner" "--model" "model.pte"'
        ' "--request" "/data/farm/run/kiosk.json" "--out" "/data/farm/run" "--serve"'
        ' "/data/farm/run/kiosk.sock"\n'
    ) in text
    assert socket_path("/data/farm", "kiosk") in text
    assert settings(manifest()) == b'{"protocol": 1, "threads": 2}\n'


def test_a_loader_stays_in_front_and_values_are_no_specifiers() -> None:
    one = manifest()
    build = replace(
        one.runner,
        argv=("./ld.so", "--library-path", "lib", "./farm-runner"),
        env=(("A", '50% "$x"'),),
    )
    text = unit_text(replace(one, runner=build, data=("w.ptd",)), "/r")
    assert 'current/ld.so" "--library-path" "lib" "./farm-runner" "--model"' in text
    assert 'Environment="A=50%% \\"$$x\\""' in text
    assert '"--data" "w.ptd"' in text


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_systemd_finds_no_fault_in_it(tmp_path: Path) -> None:
    one = manifest()
    root = tmp_path / "farm"
    current = root / "deployments" / "kiosk" / "current"
    current.mkdir(parents=True)
    shutil.copy("/bin/true", current / "farm-runner")
    file = tmp_path / unit_name("kiosk")
    file.write_text(unit_text(one, str(root)))
    done = subprocess.run(
        ["systemd-analyze", "--user", "--man=no", "verify", str(file)],
        capture_output=True, text=True, check=False, timeout=60,
        env={"PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)},
    )  # fmt: skip
    assert str(file) not in done.stderr, done.stderr
    assert "kiosk" not in done.stderr, done.stderr
    assert done.returncode == 0, done.stderr
