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
