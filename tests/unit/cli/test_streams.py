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
from farm.run import run_folder
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


def test_a_home_that_this_user_may_not_make_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FARM_HOME", str(tmp_path / "a" / "b"))
    assert paths.farm_home() == tmp_path / "a" / "b"
    # As for a user without a home folder in a container; root may write everywhere.
    monkeypatch.setattr("farm.paths.os.access", lambda place, _mode: place != tmp_path)
    with pytest.raises(ConfigError, match=r"may not make it in .*set FARM_HOME"):
        paths.farm_home()


def test_a_home_below_a_folder_that_nobody_may_look_into_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def hidden(_path: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setenv("FARM_HOME", str(tmp_path / "closed" / "home"))
    monkeypatch.setattr(Path, "exists", hidden)
    monkeypatch.setattr("farm.paths.os.access", lambda _place, _mode: False)
    with pytest.raises(ConfigError, match="set FARM_HOME"):
        paths.farm_home()


def test_a_path_that_no_report_can_hold_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FARM_HOME", f"{tmp_path}/h\udce9")
    with pytest.raises(ConfigError, match=r"FARM_HOME: .* is not UTF-8"):
        paths.farm_home()
    with pytest.raises(ConfigError, match=r"--out: .* is not UTF-8"):
        run_folder.check_out(Path("/runs\udce9"))


def test_runs_go_nowhere_where_the_working_directory_is_gone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(ConfigError, match="--out runs: the working directory is gone"):
        run_folder.check_out(Path("runs"))
    run_folder.check_out(tmp_path)


def test_who_may_not_write_is_told_whose_it_is_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    place = tmp_path / "store" / "gate"
    assert paths.unwritable(place) == ""
    monkeypatch.setattr("farm.paths.os.access", lambda _place, _mode: False)
    monkeypatch.setattr("farm.paths.os.geteuid", lambda: 12345)
    told = paths.unwritable(place)
    assert f"{tmp_path} is user {os.getuid()}'s" in told
    assert f"sudo chown -R 12345 {tmp_path}" in told
    mounted = os.statvfs_result((0,) * 8 + (os.ST_RDONLY, 255))
    monkeypatch.setattr("farm.paths.os.statvfs", lambda _place: mounted)
    assert "mounted read-only: set FARM_HOME" in paths.unwritable(place)
