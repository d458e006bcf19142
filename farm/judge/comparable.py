"""What makes a cell or a metric incomparable with its baseline, in words."""

from __future__ import annotations

from collections.abc import Sequence

from farm.core.result import CellResult, PerformanceReport


def differences(new: CellResult, old: CellResult, *, same_lease: bool) -> list[str]:
    """What differs between two cells so that no number of theirs can be compared.

    Args:
        new: The cell.
        old: The baseline's.
        same_lease: Both arms ran side by side on one device: only the arms can differ.
    """
    places = (
        ("device", new.device.identity, old.device.identity),
        ("OS build", new.device.os_build, old.device.os_build),
        ("OS", new.device.os, old.device.os),
        ("instruction set", new.runner.isa, old.runner.isa),
    )
    arms = (
        ("runner", new.runner.name, old.runner.name),
        ("our code in the timed path", _own_code(new), _own_code(old)),
        ("backend", new.runner.backend_effective, old.runner.backend_effective),
        ("threads asked for", new.threads, old.threads),
    )
    return _differing((*(() if same_lease else places), *arms))


def changed_system(new: CellResult, old: CellResult) -> list[str]:
    """What changed about a device between two nights although it is the same one."""
    if new.device.identity != old.device.identity:
        return []
    pairs = (
        ("OS build", new.device.os_build, old.device.os_build),
        ("OS", new.device.os, old.device.os),
    )
    return _differing(pairs)


def way_of_measuring(new: PerformanceReport, old: PerformanceReport | None) -> str:
    """Say why a metric can't be compared with the baseline's; empty where it can."""
    if old is None:
        return "the baseline has none"
    for name in ("unit", "threads", "affinity", "definition"):
        now, then = getattr(new, name), getattr(old, name)
        if now != then:
            return f"{name} is {now}, was {then}"
    return ""


def _own_code(result: CellResult) -> str | None:
    """Names of farm's code that ran in place of ExecuTorch's; None where that isn't known.

    Older reports name kernels alone, so what else was ours in their numbers isn't known.
    """
    own = result.runner.own_code
    if own is None:
        kernels = result.conditions.get("own_kernels")
        return None if kernels is None else f"{kernels} and what wasn't recorded"
    return ", ".join(own) or "none"


def _differing(pairs: Sequence[tuple[str, object, object]]) -> list[str]:
    return [
        f"{name} is {now}, was {then}"
        for name, now, then in pairs
        if now != then and now is not None and then is not None
    ]
