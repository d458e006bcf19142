"""From the command line to a plan: config and inventory read, names resolved, devices probed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from farm import codec, resolve
from farm.cluster import start as cluster_start
from farm.cluster.start import Runtime
from farm.config import load_inventory, load_run
from farm.core.device import Device, DeviceEntry, Inventory
from farm.core.errors import ConfigError
from farm.core.plan import Catalog, Plan, make_plan, selects
from farm.core.selector import parse_selector
from farm.core.spec import RunSpec


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the command line says about a run."""

    config: Path
    inventory: Path | None = None
    select: str = ""
    overrides: tuple[str, ...] = ()
    cluster: str = "local"
    out: Path = field(default_factory=lambda: Path("runs"))
    #: Folder of a run to go on with.
    resume: Path | None = None
    #: Name or report file to compare with; None compares with nothing.
    baseline: str | None = None
    quick: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """A config with its names resolved and its devices probed."""

    spec: RunSpec
    config: dict[str, Any]
    catalog: Catalog
    plan: Plan


def load(options: RunOptions) -> tuple[RunSpec, dict[str, Any], Catalog, Inventory]:
    """Read config and inventory and resolve every name in them.

    Raises:
        ConfigError: Something in them is wrong; names file and key.
        UnknownName: A model, recipe or runner that nobody knows.
    """
    spec, config = load_run(options.config, options.overrides)
    if options.quick:
        spec = quick(spec)
    parse_selector(options.select)
    return spec, config, resolve.catalog(spec), load_inventory(options.inventory)


def quick(spec: RunSpec) -> RunSpec:
    """Return the run with the least work that still shows every step."""
    return replace(
        spec,
        workload=replace(spec.workload, launches=1, repetitions=2),
        correctness=replace(spec.correctness, tokens=min(64, spec.correctness.tokens)),
    )


def with_local(inventory: Inventory) -> tuple[DeviceEntry, ...]:
    """Return the entries, with this machine as `local` where the inventory wants that."""
    if inventory.local and not any(e.transport == "local" for e in inventory.entries):
        return (*inventory.entries, DeviceEntry(name="local", transport="local"))
    return inventory.entries


async def find_devices(
    runtime: Runtime, inventory: Inventory, select: str = ""
) -> tuple[Device, ...]:
    """Probe every device of the inventory that `select` doesn't rule out.

    Raises:
        ConfigError: An entry names a site that the cluster doesn't have.
    """
    entries: dict[str, list[DeviceEntry]] = {site: [] for site in runtime.sites}
    for entry in with_local(inventory):
        if entry.site not in entries:
            known = ", ".join(name or "(this host)" for name in entries)
            raise ConfigError(
                f"{entry.origin}.site: no site {entry.site!r} in this cluster; there are: {known}"
            )
        entries[entry.site].append(entry)
    found = await asyncio.gather(
        *(
            site.inventory(entries[name], adb_auto=inventory.adb_auto)
            for name, site in runtime.sites.items()
        )
    )
    selector = parse_selector(select)
    return tuple(device for devices in found for device in devices if selects(selector, device))


async def prepare(options: RunOptions, runtime: Runtime) -> Prepared:
    """Load, probe and plan.

    Raises:
        ConfigError, UnknownName: As `load` and `find_devices`.
        PlanError: No device matches.
    """
    spec, config, catalog, inventory = load(options)
    devices = await find_devices(runtime, inventory, options.select)
    return Prepared(spec, config, catalog, make_plan(spec, devices))


def plan(options: RunOptions, home: Path) -> Prepared:
    """Plan without running; probes devices from this process."""
    load(options)

    async def work() -> Prepared:
        runtime = await cluster_start.start("none", home)
        try:
            return await prepare(options, runtime)
        finally:
            await runtime.close()

    return asyncio.run(work())


def plan_data(prepared: Prepared) -> dict[str, Any]:
    """Return the plan as plain data, for plan.json and `farm plan --json`."""
    return {
        "name": prepared.spec.name,
        "config": prepared.config,
        "spec": codec.to_data(prepared.spec),
        "cells": [codec.to_data(cell) for cell in prepared.plan.cells],
        "skips": [codec.to_data(skip) for skip in prepared.plan.skips],
        "artifacts": [str(artifact) for artifact in prepared.plan.artifacts],
        "devices": [codec.to_data(device) for device in prepared.plan.devices],
    }
