"""The plan: which cells a run has, and why others were left out. A pure function.

A cell is one line of the report: model x recipe x toolchain x runner x threads x device. With
`each` it is bound to one device; with `any` to a pool, and gets a device when it runs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from farm.core.artifact import ModelSource, Recipe, Toolchain
from farm.core.device import Device
from farm.core.errors import PlanError
from farm.core.names import meant, nearest
from farm.core.runner import RunnerSpec
from farm.core.selector import Selector, parse_selector
from farm.core.spec import DeviceRequest, Resources, RunSpec


@dataclass(frozen=True, slots=True)
class ArtifactId:
    """Names one export of a run."""

    model: str
    recipe: str
    toolchain: str

    def __str__(self) -> str:
        base = f"{self.model}/{self.recipe}"
        return base if self.toolchain == "default" else f"{base}/{self.toolchain}"


@dataclass(frozen=True, slots=True)
class Decides:
    """What a cell's budget decides about the loss of one metric, by earlier nights."""

    metric: str
    #: Smallest tolerance, as a share: a clean cell passes, twice the loss is found. None: none.
    tolerance: float | None
    #: Pairs of launches that the budget holds.
    pairs: int
    #: Standard deviation of the logarithm of a launch, over so many nights.
    scatter: float
    nights: int
    #: Budget that the config's own tolerance needs, seconds; None: it is decided, or never is.
    needs_s: float | None = None


@dataclass(frozen=True, slots=True)
class Cell:
    """One planned cell."""

    #: Stable between runs: made of names only.
    cell_id: str
    artifact: ArtifactId
    runner: str
    #: 0 is auto.
    threads: int
    #: Devices that may run it, by name; exactly one for `each`.
    devices: tuple[str, ...]
    #: Name shown while no device is chosen: the device or the pool.
    place: str
    #: Cells of one group run on different devices: what `any: 2` asks for. Empty for all others.
    group: str = ""
    #: By metric, where earlier nights of the cell are known.
    decides: tuple[Decides, ...] = ()


@dataclass(frozen=True, slots=True)
class Skip:
    """A cell that won't run, and why."""

    cell: Cell
    #: `excluded`, `device_missing`, `quarantined`, `unfit`.
    flag: str
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything a run will do."""

    cells: tuple[Cell, ...]
    skips: tuple[Skip, ...]
    #: Distinct exports in the order of first need.
    artifacts: tuple[ArtifactId, ...]
    devices: tuple[Device, ...]
    #: Requests of the config that no device meets, and so have no cell.
    unmet: tuple[str, ...] = ()

    @property
    def planned(self) -> int:
        """Number of cells that get a result, skipped ones included."""
        return len(self.cells) + len(self.skips)

    def cpu_features(self) -> tuple[tuple[str, ...], ...]:
        """CPU features of its devices, each set once."""
        return tuple(sorted({one.facts.features for one in self.devices if one.facts is not None}))


@dataclass(frozen=True, slots=True)
class Catalog:
    """What the names in a run config mean, resolved before planning."""

    models: dict[str, ModelSource]
    recipes: dict[str, Recipe]
    toolchains: dict[str, Toolchain]
    runners: dict[str, RunnerSpec]
    #: Memory that an export is expected to need, by model and recipe; missing where unknown.
    export_bytes: Mapping[tuple[str, str], int] = field(default_factory=dict)

    def resources(self, limits: Resources, target: ArtifactId) -> Resources:
        """What to set aside for an export: what the config says, else the estimate."""
        if limits.memory_bytes:
            return limits
        need = self.export_bytes.get((target.model, target.recipe), 0)
        return replace(limits, memory_bytes=need)

    def unusable(self, artifact: ArtifactId, runner: str) -> str | None:
        """Say why a runner can't load an artifact; None when it can."""
        program = self.recipes[artifact.recipe].program
        spec = self.runners[runner]
        if program in spec.programs:
            return None
        takes = " and ".join(f".{name}" for name in spec.programs)
        return f"recipe {artifact.recipe} makes a .{program}, runner {runner} takes {takes}"


def make_plan(spec: RunSpec, devices: Sequence[Device], catalog: Catalog) -> Plan:
    """Plan a run over the devices of an inventory.

    Args:
        spec: The run config.
        devices: What probing found.
        catalog: What its names mean.

    Raises:
        PlanError: No device matches any request; the message says what was asked and what
            there is.
    """
    cells: list[Cell] = []
    skips: list[Skip] = []
    unmet = []
    for number, request in enumerate(spec.devices):
        found = list(_requested(spec, request, devices))
        if not found:
            hint = _meant(request, devices)
            unmet.append(f"devices.{number}: no device is `{request.select}`{hint}")
        for cell, usable in found:
            excluded = _excluded_by(spec, cell)
            unusable = catalog.unusable(cell.artifact, cell.runner)
            if excluded is not None:
                skips.append(Skip(cell, "excluded", f"excluded by the config: {excluded}"))
            elif unusable is not None:
                skips.append(Skip(cell, "excluded", unusable))
            elif not usable:
                skips.append(Skip(cell, *_why_missing(request, cell, devices)))
            else:
                cells.append(cell)
    if not cells and not skips:
        raise PlanError(_nothing_matches(spec, devices))
    _refuse_duplicates([*cells, *(skip.cell for skip in skips)])
    artifacts = tuple(dict.fromkeys(cell.artifact for cell in cells))
    return Plan(tuple(cells), tuple(skips), artifacts, tuple(devices), tuple(unmet))


def _requested(
    spec: RunSpec, request: DeviceRequest, devices: Sequence[Device]
) -> Iterator[tuple[Cell, bool]]:
    """Yield each cell of a request and whether a device for it can be used."""
    selector = parse_selector(request.select)
    matching = [device for device in devices if selects(selector, device)]
    combinations = itertools.product(
        (model.name for model in spec.models),
        spec.matrix.recipe,
        spec.matrix.toolchain,
        spec.matrix.runner,
        spec.matrix.threads,
    )
    for model, recipe, toolchain, runner, threads in combinations:
        artifact = ArtifactId(model, recipe, toolchain)
        if request.any is None:
            for device in matching:
                place = device.name
                cell_id = _cell_id(artifact, runner, threads, place)
                cell = Cell(cell_id, artifact, runner, threads, (device.name,), place)
                yield cell, device.usable
        elif matching:
            pool = request.pool or request.select or "any"
            names = tuple(device.name for device in matching)
            usable = sum(device.usable for device in matching)
            group = "" if request.any == 1 else _cell_id(artifact, runner, threads, pool)
            for number in range(request.any):
                place = pool if request.any == 1 else f"{pool}#{number + 1}"
                cell_id = _cell_id(artifact, runner, threads, place)
                cell = Cell(cell_id, artifact, runner, threads, names, place, group)
                yield cell, number < usable


def _why_missing(request: DeviceRequest, cell: Cell, devices: Sequence[Device]) -> tuple[str, str]:
    """Flag and reason of a cell that no device can be used for, or none besides its siblings'."""
    named = [device for device in devices if device.name in cell.devices]
    gone = [device for device in named if not device.usable]
    states = {device.state for device in gone}
    flag = next((flag for flag in ("quarantined", "unfit") if flag in states), "device_missing")
    reason = "; ".join(f"{device.name}: {device.reason or device.state}" for device in gone)
    if len(gone) == len(named):
        return flag, reason
    few = (
        f"`any: {request.any}` asks for different devices and {len(named) - len(gone)} can be used"
    )
    return flag, f"{few}; {reason}" if reason else few


def only(plan: Plan, cell_id: str, on: str = "") -> Plan:
    """Return the plan of one cell alone, on its own devices or on another one of the plan.

    Raises:
        PlanError: The plan has no such cell, or no such device.
    """
    known = {cell.cell_id: cell for cell in (*plan.cells, *(skip.cell for skip in plan.skips))}
    if cell_id not in known:
        near = nearest(cell_id, known) or next(iter(known), "none")
        raise PlanError(f"the run has no cell {cell_id!r}; did you mean {near}?")
    cell = replace(known[cell_id], group="")
    if on:
        moved = _cell_id(cell.artifact, cell.runner, cell.threads, on)
        cell = replace(cell, cell_id=moved, devices=(on,), place=on, decides=())
    devices = tuple(device for device in plan.devices if device.name in cell.devices)
    if not devices:
        names = ", ".join(device.name for device in plan.devices)
        near = meant(on, [device.name for device in plan.devices])
        raise PlanError(f"the run has no device {on!r}; it has {names}{near}")
    return Plan((cell,), (), (cell.artifact,), devices)


def measuring_at_most_s(spec: RunSpec, plan: Plan) -> float:
    """Longest time that the budgets let one device spend in measuring, seconds.

    Devices work side by side; a cell of a pool may come to any of its devices.
    """
    counts = [
        sum(1 / len(cell.devices) for cell in plan.cells if device.name in cell.devices)
        for device in plan.devices
    ]
    workload = spec.workload
    return (workload.budget_s + (workload.sustained_s or 0.0)) * max(counts, default=0.0)


def selects(selector: Selector, device: Device) -> bool:
    """Tell whether a selector means a device; without facts, by what the inventory says of it.

    A term about a fact that is unknown because the device is away must not hide the device:
    it would vanish from the report instead of reading as missing.
    """
    if device.facts is not None:
        return selector.matches(device.attributes)
    known = device.attributes
    return all(term.holds(known) for term in selector.terms if term.key in known)


def _cell_id(artifact: ArtifactId, runner: str, threads: int, place: str) -> str:
    parts = [str(artifact), runner, f"t{threads}" if threads else "auto", place]
    return ":".join(parts)


def _excluded_by(spec: RunSpec, cell: Cell) -> str | None:
    fields = {
        "model": cell.artifact.model,
        "recipe": cell.artifact.recipe,
        "toolchain": cell.artifact.toolchain,
        "runner": cell.runner,
        "threads": str(cell.threads) if cell.threads else "auto",
        "device": cell.place,
    }
    for rule in spec.exclude:
        if all(fields.get(key) == value for key, value in rule):
            return ", ".join(f"{key}={value}" for key, value in rule)
    return None


def _nothing_matches(spec: RunSpec, devices: Sequence[Device]) -> str:
    place = f"{spec.source}: devices: " if spec.source else ""
    asked = "; ".join(
        f"`{request.select or '(all)'}`{_meant(request, devices)}" for request in spec.devices
    )
    if not devices:
        return (
            f"{place}no device for {asked}: the inventory has none. Attach a phone (`adb devices`),"
            " add one to the inventory file, or leave `local: true` in its defaults."
        )
    lines = []
    for device in devices:
        for request in spec.devices:
            failing = parse_selector(request.select).failing(device.attributes)
            terms = ", ".join(str(term) for term in failing)
            lines.append(f"{device.name}: not {terms}")
    return f"{place}no device for {asked}. Of the inventory: {'; '.join(lines)}."


def _meant(request: DeviceRequest, devices: Sequence[Device]) -> str:
    """Say which key or value a selector that no device meets may have meant."""
    known = [device.attributes for device in devices]
    keys = list(dict.fromkeys(key for attributes in known for key in attributes))
    for term in parse_selector(request.select).terms:
        values = [str(attributes[term.key]) for attributes in known if term.key in attributes]
        meant = nearest(term.values[0] if term.key in keys else term.key, values or keys)
        if meant is not None and meant not in term.values:
            return f", did you mean {meant}?"
    return ""


def _refuse_duplicates(cells: Sequence[Cell]) -> None:
    seen: set[str] = set()
    for cell in cells:
        if cell.cell_id in seen:
            raise PlanError(
                f"cell {cell.cell_id} is planned twice: two entries under `devices` match the "
                "same device. Narrow one of their selectors, or give pools different names."
            )
        seen.add(cell.cell_id)
