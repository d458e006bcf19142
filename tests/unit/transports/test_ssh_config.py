from __future__ import annotations

import logging
import shutil
import socket
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


@pytest.fixture(params=["openssh", "paramiko"])
def config(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file as OpenSSH's client reads it, and as it is read where that isn't installed."""
    path = tmp_path / "config"
    path.write_text(CONFIG)
    if request.param == "paramiko":
        monkeypatch.setenv("PATH", "")
    elif shutil.which("ssh") is None:
        pytest.skip("OpenSSH's client isn't installed")
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
    assert resolve(ssh("off"), config).proxy is None
    assert resolve(ssh("odd"), config).proxy == "nc odd 22"


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
        ("loop", r"is it a loop|jumphost loop via loop"),
    ],
)
def test_what_cannot_be_followed_is_refused(config: Path, host: str | None, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        resolve(ssh(host), config)


def test_a_broken_config_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config"
    path.write_text("Host a\n  ProxyJump user@:x\n")
    with pytest.raises(ConfigError, match=r"isn't \[user@\]host|Invalid ProxyJump"):
        resolve(ssh("a"), path)
    path.write_text("HostName\n")
    monkeypatch.setenv("PATH", "")
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
    with pytest.raises(ConfigError, match=f"Port {port} is neither|line 2: Bad port '{port}'"):
        resolve(ssh("pi", user="pi"), path)


def test_an_account_without_a_name_or_home_is_told_what_to_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)

    def nobody(_uid: int) -> None:
        raise KeyError("uid not found")

    monkeypatch.setattr("pwd.getpwuid", nobody)
    monkeypatch.setenv("PATH", "")  # OpenSSH's client wouldn't say a word to such an account
    with pytest.raises(ConfigError, match="set `user`"):
        resolve(ssh("pi"))
    assert resolve(ssh("pi", user="pi")).user == "pi"
    path = tmp_path / "config"
    path.write_text("Host other\n User x\n")
    with pytest.raises(ConfigError, match="set LOGNAME"):
        resolve(ssh("pi", user="pi"), path)
    with pytest.raises(ConfigError, match="set HOME"):
        resolve(ssh("pi", user="pi", identity="~/.ssh/key"))


#: What the config of a team looks like: one file for all, one for each.
TEAM = """
Include {folder}/team/*.conf
Match originalhost rack?,!rack9 exec "true"
  User lab
  IdentityFile ${{LAB_KEYS}}/%n-%r
  CertificateFile {folder}/cert.pub
Host rack1
  AddressFamily inet6
  IdentitiesOnly yes
  IdentityAgent ${{LAB_AGENT}}
  UserKnownHostsFile {folder}/known /etc/other
  ProxyJump jim@[fd00::9]:2200,gate
  ProxyCommand none
Host rack9
  IdentityAgent none
  IdentityFile "{folder}/my keys/k"
"""


@pytest.fixture
def team(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if shutil.which("ssh") is None:
        pytest.skip("OpenSSH's client isn't installed")
    monkeypatch.setenv("LAB_KEYS", "/keys")
    monkeypatch.setenv("LAB_AGENT", "/run/agent")
    (tmp_path / "team").mkdir()
    (tmp_path / "team/a.conf").write_text("Host rack*\n  HostName %h.lab.example\n  Port ssh\n")
    path = tmp_path / "config"
    path.write_text(TEAM.format(folder=tmp_path))
    return path


def test_every_keyword_of_a_teams_config_is_honoured(team: Path) -> None:
    found = resolve(ssh("rack1"), team)
    assert (found.host, found.port, found.user) == ("rack1.lab.example", 22, "lab")
    assert found.identities == (Path("/keys/rack1-lab"),)
    assert found.certificates == (team.with_name("cert.pub"),)
    assert found.family == socket.AF_INET6
    assert (found.identities_only, found.agent) == (True, "/run/agent")
    assert found.known_hosts == (team.with_name("known"), Path("/etc/other"))
    assert [str(hop).partition("@")[2] for hop in found.hops] == ["fd00::9:2200", "gate"]
    assert found.hops[0].user == "jim"
    other = resolve(ssh("rack9", user="root"), team)
    assert (other.agent, other.identities) == ("", (team.with_name("my keys") / "k",))
    assert (other.known_hosts, other.identities_only) == (None, False)


def test_the_inventory_goes_before_the_config_also_where_it_names_the_usual_port(
    config: Path,
) -> None:
    assert resolve(ssh("pi5", port=22), config).port == 22
    assert resolve(ssh("[fd00::2]"), config).host == "fd00::2"


def test_what_is_passed_over_without_openssh_is_said(
    team: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", "")
    team.write_text(f"Include {team.parent}/team/*.conf\nHost *\n User x\n")
    with caplog.at_level(logging.WARNING):
        assert resolve(ssh("rack1"), team).host == "rack1"
    assert "Include isn't honoured without OpenSSH's client" in caplog.text


def test_a_setting_that_farm_passes_over_is_said(
    team: Path, caplog: pytest.LogCaptureFixture
) -> None:
    team.write_text(
        "Host a\n HostKeyAlias the-a\n IdentityFile /k/%k\n"
        " RevokedHostKeys /k/revoked\nHost b\n HostName 10.0.0.2\n"
    )
    with caplog.at_level(logging.WARNING):
        assert resolve(ssh("a"), team).identities == (Path("/k/the-a"),)
        assert resolve(ssh("b"), team).host == "10.0.0.2"
    said = [record.getMessage() for record in caplog.records]
    assert said == ["~/.ssh/config, host a: farm doesn't honour revokedhostkeys"]


def test_a_value_that_names_what_is_not_there_is_refused(team: Path) -> None:
    team.write_text("Host *\n IdentityFile ${NOT_SET}/k\n")
    with pytest.raises(ConfigError, match=r"NOT_SET.* is not set"):
        resolve(ssh("rack1"), team)
