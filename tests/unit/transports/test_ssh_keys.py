from __future__ import annotations

from pathlib import Path

import paramiko
import pytest

from farm.core.device import DeviceEntry
from farm.core.errors import ConnectError
from farm.transports import ssh_keys

ENTRY = DeviceEntry("pi5", "ssh", host="pi5.lab")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FARM_HOME", str(tmp_path / "farm"))
    (tmp_path / ".ssh").mkdir()
    return tmp_path


@pytest.fixture(scope="module")
def keys() -> tuple[paramiko.PKey, paramiko.PKey]:
    return paramiko.ECDSAKey.generate(), paramiko.ECDSAKey.generate()


def line(host: str, key: paramiko.PKey) -> str:
    return f"{host} {key.get_name()} {key.get_base64()}\n"


def test_an_unknown_key_is_refused_with_what_to_do(
    home: Path, keys: tuple[paramiko.PKey, paramiko.PKey]
) -> None:
    with pytest.raises(ConnectError, match="run: farm devices trust pi5") as caught:
        ssh_keys.check(ENTRY, "pi5.lab", keys[0])
    assert keys[0].fingerprint in caught.value.message
    assert caught.value.context["host_key"] == "unknown"


@pytest.mark.parametrize("place", [".ssh/known_hosts", "farm/known_hosts", "extra"])
def test_any_of_the_files_can_vouch(
    home: Path, keys: tuple[paramiko.PKey, paramiko.PKey], place: str
) -> None:
    path = home / place
    path.parent.mkdir(exist_ok=True)
    path.write_text("# comment\nnonsense\n" + line("other,pi5.lab", keys[0]))
    entry = DeviceEntry("pi5", "ssh", host="pi5.lab", known_hosts=str(home / "extra"))
    ssh_keys.check(entry, "pi5.lab", keys[0])


@pytest.mark.parametrize(
    "bad",
    [
        "@cert-authority *.lab ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ7t\n",
        "@cert-authority * {type} {key}\n",
        "@revoked other {type} {key}\n",
        "pi4.lab ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ7\n",
        "pi4.lab ssh-ed25519 AAAA\n",
        "pi4.lab ssh-ed25519\n",
        "|1|cut ssh-ed25519 AAAAC3Nz\n",
        "|1|%%%|%%% {type} {key}\n",
        "pi4.lab ssh-new-kind AAAAB3Nz\n",
        "1024 37 123456789 old@protocol1\n",
        "\xff\xfe\x00 garbage\n",
        "@unheard-of pi5.lab x y\n",
    ],
)
def test_one_line_takes_no_other_line_down(
    home: Path, keys: tuple[paramiko.PKey, paramiko.PKey], bad: str
) -> None:
    bad = bad.format(type=keys[0].get_name(), key=keys[0].get_base64())
    text = bad.encode("latin-1") + line("pi5.lab", keys[0]).encode() + bad.encode("latin-1")
    (home / ".ssh/known_hosts").write_bytes(text)
    ssh_keys.check(ENTRY, "pi5.lab", keys[0])


@pytest.mark.parametrize("vouched", [True, False])
def test_a_revoked_key_is_refused_and_can_not_be_trusted_again(
    home: Path, keys: tuple[paramiko.PKey, paramiko.PKey], vouched: bool
) -> None:
    path = home / ".ssh/known_hosts"
    path.write_text(
        (line("pi5.lab", keys[0]) if vouched else "") + "@revoked " + line("*", keys[0])
    )
    with pytest.raises(ConnectError, match=r"is revoked by .*known_hosts:\d") as caught:
        ssh_keys.check(ENTRY, "pi5.lab", keys[0])
    assert "trust" not in caught.value.message
    shown = ssh_keys.KnownHosts((path,)).judge("pi5.lab", keys[0])
    assert shown.standing == "revoked"
    with pytest.raises(ConnectError, match="is revoked"):
        ssh_keys.record(shown)
    # Another key of that host isn't revoked with it.
    assert ssh_keys.KnownHosts((path,)).judge("pi5.lab", keys[1]).standing != "revoked"


def test_a_certificate_authority_and_a_cut_line_are_named_where_they_would_have_helped(
    home: Path, keys: tuple[paramiko.PKey, paramiko.PKey]
) -> None:
    path = home / ".ssh/known_hosts"
    authority = "@cert-authority " + line("*.lab", keys[1])
    path.write_text(authority + line("pi5.lab", keys[0])[:-9] + "\n")
    with pytest.raises(ConnectError, match="is unknown") as caught:
        ssh_keys.check(ENTRY, "pi5.lab", keys[0])
    assert f"{path}:1 names a certificate authority" in caught.value.message
    assert f"{path}:2 can't be read" in caught.value.message
    with pytest.raises(ConnectError) as other:
        ssh_keys.check(ENTRY, "pi5.example", keys[0])
    assert "authority" not in other.value.message


def test_two_keys_of_one_type_both_vouch(
    home: Path, keys: tuple[paramiko.PKey, paramiko.PKey]
) -> None:
    (home / ".ssh/known_hosts").write_text(line("pi5.lab", keys[0]) + line("pi5.lab", keys[1]))
    ssh_keys.check(ENTRY, "pi5.lab", keys[0])
    ssh_keys.check(ENTRY, "pi5.lab", keys[1])


@pytest.mark.parametrize(
    ("hosts", "host", "known"),
    [
        ("pi5.lab", "PI5.lab", True),
        ("*.lab", "pi5.lab", True),
        ("pi?.lab,other", "pi5.lab", True),
        ("*.lab,!pi5.lab", "pi5.lab", False),
        ("!pi5.lab,*.lab", "pi6.lab", True),
        ("[pi5.lab]:2200", "[pi5.lab]:2200", True),
        ("[pi5.lab]:2200", "pi5.lab", False),
        ("pi5xlab", "pi5.lab", False),
        ("pi5.lab", "pi5xlab", False),
    ],
)
def test_patterns_of_hosts(
    home: Path, keys: tuple[paramiko.PKey, paramiko.PKey], hosts: str, host: str, known: bool
) -> None:
    path = home / ".ssh/known_hosts"
    path.write_text(line(hosts, keys[0]))
    found = ssh_keys.KnownHosts((path,)).judge(host, keys[0])
    assert (found.standing == "trusted") is known


def test_hashed_names_are_understood(home: Path, keys: tuple[paramiko.PKey, paramiko.PKey]) -> None:
    hashed = paramiko.HostKeys.hash_host("[pi5.lab]:2200")
    (home / ".ssh/known_hosts").write_text(line(hashed, keys[0]))
    ssh_keys.check(ENTRY, "[pi5.lab]:2200", keys[0])


def test_a_changed_key_is_called_so_and_the_file_named(
    home: Path, keys: tuple[paramiko.PKey, paramiko.PKey]
) -> None:
    (home / ".ssh/known_hosts").write_text(line("pi5.lab", keys[0]))
    with pytest.raises(ConnectError, match="HAS CHANGED") as caught:
        ssh_keys.check(ENTRY, "pi5.lab", keys[1])
    assert str(home / ".ssh/known_hosts") in caught.value.message
    assert caught.value.context["host_key"] == "changed"


def test_recording_replaces_the_host_s_older_key(
    home: Path, keys: tuple[paramiko.PKey, paramiko.PKey]
) -> None:
    path = ssh_keys.farm_known_hosts()
    path.parent.mkdir()
    path.write_text(line("pi5.lab", keys[0]) + line("other", keys[0]))
    known = ssh_keys.KnownHosts(ssh_keys.known_hosts_files(ENTRY))
    shown = known.judge("pi5.lab", keys[1])
    assert shown.standing == "changed"
    ssh_keys.record(shown)
    assert path.read_text() == line("other", keys[0]) + line("pi5.lab", keys[1])
    assert path.stat().st_mode & 0o777 == 0o600
    ssh_keys.check(ENTRY, "pi5.lab", keys[1])


def test_known_key_types_are_asked_for_first(
    home: Path, keys: tuple[paramiko.PKey, paramiko.PKey]
) -> None:
    (home / ".ssh/known_hosts").write_text(line("pi5.lab", keys[0]))
    known = ssh_keys.KnownHosts(ssh_keys.known_hosts_files(ENTRY))
    assert known.algorithms("pi5.lab") == ("ecdsa-sha2-nistp256",)
    assert known.algorithms("other") == ()
