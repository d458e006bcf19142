from __future__ import annotations

from pathlib import Path

import pytest

from farm.core.device import DeviceEntry
from farm.core.errors import ConfigError
from farm.transports.ssh_config import Target, resolve

CONFIG = """
Host pi5
  HostName pi5.lab.example
  User pi
  Port 2222
  IdentityFile ~/.ssh/pi_key
  HostKeyAlias the-pi

Host gate
  HostName 10.1.1.1
  User jumper

Host inner
  HostName 192.168.7.7
  ProxyJump other@gate:2200,gate

Host odd
  ProxyCommand nc %h %p

Host off
  ProxyJump none
  ProxyCommand none

Host loop
  ProxyJump loop
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config"
    path.write_text(CONFIG)
    return path


def ssh(host: str | None, **values: object) -> DeviceEntry:
    return DeviceEntry("dev", "ssh", host=host, **values)  # type: ignore[arg-type]


def test_the_config_completes_an_entry(config: Path) -> None:
    found = resolve(ssh("pi5"), config)
    assert (found.host, found.port, found.user) == ("pi5.lab.example", 2222, "pi")
    assert found.identities == (Path("~/.ssh/pi_key").expanduser(),)
    assert found.known_name == "the-pi"
    assert str(found) == "pi@pi5.lab.example:2222"


def test_the_entry_goes_before_the_config(config: Path) -> None:
    found = resolve(ssh("pi5", user="root", port=22222, identity="/keys/mine"), config)
    assert (found.port, found.user) == (22222, "root")
    assert found.identities[0] == Path("/keys/mine")


def test_jump_hosts_are_resolved_in_order(config: Path) -> None:
    found = resolve(ssh("inner", user="root"), config)
    assert [str(hop) for hop in found.hops] == ["other@10.1.1.1:2200", "jumper@10.1.1.1"]
    assert found.host == "192.168.7.7"
    assert resolve(ssh("off"), config).hops == ()


def test_without_a_config_the_entry_is_enough(tmp_path: Path) -> None:
    found = resolve(ssh("board", user="root"), tmp_path / "nothing")
    assert found == Target("board", 22, "root")


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (Target("h", 22, "u"), "h"),
        (Target("h", 2200, "u"), "[h]:2200"),
        (Target("h", 2200, "u", key_alias="a"), "a"),
    ],
)
def test_known_hosts_call_a_host_as_openssh_does(target: Target, name: str) -> None:
    assert target.known_name == name


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        (None, "'dev' needs `host`"),
        ("odd", "ProxyCommand isn't supported"),
        ("loop", "is it a loop"),
    ],
)
def test_what_cannot_be_followed_is_refused(config: Path, host: str | None, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        resolve(ssh(host), config)


def test_a_broken_config_is_named(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text("Host a\n  ProxyJump user@:x\n")
    with pytest.raises(ConfigError, match=r"isn't \[user@\]host"):
        resolve(ssh("a"), path)
    path.write_text("HostName\n")
    with pytest.raises(ConfigError, match=str(path)):
        resolve(ssh("a"), path)


@pytest.mark.parametrize(("port", "number"), [("ssh", 22), ("2222", 2222), ("http", 80)])
def test_a_port_may_be_a_service(tmp_path: Path, port: str, number: int) -> None:
    path = tmp_path / "config"
    path.write_text(f"Host pi\n Port {port}\n")
    assert resolve(ssh("pi", user="pi"), path).port == number


@pytest.mark.parametrize("port", ["nothing-of-that-name", "0", "99999", "-1"])
def test_a_port_that_is_none_is_refused(tmp_path: Path, port: str) -> None:
    path = tmp_path / "config"
    path.write_text(f"Host pi\n Port {port}\n")
    with pytest.raises(ConfigError, match=f"Port {port} is neither"):
        resolve(ssh("pi", user="pi"), path)


def test_an_account_without_a_name_or_home_is_told_what_to_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)

    def nobody(_uid: int) -> None:
        raise KeyError("uid not found")

    monkeypatch.setattr("pwd.getpwuid", nobody)
    with pytest.raises(ConfigError, match="set `user`"):
        resolve(ssh("pi"))
    assert resolve(ssh("pi", user="pi")).user == "pi"
    path = tmp_path / "config"
    path.write_text("Host other\n User x\n")
    with pytest.raises(ConfigError, match="set LOGNAME"):
        resolve(ssh("pi", user="pi"), path)
    with pytest.raises(ConfigError, match="set HOME"):
        resolve(ssh("pi", user="pi", identity="~/.ssh/key"))
