"""Which validated cell may be deployed to which device. Pure.

A device gets what passed on itself, or on a device of its class: the same processor and ABI. What
failed or wasn't judged on a device itself never comes to it because another one passed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from farm.core.device import Device, DeviceFacts
from farm.core.errors import ConfigError
from farm.core.names import nearest
from farm.core.result import CellResult
from farm.core.runner import OWN_KINDS


@dataclass(frozen=True, slots=True)
class Choice:
    """What a device gets, or why it gets nothing."""

    device: str
    cell_id: str = ""
    #: How the cell was validated for this device, or why there is none.
    reason: str = ""
    #: Whether it isn't, and was asked for all the same.
    unverified: bool = False


@dataclass(frozen=True, slots=True)
class Ran:
    """What a run knows besides its results."""

    #: Kind of each cell's runner, by cell id.
    runner_kinds: Mapping[str, str]
    #: Facts of each of its devices, by name; those that it never reached are missing.
    facts: Mapping[str, DeviceFacts]

    def difference(self, result: CellResult, facts: DeviceFacts) -> str:
        """Say in what a cell's device is of another class than this one; empty: in nothing."""
        theirs = self.facts.get(result.device.name)
        return "it was never reached" if theirs is None else class_difference(theirs, facts)


def named_cells(results: Sequence[CellResult], wanted: Sequence[str]) -> tuple[CellResult, ...]:
    """Return the cells that are meant; all of them where none is named.

    Raises:
        ConfigError: A name or glob means none.
    """
    ids = [result.cell_id for result in results]
    for pattern in wanted:
        if not any(fnmatchcase(cell_id, pattern) for cell_id in ids):
            meant = nearest(pattern, ids) or next(iter(ids), "none")
            raise ConfigError(f"the run has no cell {pattern!r}; did you mean {meant}?")
    return tuple(
        result
        for result in results
        if not wanted or any(fnmatchcase(result.cell_id, pattern) for pattern in wanted)
    )


def choose(
    results: Sequence[CellResult],
    devices: Sequence[Device],
    run: Ran,
    *,
    unverified: bool = False,
) -> tuple[Choice, ...]:
    """Choose a cell for each device.

    Args:
        results: The cells that are meant.
        devices: The devices that shall get one.
        run: What else the run knows.
        unverified: Also what isn't validated for a device; the choice says so.

    Raises:
        ConfigError: Two cells of different artifacts, runners or threads would do for a device.
    """
    return tuple(_choice(results, device, run, unverified) for device in devices)


def _choice(
    results: Sequence[CellResult],
    device: Device,
    run: Ran,
    unverified: bool,
) -> Choice:
    facts = device.facts
    if facts is None or not device.usable:
        return Choice(device.name, reason=device.problem or device.state)
    own = [r for r in results if _is_same(r, facts)]
    alike = [r for r in results if r not in own and run.difference(r, facts) == ""]
    candidates = own or alike
    passed = [r for r in candidates if r.outcome == "passed"]
    foreign = [r for r in passed if run.runner_kinds.get(r.cell_id) not in OWN_KINDS]
    shipped = [r for r in passed if r not in foreign]
    if shipped:
        cell = _only(shipped, device.name)
        how = "passed on this device" if own else f"passed on {cell.device.name}, of its class"
        # A flag takes no verdict away; whoever ships it should have seen it.
        how += f" ({', '.join(cell.flags)})" if cell.flags else ""
        return Choice(device.name, cell.cell_id, how)
    if foreign:
        names = ", ".join(sorted({r.runner.name for r in foreign}))
        return Choice(device.name, reason=f"runner {names} isn't farm's own and can't be deployed")
    why = _why_none(results, candidates, facts, run)
    fitting = [
        r
        for r in candidates or results
        if r.device.abi == facts.abi
        and r.runner.sha256 is not None
        and run.runner_kinds.get(r.cell_id) in OWN_KINDS
    ]
    if unverified and fitting:
        return Choice(device.name, _only(fitting, device.name).cell_id, why, unverified=True)
    return Choice(device.name, reason=why)


def _why_none(
    results: Sequence[CellResult],
    candidates: Sequence[CellResult],
    facts: DeviceFacts,
    run: Ran,
) -> str:
    if candidates:
        told = (f"{r.cell_id} {r.outcome}{': ' + r.reason if r.reason else ''}" for r in candidates)
        return f"not passed: {'; '.join(told)}"
    differences = dict.fromkeys(
        f"{r.device.name}: {run.difference(r, facts)}" for r in results if r.outcome == "passed"
    )
    return "no cell of its class passed" + (f" ({'; '.join(differences)})" if differences else "")


def _is_same(result: CellResult, facts: DeviceFacts) -> bool:
    return result.device.identity is not None and result.device.identity == facts.identity


def class_difference(theirs: DeviceFacts, ours: DeviceFacts) -> str:
    """Say in what two devices are of different classes; empty: kernels see no difference.

    A processor is known by its SoC, or by its model where neither device names a SoC.
    """
    if theirs.abi != ours.abi:
        return f"ABI {theirs.abi}, not {ours.abi}"
    if theirs.emulated is not ours.emulated:
        return "emulated" if theirs.emulated else "not emulated"
    named = theirs.soc is not None or ours.soc is not None
    what = (theirs.soc, ours.soc) if named else (theirs.model, ours.model)
    if None in what:
        return "its processor isn't known" if what[0] is None else "this processor isn't known"
    if what[0] != what[1]:
        return f"processor {what[0]}, not {what[1]}"
    if set(theirs.features) != set(ours.features):
        odd = sorted(set(theirs.features) ^ set(ours.features))
        return f"features of the processor ({', '.join(odd)})"
    return ""


def _only(found: Sequence[CellResult], device: str) -> CellResult:
    """The first of cells that ship the same; several that differ have to be told apart."""
    kinds = {
        (r.model, r.recipe, r.toolchain, r.runner.name, r.threads, r.artifact.sha256): r
        for r in reversed(found)
    }
    if len(kinds) > 1:
        names = ", ".join(sorted(r.cell_id for r in kinds.values()))
        raise ConfigError(f"several cells would do for {device}: name one of {names}")
    return next(iter(kinds.values()))
