"""Handshakes with sites: bounded, and what they say where none is possible."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from farm.cluster import start
from farm.cluster.ray_environment import set_joined_environment, set_local_environment
from farm.core.errors import FarmError, PlanError
from farm.core.events import Handshake
from tests.unit.fakes import FakeSite

OURS = Handshake(1, "tree", "3.11")


class Silent(FakeSite):
    async def handshake(self) -> Handshake:
        await asyncio.Event().wait()
        return OURS


class Broken(FakeSite):
    async def handshake(self) -> Handshake:
        raise FarmError("its agent was lost: The actor died: killed by the kernel\n  File x")


def shake(name: str, site: FakeSite) -> str:
    with pytest.raises(PlanError) as refused:
        asyncio.run(start._shake_hands({name: site}, OURS, 0.05))
    return refused.value.message


def test_an_agent_that_never_answers_is_waited_for_so_long_only() -> None:
    text = shake("", Silent(lambda job: None))
    assert "did not start within" in text
    assert "--cluster none" in text
    assert "site rack2 does not answer" in shake("rack2", Silent(lambda job: None))


def test_an_agent_that_dies_is_named_in_one_line() -> None:
    text = shake("", Broken(lambda job: None))
    assert "killed by the kernel" in text
    assert "File x" not in text


def test_a_host_without_proc_is_refused_before_anything_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(start, "Path", lambda _name: tmp_path / "absent")
    with pytest.raises(PlanError, match="mount -t proc"):
        start.launch("none")


def test_a_run_of_ours_has_a_token_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": "a" * 64}
    tokens = set()
    for _ in range(2):
        set_local_environment()
        tokens.add(os.environ["RAY_AUTH_TOKEN"])
        assert os.environ["RAY_AUTH_MODE"] == "token"
        assert os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
        assert os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] == "0"
    assert len(tokens) == 2
    assert "a" * 64 not in tokens


def test_what_somebody_set_for_another_cluster_is_not_for_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    theirs = {
        "RAY_USE_TLS": "1",
        "RAY_OVERRIDE_RESOURCES": "{}",
        "RAY_JOB_CONFIG_JSON_ENV_VAR": '{"runtime_env": {"working_dir": "/absent"}}',
    }
    tuned = {"RAY_TMPDIR": "/scratch", "RAY_health_check_period_ms": "7"}
    monkeypatch.setattr(os, "environ", {**theirs, **tuned, "RAY_grpc_enable_http_proxy": "1"})
    set_local_environment()
    assert not theirs.keys() & os.environ.keys()
    assert tuned.items() <= os.environ.items()
    assert dict(os.environ)["RAY_grpc_enable_http_proxy"] == "0"


def test_a_cluster_that_is_joined_gets_its_token_by_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    os.environ |= {
        "RAY_AUTH_TOKEN": "a" * 64,
        "RAY_ADDRESS": "other:1",
        "RAY_AUTH_MODE": "disabled",
    }
    set_joined_environment(Path("/token"))
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert os.environ["RAY_AUTH_TOKEN_PATH"] == "/token"
    # Its workers start runners, which have this process's priority.
    assert dict(os.environ)["RAY_worker_niceness"] == "0"
    assert not {"RAY_AUTH_TOKEN", "RAY_ADDRESS"} & set(os.environ)
