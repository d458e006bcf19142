"""States of a git checkout: what makes another build of it, and what is said of the rest."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from farm.core.errors import RunnerError
from runners.build.checkout import read_checkout


def git(folder: Path, *words: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", folder, *identity, *words], check=True, capture_output=True)


def commit(folder: Path, text: str) -> None:
    (folder / "CMakeLists.txt").write_text(text)
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "x")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "executorch"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "version.txt").write_text("1.6.0a0\n")
    (folder / ".gitignore").write_text("cmake-out/\n")
    commit(folder, "project(a)\n")
    return folder


def test_another_commit_is_another_state_and_named(checkout: Path) -> None:
    before = read_checkout(checkout, "X")
    assert read_checkout(checkout, "X") == before
    commit(checkout, "project(b)\n")
    after = read_checkout(checkout, "X")
    assert after != before
    assert before.name == f"1.6.0a0 at {before.commit[:12]}"
    assert after.name == f"1.6.0a0 at {after.commit[:12]}"
    assert after.commit != before.commit


def test_changes_that_are_not_committed_are_another_state(checkout: Path) -> None:
    clean = read_checkout(checkout, "X")
    (checkout / "CMakeLists.txt").write_text("project(c)\n")
    first = read_checkout(checkout, "X")
    git(checkout, "add", "-A")
    assert read_checkout(checkout, "X") == first, "in the index or not, the files are the same"
    (checkout / "CMakeLists.txt").write_text("project(d)\n")
    second = read_checkout(checkout, "X")
    assert len({clean, first, second}) == 3
    assert f"with changes {first.changes[:8]}" in first.name
    (checkout / "CMakeLists.txt").write_text("project(a)\n")
    assert read_checkout(checkout, "X") == clean


def test_untracked_files_are_counted_and_ignored_ones_are_not(checkout: Path) -> None:
    (checkout / "cmake-out").mkdir()
    (checkout / "cmake-out" / "x.o").write_text("")
    assert read_checkout(checkout, "X").note == ""
    (checkout / "new.cpp").write_text("")
    assert read_checkout(checkout, "X").note == "1 untracked files not looked at"


def test_what_git_knows_nothing_of_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match=r"X: .*no checkout of ExecuTorch \(no CMakeLists"):
        read_checkout(tmp_path, "X")
    (tmp_path / "CMakeLists.txt").write_text("")
    with pytest.raises(RunnerError, match=r"X: .*version\.txt"):
        read_checkout(tmp_path, "X")
    (tmp_path / "version.txt").write_text("1.6.0a0")
    with pytest.raises(RunnerError, match=r"X: git says.*name the prefix"):
        read_checkout(tmp_path, "X")
