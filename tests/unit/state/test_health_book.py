"""Quarantine is kept in FARM_HOME and applied to every look at the devices."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from farm.core.errors import DeviceLost, LeaseError, StoreError, UnknownName
from farm.core.events import DeviceChanged, DeviceRecovery, JobFinished
from farm.core.plan import Skip
from farm.core.report import alarms
from farm.core.rules.health import FAILURES_LIMIT, Health, failed
from farm.run.device_health import Care
from farm.state import health_book as module
from farm.state.health_book import HealthBook
from tests.unit.core import builders as b

AT = "2026-01-01T00:00:00.000Z"


@pytest.fixture
def book(tmp_path: Path) -> HealthBook:
    return HealthBook(tmp_path / "farm" / "quarantine.json")


def finished(device: str, error: Exception | None) -> JobFinished:
    return JobFinished(b.attempt_id("cell"), device, AT, None, error)  # type: ignore[arg-type]


def test_a_person_s_quarantine_is_kept_listed_applied_and_released(book: HealthBook) -> None:
    assert book.quarantined() == []
    book.add("a", "swollen battery", "ann@desk")
    (listed,) = HealthBook(book._path).quarantined()
    assert (listed.name, listed.quarantine and listed.quarantine.by) == ("a", "ann@desk")
    one, other = book.apply([b.device("a"), b.device("b")])
    assert (one.state, other.state) == ("quarantined", "ready")
    assert not one.usable
    assert "swollen battery" in one.problem
    assert one.remedy == "farm quarantine release a"
    assert book.release("a").reason == "swollen battery"
    assert book.apply([b.device("a")])[0].state == "ready"
    with pytest.raises(UnknownName, match="isn't in quarantine"):
        book.release("a")


def test_a_renamed_device_stays_in_quarantine(book: HealthBook) -> None:
    device = b.device("a")
    assert device.facts is not None
    for _ in range(FAILURES_LIMIT):
        book.change("a", device.facts.identity, lambda h: failed(h, "gone", AT))
    book.change("a", device.facts.identity, lambda h: replace(h, failures=0))
    renamed = replace(device, entry=replace(device.entry, name="new"))
    (found,) = book.apply([renamed])
    # The quarantine was set long ago: this very probe is the one that releases it.
    assert found.state == "ready"
    assert [health.name for health in book.all()] == ["new"]


def test_a_device_that_answers_too_soon_stays(
    book: HealthBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(FAILURES_LIMIT):
        book.change("a", None, lambda h: failed(h, "gone", AT))
    monkeypatch.setattr(module, "utc_now", lambda: "2026-01-01T00:05:00.000Z")
    (there, away) = book.apply([b.device("a"), b.device("b", alive=False)])
    assert there.state == "quarantined"
    assert "a probe after its cooldown releases it" in there.reason
    assert away.state == "offline"


def test_several_processes_lose_no_count(book: HealthBook) -> None:
    def count(_: int) -> None:
        book.change("a", None, lambda h: Health("a", failures=h.failures + 1))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(count, range(40)))
    assert book.all()[0].failures == 40


def test_a_damaged_file_is_named(book: HealthBook) -> None:
    book.add("a", "x", "ann")
    book._path.write_text("{")
    with pytest.raises(StoreError, match=r"quarantine\.json"):
        book.quarantined()


def test_jobs_of_a_run_are_counted_and_the_last_of_a_bad_row_is_said_once(
    book: HealthBook,
) -> None:
    care = Care(book, [b.device("a")])
    lost = DeviceLost("gone", device="a")
    for _ in range(FAILURES_LIMIT - 1):
        assert care.job_finished(finished("a", lost)) is None
    assert care.job_finished(finished("a", LeaseError("held", device="a"))) is None
    decision = care.job_finished(finished("a", lost))
    assert decision is not None
    assert decision.device == "a"
    assert care.job_finished(finished("a", lost)) is None
    assert [incident.kind for incident in care.incidents] == ["quarantine"]
    assert care.job_finished(finished("stranger", lost)) is None


def test_what_cannot_be_written_never_ends_a_run(tmp_path: Path) -> None:
    (tmp_path / "quarantine.json").mkdir()
    care = Care(HealthBook(tmp_path / "quarantine.json"), [b.device("a")])
    assert care.job_finished(finished("a", DeviceLost("gone", device="a"))) is None
    changed = DeviceChanged(b.device("a"))
    assert care.seen(changed) == changed


def test_recovery_and_missing_devices_are_alarms(book: HealthBook) -> None:
    care = Care(book, [b.device("a")])
    care.recovered(DeviceRecovery("a", "reboot", AT, True, "it answers again"))
    book.add("c", "swollen", "ann")
    devices = [b.device("a"), b.device("b", alive=False), *book.apply([b.device("c")])]
    lines = alarms(devices, [], care.incidents)
    assert lines[0] == "device b of the inventory is not there: no answer"
    assert lines[1].startswith("device c is quarantined: in quarantine by ann since")
    assert lines[2] == "device a: recovery: reboot: it answers again"


def test_cells_of_a_quarantined_device_are_planned_as_left_out(book: HealthBook) -> None:
    book.add("a", "swollen", "ann")
    spec = b.run_spec()
    plan = b.plan(spec, *book.apply([b.device("a"), b.device("b")]))
    assert [cell.place for cell in plan.cells] == ["b"]
    (skip,) = plan.skips
    assert isinstance(skip, Skip)
    assert skip.flag == "quarantined"
    assert "swollen" in skip.reason
