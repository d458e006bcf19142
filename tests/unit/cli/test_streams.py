"""Standard streams of service managers and CI agents: closed, or not UTF-8."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from farm import paths
from farm.core.errors import ConfigError
from tests.command import SOURCES


def shell(
    code: str, redirection: str, cwd: Path, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    command = f"exec {shlex.join([sys.executable, '-c', code])} {redirection}"
    return subprocess.run(
        ["sh", "-c", command],
        capture_output=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(SOURCES), **environment},
        check=False,
    )


WRITES_A_FILE = """
import subprocess
from farm.cli import streams
streams.fill_closed()
with open("journal", "w") as file:
    print("to standard output", flush=True)
    subprocess.run(["sh", "-c", "echo from a child; echo of errors >&2"], check=True)
    file.write("record")
"""


@pytest.mark.parametrize("closed", [">&-", "<&- >&-", "<&- >&- 2>&-", "2>&-"])
def test_what_is_printed_never_lands_in_a_file(closed: str, tmp_path: Path) -> None:
    done = shell(WRITES_A_FILE, closed, tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "journal").read_text() == "record"


@pytest.mark.parametrize("encoding", ["ascii", "ascii:surrogateescape", "cp1252"])
def test_a_character_that_can_not_be_written_becomes_an_escape(
    encoding: str, tmp_path: Path
) -> None:
    code = (
        "from farm.cli import streams; streams.protect();"
        "import sys; print('passed \\u2713'); print('\\u2713', file=sys.stderr)"
    )
    done = shell(code, "", tmp_path, PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stdout) == (0, b"passed \\u2713\n")


def test_utf_8_stays_as_it_is(tmp_path: Path) -> None:
    code = "from farm.cli import streams; streams.protect(); print('\\u2713')"
    assert shell(code, "", tmp_path, PYTHONIOENCODING="utf-8").stdout == "\u2713\n".encode()


def test_a_user_without_a_home_folder_is_told_of_farm_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FARM_HOME", raising=False)
    # What platformdirs returns where neither HOME nor the user database knows a home folder.
    monkeypatch.setattr(
        "farm.paths.platformdirs.user_data_dir", lambda _name: "~/.local/share/farm"
    )
    with pytest.raises(ConfigError, match="set FARM_HOME"):
        paths.farm_home()


def test_a_relative_farm_home_in_a_folder_that_is_gone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setenv("FARM_HOME", "here")
    with pytest.raises(ConfigError, match="absolute path"):
        paths.farm_home()
