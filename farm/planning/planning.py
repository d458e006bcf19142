"""From the command line to a plan: config and inventory read, names resolved, devices probed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from farm import codec
from farm.cluster import start as cluster_start
from farm.cluster.start import Runtime
from farm.config.load import load_inventory, load_run
from farm.core.device import Inventory
from farm.core.errors import ConfigError
from farm.core.names import nearest
from farm.core.plan import Catalog, Plan, make_plan, measuring_at_most_s
from farm.core.printable import shown_value
from farm.core.rules.launches import measures, too_long
from farm.core.rules.waivers import check_cells
from farm.core.selector import parse_selector
from farm.core.spec import RunSpec
from farm.paths import farm_home, quarantine_file
from farm.planning.catalog import resolve_names
from farm.planning.deciding import with_decisions
from farm.planning.devices import find_devices
from farm.planning.exportable import check_exports
from farm.state.health_book import HealthBook
from farm.store import run_bundle

_NUMBER: Final = re.compile("[0-9]+")


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the command line says about a run."""

    #: None only where a run is gone on with: its journal has the plan.
    config: Path | None
    inventory: Path | None = None
    select: str = ""
    overrides: tuple[str, ...] = ()
    cluster: str = "local"
    out: Path = field(default_factory=lambda: Path("runs"))
    #: Name or report file to compare with; None compares with nothing.
    baseline: str | None = None
    quick: bool = False
    #: A night tries its gate: the baseline's arm is measured also where it is the candidate, file
    #: by file, and `latest` stays the night.
    against_itself: bool = False
    #: Make no second sitting of what the first look leaves open.
    one_look: bool = False
    #: Share required of cells and of speeds where the config says nothing.
    require: Fraction = Fraction(0)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A config with its names resolved; no device was asked."""

    spec: RunSpec
    config: dict[str, Any]
    catalog: Catalog
    inventory: Inventory
    #: Of the command line.
    select: str


@dataclass(frozen=True, slots=True)
class Prepared:
    """A config with its names resolved and its devices probed."""

    spec: RunSpec
    config: dict[str, Any]
    catalog: Catalog
    plan: Plan


def load(options: RunOptions) -> Loaded:
    """Read config and inventory and resolve every name in them. Files of runners are hashed.

    Raises:
        ConfigError: Something in them is wrong; names file and key.
        UnknownName: A model, recipe or runner that nobody knows.
    """
    if options.config is None:
        raise ConfigError("give a run config, or `--resume RUN`; `ls configs` shows examples")
    path = options.config
    if run_bundle.is_bundle(path):
        path = run_bundle.config_of(path, farm_home())
    spec, config = load_run(path, options.overrides)
    spec = replace(spec, require=spec.require.filled(options.require))
    if options.quick:
        spec = quick(spec)
    parse_selector(options.select)
    catalog, inventory = resolve_names(spec), load_inventory(options.inventory)
    return Loaded(spec, config, catalog, inventory, options.select)


def load_checked(options: RunOptions, home: Path) -> Loaded:
    """Load, and refuse what its exports would fail on: all of it before a cluster starts.

    Raises:
        ConfigError, UnknownName: As `load` and `check_exports`.
    """
    loaded = load(options)
    check_exports(loaded.spec, loaded.catalog, home)
    return loaded


def quick(spec: RunSpec) -> RunSpec:
    """Return the run with the least work that still shows every step."""
    return replace(
        spec,
        workload=replace(spec.workload, launches=1, max_launches=1, cold_launches=0, repetitions=2),
        correctness=replace(spec.correctness, tokens=min(64, spec.correctness.tokens)),
    )


async def prepare(
    loaded: Loaded,
    runtime: Runtime,
    home: Path,
    *,
    recover: bool = False,
    elsewhere: bool = False,
) -> Prepared:
    """Probe and plan.

    Args:
        loaded: What to run.
        runtime: Pool and sites.
        home: FARM_HOME of this host: its quarantine counts.
        recover: Try the recovery steps of devices that don't answer.
        elsewhere: As for `find_devices`.

    Raises:
        ConfigError: As `find_devices`, or a waiver or an exclusion is about nothing of the plan.
        PlanError: No device matches.
    """
    spec, catalog = loaded.spec, loaded.catalog
    devices = await find_devices(
        runtime.sites, loaded.inventory, loaded.select, recover=recover, elsewhere=elsewhere
    )
    devices = HealthBook(quarantine_file(home)).apply(devices)
    made = with_decisions(spec, make_plan(spec, devices, catalog), home)
    if loaded.select:  # which may leave out what a request or a waiver is about
        made = replace(made, unmet=())
    else:
        cells = [*made.cells, *(skip.cell for skip in made.skips)]
        check_cells(spec.waivers, [cell.cell_id for cell in cells], spec.source)
        _check_excluded(spec, [cell.place for cell in cells])
    return Prepared(spec, loaded.config, catalog, made)


def _check_excluded(spec: RunSpec, places: Sequence[str]) -> None:
    """Refuse a rule whose device is most likely one of the plan, misspelt.

    Any other name is taken: that of a phone that isn't attached today leaves nothing out.

    Raises:
        ConfigError: Names file, key and the device that was meant.
    """
    for index, rule in enumerate(spec.exclude):
        name = dict(rule).get("device")
        if name is None or name in places:
            continue
        meant = nearest(name, places)
        # pixel7 and pixel8, emulator-5554 and emulator-5556: two of a kind, and no slip.
        if meant is not None and _NUMBER.sub("", meant.lower()) != _NUMBER.sub("", name.lower()):
            key = f"exclude.{index}.device"
            raise ConfigError(
                f"{spec.source}: {key}: {name!r} leaves nothing out, did you mean {meant}?; has:"
                f" {', '.join(dict.fromkeys(places))}",
                file=spec.source,
                key=key,
            )


def plan(options: RunOptions, home: Path) -> Prepared:
    """Plan without running; probes devices from this process, and through those of a cluster.

    Raises:
        ConfigError, PlanError: As `prepare` and `load_checked`.
    """
    loaded = load_checked(options, home)
    cluster_start.launch(options.cluster)

    async def work() -> Prepared:
        async with cluster_start.started(options.cluster, home) as runtime:
            return await prepare(loaded, runtime, home, elsewhere=True)

    return asyncio.run(work())


def plan_data(prepared: Prepared) -> dict[str, Any]:
    """Return the plan as plain data, for plan.json and `farm plan --json`."""
    return {
        "name": prepared.spec.name,
        "config": prepared.config,
        "spec": codec.to_data(_shown(prepared.spec)),
        "measures": [measure.name for measure in measures(prepared.spec.workload)],
        "left_out": left_out(prepared),
        "measuring_at_most_s": measuring_at_most_s(prepared.spec, prepared.plan),
        "cells": [codec.to_data(cell) for cell in prepared.plan.cells],
        "skips": [codec.to_data(skip) for skip in prepared.plan.skips],
        "unmet": list(prepared.plan.unmet),
        "artifacts": [str(artifact) for artifact in prepared.plan.artifacts],
        "devices": [codec.to_data(device) for device in prepared.plan.devices],
    }


def _shown(spec: RunSpec) -> RunSpec:
    """The spec without values of variables that may be keys or tokens."""
    runners = (
        replace(runner, env=tuple((key, shown_value(key, value)) for key, value in runner.env))
        for runner in spec.runners
    )
    return replace(spec, runners=tuple(runners))


def left_out(prepared: Prepared) -> dict[str, str]:
    """Measures that a recipe's context can't hold, and why; a prebuilt artifact may hold less."""
    return {
        f"{name} of {recipe}": why
        for recipe in prepared.spec.matrix.recipe
        for name, why in too_long(
            prepared.spec.workload, prepared.catalog.recipes[recipe].max_context
        ).items()
    }
