"""Nights over a lab phone, by the commands of the guide: `python -m tests.lab.nights` (as root).

Each night is a `farm nightly` of its own under a FARM_HOME of its own; what is changed before it
stands in NIGHTS, with the exit code and the words that its report has to have. Prints a table and
ends with 1 where a night was another. Minutes; `make test` has those that are cheap and end alike
however busy the machine is (test_nights.py), and tests/unit proves the verdicts one by one.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.command import CONFIGS, Farm
from tests.lab.machine import Machine
from tests.lab.phone import make_phone
from tests.lab.up import lab_of

TINY = str(CONFIGS / "tiny.yaml")
SETTINGS = (
    "--cluster", "none", "--live", "off",
    "--set", "workload.launches=4", "--set", "workload.budget_s=15",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Night:
    """One night: what is changed before it, and how it has to end."""

    name: str
    exits: tuple[int, ...]
    #: Of which each must stand in report.json's one cell, its reason or the alarms.
    words: tuple[str, ...] = ()
    options: Callable[[Place], tuple[str, ...]] = lambda _place: ()
    before: Callable[[Place], None] = lambda _place: None
    after: Callable[[Place], None] = lambda _place: None
    environment: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class Place:
    """The phone, and the farm command beside it."""

    farm: Farm
    phone: Machine
    settings: tuple[str, ...] = SETTINGS

    @property
    def slower(self) -> tuple[str, ...]:
        """A deeper model under the tiny one's name."""
        folder = self.farm.cwd / "slower"
        pte = folder / "tiny-llama-deep-xnnpack-8da4w.pte"
        words = f"pte: {pte}, tokenizer: {folder / 'tiny-llama-deep-tokenizer.json'}"
        return ("--set", f"models=[{{name: tiny-llama, {words}}}]")

    def waived(self, until: str) -> tuple[str, ...]:
        """The slower artifact, known until a date; a .pte has no eager model to be judged by."""
        waiver = f"{{cells: '*', gate: regress, until: {until}, reason: a deeper model}}"
        return (*self.slower, "--set", f"waivers=[{waiver}]")


def _export_slower(place: Place) -> None:
    words = ("export", TINY, "--set", "models=[tiny-llama-deep]", "--copy", "slower")
    if not (place.farm.cwd / "slower").exists():
        done = place.farm(*words, limit_s=1200)
        assert done.returncode == 0, done.stdout + done.stderr


def set_baseline(place: Place) -> None:
    """Let the nights that follow be compared with this one."""
    done = place.farm("baseline", "set", "latest", "tiny")
    sys.stdout.write(done.stdout + done.stderr)


def _update_system(place: Place) -> None:
    """What an update of the phone's system leaves: another build fingerprint."""
    path = place.phone.state / "files" / "system" / "build.prop"
    path.write_text(path.read_text().replace("LAB1/1", "LAB2/2"))
    place.phone.restart()


NIGHTS = (
    Night("first night", (0, 3), options=lambda _: ("--allow-no-baseline",), after=set_baseline),
    Night("clean", (0,), ("byte for byte",)),
    Night(
        "clean, and the gate tries itself", (0,),
        ("'kind': 'same'", "'kind': 'slower'", "'verdict': 'REGRESSED'", "'missed': 0"),
        options=lambda _: ("--set", "self_check={every: 1}"),
    ),
    Night(
        "slower artifact", (1,), ("REGRESSED", "confirmed by a second sitting"),
        lambda place: place.slower, before=_export_slower,
    ),
    Night(
        "the same, waived", (3,), ("waived: regress", " undecided"),
        lambda place: place.waived("2099-01-01"), before=_export_slower,
    ),
    Night(
        "its waiver expired", (1,), ("expired",),
        lambda place: place.waived("2026-01-01"), before=_export_slower,
    ),
    Night(
        "wrong kernel", (1,), ("compute wrongly on this device",),
        environment=(("CXX", "g++ -DFARM_SCALE_ERROR=1.02"),),
    ),
    Night(
        "all numbers invalid", (3,), ("speed_untrusted", "hidden_cap"),
        # A busy machine may have given the first night no number for a baseline either.
        options=lambda _: ("--allow-no-baseline",),
        before=lambda place: place.phone.limit_cpu(0.1),
        after=lambda place: place.phone.unlimit(),
    ),
    Night("OS build changed", (3,), ("INCOMPARABLE", "OS build is"), before=_update_system),
    Night(
        "device gone", (3,), ("device_missing", "is not there"),
        before=lambda place: place.phone.kill(),
    ),
)  # fmt: skip


def told(night: Night, place: Place, *, show: bool = False) -> tuple[int, str, list[str]]:
    """Run one night; return its exit code, its last line, and what is missing in its report."""
    night.before(place)
    inventory = place.farm.cwd / "lab.yaml"
    words = ("nightly", TINY, "--inventory", str(inventory), *place.settings, *night.options(place))
    os.environ.update(night.environment)
    try:
        done = place.farm(*words, limit_s=1200)
    finally:
        for name, _ in night.environment:
            del os.environ[name]
    night.after(place)
    report: dict[str, Any] = place.farm.report() if "->" in done.stdout else {"results": []}
    seen = f"{report['results']} {report.get('alarms')} {report.get('self_check')}"
    missing = [word for word in night.words if word not in seen]
    if show or done.returncode not in night.exits or missing:
        alarms = "\n".join(f"alarm: {alarm}" for alarm in report.get("alarms") or ())
        sys.stdout.write(f"== {night.name}\n{done.stdout}{done.stderr}{alarms}\n")
    return done.returncode, (done.stdout.splitlines() or [""])[-1], missing


def main() -> int:
    """Run every night; return 1 where one was another than it had to be."""
    parser = argparse.ArgumentParser(description="Nights over a lab phone.")
    parser.add_argument(
        "--only", help="words, with a comma between, of nights to run after the first"
    )
    parser.add_argument("--show", action="store_true", help="print what each night prints")
    options = parser.parse_args()
    wanted: str | None = options.only
    wrong = 0
    with lab_of(lambda server: iter([make_phone(server, "nightphone", sensors=True)])) as lab:
        farm, (phone,) = lab
        place = Place(farm, phone)
        for night in NIGHTS:
            named = not wanted or any(word in night.name for word in wanted.split(","))
            if not named and night is not NIGHTS[0]:
                continue
            began = time.monotonic()
            code, line, missing = told(night, place, show=options.show)
            good = code in night.exits and not missing
            wrong += not good
            took = f"{time.monotonic() - began:.0f} s"
            said = "ok" if good else f"WRONG, wanted {night.exits}, missing {missing}"
            print(f"| {night.name} | {code} | {line} | {took} | {said} |", flush=True)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
