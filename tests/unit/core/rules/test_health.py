"""When a device goes into quarantine, and what lets it out."""

from __future__ import annotations

from dataclasses import replace

from farm.core.errors import BadOutput, ConnectError, DeviceLost, LeaseError, RunnerCrashed
from farm.core.rules.health import (
    FAILURES_LIMIT,
    SPOILT_LIMIT,
    Health,
    Quarantine,
    failed,
    is_infrastructure,
    measured,
    probed,
    spoilt_by,
    worked,
)
from tests.unit.reports.builders import report

NOW = "2026-01-01T12:00:00.000Z"
SOON = "2026-01-01T12:10:00.000Z"
LATER = "2026-01-01T13:00:00.000Z"


def test_failures_in_a_row_end_in_quarantine_and_a_success_ends_the_row() -> None:
    health = Health("pi5")
    for _ in range(FAILURES_LIMIT - 1):
        health = failed(health, "no answer", NOW)
    assert health.quarantine is None
    assert failed(worked(health), "no answer", NOW).quarantine is None
    quarantine = failed(health, "no answer", NOW).quarantine
    assert quarantine is not None
    assert quarantine.until_probe
    assert f"{FAILURES_LIMIT} infrastructure failures in a row" in quarantine.reason
    assert "no answer" in quarantine.reason


def test_a_model_s_or_somebody_else_s_fault_is_no_device_s() -> None:
    assert is_infrastructure(DeviceLost("gone", device="pi5"))
    assert is_infrastructure(ConnectError("refused", device="pi5"))
    # A lost site says nothing about any of its devices.
    assert not is_infrastructure(DeviceLost("the agent was lost"))
    assert not is_infrastructure(
        DeviceLost("its server ended", device="pi5", host_fault="adb server")
    )
    for error in (RunnerCrashed, BadOutput, LeaseError):
        assert not is_infrastructure(error("x", device="pi5"))


def test_spoilt_measurements_in_a_row_end_in_quarantine() -> None:
    health = Health("pi5")
    for _ in range(SPOILT_LIMIT - 1):
        health = measured(health, ("under_voltage",), NOW)
    assert measured(health, (), NOW).spoilt == 0
    quarantine = measured(health, ("under_voltage",), NOW).quarantine
    assert quarantine is not None
    assert "under_voltage" in quarantine.reason


def test_only_the_device_s_own_guards_speak_against_it() -> None:
    result = replace(report().results[0], conditions={"device_class": "board"})
    invalid = [
        replace(result.performance[0], trust="invalid", guards={name: "flagged"})
        for name in ("under_voltage", "token_count", "emulated")
    ]
    assert spoilt_by(replace(result, performance=tuple(invalid))) == ("under_voltage",)
    assert spoilt_by(replace(result, performance=tuple(invalid[1:]))) == ()
    noisy = replace(invalid[0], trust="noisy")
    assert spoilt_by(replace(result, performance=(noisy,))) == ()
    assert spoilt_by(replace(result, performance=())) is None
    hosted = replace(result, performance=tuple(invalid), conditions={"device_class": "vm"})
    assert spoilt_by(hosted) == ()


def test_a_probe_releases_after_the_cooldown_but_never_what_a_person_did() -> None:
    health = Health("pi5", failures=3, quarantine=Quarantine("x", NOW, "farm", until_probe=True))
    assert probed(health, SOON) == health
    assert probed(health, LATER) == Health("pi5")
    # A clock that was set back releases nothing.
    ahead = replace(health, quarantine=Quarantine("x", LATER, "farm", until_probe=True))
    assert probed(ahead, NOW) == ahead
    theirs = Health("pi5", quarantine=Quarantine("swollen", NOW, "ann", until_probe=False))
    assert probed(theirs, LATER) == theirs
