"""Sockets that would listen on every interface listen on the named address instead."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import farm
from farm.cluster import bound
from farm.cluster.start import enter, launch
from farm.core.errors import ConfigError, PlanError
from tests.command import share_native

_LISTEN = """
import socket, sys
four, six = socket.AF_INET, socket.AF_INET6
for family, address in ((four, ""), (six, "::"), (four, "127.0.0.1")):
    with socket.socket(family) as one:
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        try:
            one.bind((address, 0))
            print(one.getsockname()[0])
        except OSError as error:
            print(error.errno)
"""


def listened_on(environment: dict[str, str]) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", _LISTEN], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_only_the_wildcard_is_replaced(tmp_path: Path) -> None:
    share_native(tmp_path)
    environment = bound.bound_environment(os.environ, "127.0.0.3", tmp_path)
    assert listened_on(environment) == ["127.0.0.3", "::ffff:127.0.0.3", "127.0.0.1"]
    # What isn't an address must not mean "every interface".
    broken = listened_on({**environment, "FARM_BIND_ADDRESS": "eth0"})
    assert broken == [str(n) for n in (99, 99, 99)]


def test_the_address_is_one_of_this_host() -> None:
    assert bound.address_of(None, None) == "127.0.0.2"
    assert bound.address_of("127.0.0.1", None) == "127.0.0.2"
    assert bound.address_of("127.0.0.9", None) == "127.0.0.9"
    assert bound.address_of(None, "lo") == "127.0.0.2"
    for address in ("0.0.0.0", "198.51.100.7", "::", "here"):
        with pytest.raises(ConfigError, match=rf"--address '?{address}"):
            bound.address_of(address, None)
    with pytest.raises(ConfigError, match=r"no interface 'nope'; there are: .*lo"):
        bound.address_of(None, "nope")
    with pytest.raises(ConfigError, match="not both"):
        bound.address_of("127.0.0.2", "lo")


def test_a_cluster_is_named_by_host_and_port() -> None:
    assert bound.split("head.lab:6379") == ("head.lab", 6379)
    for text in ("head", "head:", ":6379", "head:99999", "auto"):
        with pytest.raises(ConfigError, match="farm cluster up"):
            bound.split(text)


def test_a_cluster_that_does_not_answer_is_said_so_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert bound.way_to(f"127.0.0.1:{port}") == "127.0.0.2"
    with pytest.raises(PlanError, match=rf"no cluster answers at 127\.0\.0\.1:{port}"):
        bound.way_to(f"127.0.0.1:{port}")


def test_a_process_that_would_listen_everywhere_does_not_join() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        pytest.raises(PlanError, match="every interface"),
    ):
        launch(f"127.0.0.1:{server.getsockname()[1]}")


def test_a_token_without_a_cluster_is_wrong_usage(tmp_path: Path) -> None:
    enter("local", None, tmp_path)
    with pytest.raises(ConfigError, match="--cluster ADDRESS too"):
        enter("local", tmp_path / "token", tmp_path)


def test_what_a_process_starts_is_not_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "/x/libfarm-bind.so /y/other.so")
    bound.forget_preload()
    assert os.environ["LD_PRELOAD"] == "/y/other.so"
    monkeypatch.setenv("LD_PRELOAD", "/x/libfarm-bind.so")
    bound.forget_preload()
    assert "LD_PRELOAD" not in os.environ


def test_the_program_of_a_caller_is_never_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bound, "build_bind", lambda *_: tmp_path / "libfarm-bind.so")
    monkeypatch.setattr(os, "execve", lambda *_: pytest.fail("it was started again"))
    token = tmp_path / "token"
    token.write_text("t" * 64)
    token.chmod(0o600)
    for name in ("LD_PRELOAD", "FARM_BIND_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    says = r"LD_PRELOAD=\S+so FARM_BIND_ADDRESS=127\.0\.0\.2"
    with socket.create_server(("127.0.0.1", 0)) as server:
        cluster = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ConfigError, match=says):
            farm.run(tmp_path / "c.yaml", cluster=cluster, token=token)
