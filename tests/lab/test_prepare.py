"""`farm devices prepare` on lab devices whose settings keep state, as a phone's do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from farm.commands.hold import borrowed
from farm.commands.quieten import prepare, undo
from farm.core.errors import ConfigError, LeaseError
from farm.core.lease import Hold
from farm.site.device.connection import Connection
from farm.site.device.lease import user_and_host
from tests.contract.site_bench import make_home
from tests.lab.machine import Machine

pytestmark = pytest.mark.lab

Factory = Callable[..., Machine]

_SETTINGS = """#!/system/bin/sh
# As Android's: `null` for what was never set, and one setting that an unrooted phone refuses.
mkdir -p /data/sim/settings
file="/data/sim/settings/$2.$3"
case "$1 $3" in
"put low_power") echo "java.lang.SecurityException: Permission denial" >&2; exit 255 ;;
get*) cat "$file" 2>/dev/null || echo null ;;
put*) printf '%s\\n' "$4" > "$file" ;;
delete*) rm -f "$file"; echo "Deleted 1 rows" ;;
*) exit 1 ;;
esac
"""
_DUMPSYS = """#!/system/bin/sh
state=/data/sim/doze
case "$1 $2" in
"deviceidle enabled") cat $state 2>/dev/null || echo 1 ;;
"deviceidle disable") echo 0 > $state; echo "Deep idle mode disabled" ;;
"deviceidle enable") echo 1 > $state; echo "Deep idle mode enabled" ;;
"battery "*|"thermalservice "*) cat "/data/sim/$1" ;;
esac
"""


@pytest.fixture
def phone(adb_device: Factory) -> Machine:
    machine = adb_device()
    machine.set_file("system/bin/settings", _SETTINGS, 0o755)
    machine.set_file("system/bin/dumpsys", _DUMPSYS, 0o755)
    machine.restart_daemon()
    folder = machine.disk / "sim/settings"
    folder.mkdir()
    folder.chmod(0o777)
    (folder / "system.screen_brightness").write_text("143\n")
    (folder / "system.screen_brightness").chmod(0o666)
    return machine


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return make_home(tmp_path)


def values(machine: Machine) -> dict[str, str]:
    return {p.name: p.read_text().strip() for p in (machine.disk / "sim/settings").iterdir()}


def test_a_phone_is_prepared_twice_and_put_back_as_it_was(phone: Machine, home: Path) -> None:
    before = values(phone)
    connection = Connection(phone.entry, home)
    changes = {change.name: change for change in prepare(connection, home)}
    assert (changes["system screen_brightness"].old, changes["system screen_brightness"].new) == (
        "143",
        "10",
    )
    assert changes["global stay_on_while_plugged_in"].old == "null"
    assert values(phone)["global.stay_on_while_plugged_in"] == "7"
    assert (changes["doze"].old, changes["doze"].new) == ("enabled", "disabled")
    assert (phone.disk / "sim/doze").read_text() == "0\n"
    refused = changes["global low_power"]
    assert "SecurityException" in refused.problem
    assert (refused.old, refused.new) == ("null", "null")
    # Preparing again doesn't take prepared values for old ones.
    assert all(change.old == change.new for change in prepare(connection, home))
    undone = undo(connection, home)
    assert not [change for change in undone if change.problem]
    assert values(phone) == before
    assert (phone.disk / "sim/doze").read_text() == "1\n"
    with pytest.raises(ConfigError, match="nothing to undo"):
        undo(connection, home)
    connection.close()


def test_old_values_are_kept_before_the_first_change(
    phone: Machine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = Connection(phone.entry, home)

    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("farm.commands.quieten._changed", cut)
    with pytest.raises(KeyboardInterrupt):
        prepare(connection, home)
    (kept,) = json.loads((home / "prepared.json").read_text()).values()
    assert kept["old"]["system screen_brightness"] == "143"
    assert values(phone) == {"system.screen_brightness": "143"}
    connection.close()


def test_a_device_of_somebody_else_is_not_prepared(phone: Machine, home: Path) -> None:
    connection = Connection(phone.entry, home)
    connection.helper.take_hold(Hold("ann@desk", "mine", 60.0))
    with (
        pytest.raises(LeaseError, match=r"held by ann@desk: mine"),
        borrowed(connection.helper, "prepare", user_and_host()),
    ):
        raise AssertionError("borrowed what somebody holds")
    connection.helper.release_hold("ann@desk")
    with borrowed(connection.helper, "prepare", user_and_host()):
        ours = connection.helper.show_lease()
        assert isinstance(ours, Hold)
        assert ours.reason == "prepare"
    assert connection.helper.show_lease() is None
    connection.close()


def test_a_machine_without_governors_has_nothing_to_prepare(
    ssh_device: Factory, home: Path
) -> None:
    connection = Connection(ssh_device().entry, home)
    with pytest.raises(ConfigError, match="shows no CPU governor"):
        prepare(connection, home)
    connection.close()
