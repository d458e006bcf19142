"""The moment in which a job ran, for the report: before and after. Pure."""

from __future__ import annotations

from farm.site.device.connection import Snapshot


def conditions(
    before: Snapshot, after: Snapshot, niceness: int | None = None
) -> tuple[tuple[str, str], ...]:
    """Name and value of what could be read; what couldn't is in `unread`.

    Args:
        before: The device before the launches.
        after: And after them.
        niceness: Of launches that this host started as its own device; None for another device.
    """
    pairs: list[tuple[str, str]] = []
    for when, snapshot in (("before", before), ("after", after)):
        facts = snapshot.facts
        values = {
            "governor": facts.governor,
            "battery_level": facts.battery_level,
            "battery_c": facts.battery_c,
            "thermal_status": facts.thermal_status,
            "ram_available_bytes": facts.ram_available_bytes,
            "storage_free_bytes": facts.storage_free_bytes,
        }
        pairs += [(f"{name}_{when}", str(v)) for name, v in values.items() if v is not None]
        hottest = snapshot.hottest
        if hottest is not None:
            pairs.append((f"hottest_{when}", f"{hottest[0]} {hottest[1]:.1f} C"))
    facts = after.facts
    if facts.virtualised is not None:
        pairs.append(("virtualised", "true" if facts.virtualised else "false"))
    pairs.append(("emulated", "true" if facts.emulated else "false"))
    if niceness is not None:
        pairs.append(("niceness", str(niceness)))
    if facts.unread:
        pairs.append(("unread", "; ".join(facts.unread)))
    return tuple(pairs)
