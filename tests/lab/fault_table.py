"""Prints the table of FAULTS.md, with the times that the last run of `test_faults` measured."""

from __future__ import annotations

import json
import sys

from tests.lab.faults import ELSEWHERE, FAULTS, TIMES, Fault, slug


def table() -> str:
    """The rows of FAULTS.md."""
    lines = ["| fault | outcome | noticed, adb | noticed, ssh |", "|---|---|---|---|"]
    for fault in FAULTS:
        path = TIMES / f"{slug(fault.name)}.json"
        times = json.loads(path.read_text()) if path.exists() else {}
        cells = [_seconds(fault, times, transport) for transport in ("adb", "ssh")]
        lines.append(f"| {fault.name} | {fault.outcome} | {cells[0]} | {cells[1]} |")
    for name, outcome, test in ELSEWHERE:
        lines.append(f"| {name} | {outcome} | `{test.rpartition('::')[2]}` | same |")
    return "\n".join(lines) + "\n"


def _seconds(fault: Fault, times: dict[str, float | None], transport: str) -> str:
    if fault.only not in (None, transport):
        return f"`{fault.elsewhere.rpartition('::')[2]}`"
    found = times.get(transport)
    return "-" if found is None else f"{found:.1f} s"


if __name__ == "__main__":
    sys.stdout.write(table())
