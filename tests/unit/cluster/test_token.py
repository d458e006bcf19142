"""The token of a cluster: made for its owner only, and refused when others can read it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from farm.cluster.token import find_token, made_token, token_file
from farm.core.errors import ConfigError


def a_token(path: Path, mode: int = 0o600, text: str = "a" * 64) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_made_token_is_random_and_its_owners_alone(tmp_path: Path) -> None:
    one, other = made_token(tmp_path / "one"), made_token(tmp_path / "other")
    assert stat.S_IMODE(one.stat().st_mode) == 0o600
    assert stat.S_IMODE(one.parent.stat().st_mode) == 0o700
    assert len(one.read_text()) == 64
    assert one.read_text() != other.read_text()
    kept = one.read_text()
    assert made_token(tmp_path / "one").read_text() == kept, "hosts with a copy couldn't join again"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_token_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = a_token(tmp_path / "token", mode)
    with pytest.raises(ConfigError, match=f"chmod 600 {path}"):
        find_token(path, tmp_path, {})
    token_file(tmp_path).parent.mkdir()
    a_token(token_file(tmp_path), mode)
    with pytest.raises(ConfigError, match="chmod 600"):
        made_token(tmp_path)


@pytest.mark.parametrize("text", ["", "short", "a" * 40 + " b", "\n"])
def test_what_is_no_token_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="is no token"):
        find_token(a_token(tmp_path / "token", text=text), tmp_path, {})


def test_a_token_is_looked_for_where_the_command_says_then_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    with pytest.raises(ConfigError, match="give --token FILE"):
        find_token(None, tmp_path, {})
    own = made_token(tmp_path)
    assert find_token(None, tmp_path, {}) == own
    named = a_token(tmp_path / "named")
    assert find_token(None, tmp_path, {"FARM_CLUSTER_TOKEN": str(named)}) == named
    option = a_token(tmp_path / "option")
    assert find_token(option, tmp_path, {"FARM_CLUSTER_TOKEN": str(named)}) == option
    with pytest.raises(ConfigError, match="no such token file"):
        find_token(tmp_path / "gone", tmp_path, {})
