"""What `farm sim` says."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from farm.commands.sim import Case, Forecast
from farm.core.printable import one_line
from farm.core.tasks import KIND_NAMES
from farm.reports.words import percent, seconds
from farm.ui.frame import new_table

#: Names behind an assumption that are shown.
_NAMED = 5


def forecast(made: Forecast, deadline_s: float | None) -> RenderableType:
    """The end of the run, where its time goes, and what would change it."""
    case = made.case
    night = case.night
    lines = [
        f"{_count(case.cells, 'cell')} on {_count(case.devices, 'device')},"
        f" {_count(case.hosts, 'host')} of {_count(made.cpus, 'CPU')}",
        f"ends after {seconds(case.wall_s)} ({_range(case)})",
        f"idle: devices {percent(made.device_idle)}, CPUs of hosts {percent(made.host_idle)}",
        f"bottleneck: {made.bottleneck}; {_what_if(made)}",
    ]
    if deadline_s is not None:
        lines.append(_deadline(made, deadline_s))
    lines.append(_sources(made))
    unfinished = {name: n for name, n in night.outcomes.items() if name != "passed"}
    if unfinished:
        told = ", ".join(f"{n} {name}" for name, n in unfinished.items())
        lines.append(f"cells without a measurement: {told}")
    table = new_table("work", "count", "busy", "longest", "", right=("count", "busy", "longest"))
    for kind in (*KIND_NAMES.values(), "job"):
        spans = [span for span in night.spans if span.kind == kind]
        if spans:
            longest = max(spans, key=lambda span: span.seconds)
            table.add_row(
                *(kind, str(len(spans)), seconds(sum(span.seconds for span in spans))),
                *(seconds(longest.seconds), one_line(longest.what)),
            )
    return Group(*map(Text, lines[:2]), table, *map(Text, lines[2:]))


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _range(case: Case) -> str:
    nights = _count(len(case.walls_s), "simulated night")
    return f"{nights}: {seconds(case.walls_s[0])} to {seconds(case.walls_s[-1])}"


def _what_if(made: Forecast) -> str:
    parts = []
    if made.twice_devices_s is None:
        parts.append("more devices mean more cells (the config asks for each of them)")
    else:
        parts.append(f"with twice the devices {seconds(made.twice_devices_s)}")
    return ", ".join([*parts, f"with twice the hosts {seconds(made.twice_hosts_s)}"])


def _deadline(made: Forecast, deadline_s: float) -> str:
    within = f"within {seconds(deadline_s)}:"
    if made.case.wall_s <= deadline_s:
        return f"{within} yes"
    found: Sequence[tuple[int | None, str]] = (
        (made.deadline_devices, "device"),
        (made.deadline_hosts, "host"),
    )
    ways = [_count(number, word) for number, word in found if number is not None]
    return f"{within} no; " + (
        " or ".join(ways) + " would do" if ways else "neither more devices nor more hosts alone do"
    )


def _sources(made: Forecast) -> str:
    told = ", ".join(f"{number} {name}" for name, number in made.sources.items() if number)
    if not made.assumed:
        return f"durations: {told}"
    names = ", ".join(made.assumed[:_NAMED])
    more = len(made.assumed) - _NAMED
    rest = f" and {more} more" if more > 0 else ""
    return f"durations: {told}. Assumed, since no earlier run on this host tells: {names}{rest}"
