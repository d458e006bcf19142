"""The plan of a run as its journal keeps it: whoever goes on with a run never plans anew."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from farm.config.load import load_run
from farm.core.artifact import ModelSource, Recipe, Toolchain
from farm.core.device import Device, DeviceEntry
from farm.core.errors import ConfigError
from farm.core.plan import Catalog, Plan
from farm.core.runner import RunnerSpec
from farm.core.spec import RunSpec
from farm.paths import quarantine_file
from farm.planning.planning import Prepared, RunOptions
from farm.protocols import Site
from farm.state.health_book import HealthBook


@dataclass(frozen=True, slots=True)
class SavedPlan:
    """All that was read and decided at the start of a run."""

    spec: RunSpec
    config: dict[str, Any]
    plan: Plan
    models: dict[str, ModelSource]
    recipes: dict[str, Recipe]
    toolchains: dict[str, Toolchain]
    runners: dict[str, RunnerSpec]
    #: Model, recipe and bytes of each known need.
    export_bytes: tuple[tuple[str, str, int], ...]
    #: What the command line said: `select`, `inventory`, `quick`, `baseline`.
    asked: dict[str, str]
    #: Run that the baseline was made of; empty without one.
    baseline_run: str = ""

    @property
    def prepared(self) -> Prepared:
        """As planning returned it."""
        needs = {(model, recipe): size for model, recipe, size in self.export_bytes}
        catalog = Catalog(self.models, self.recipes, self.toolchains, self.runners, needs)
        return Prepared(self.spec, self.config, catalog, self.plan)


def save(prepared: Prepared, options: RunOptions, baseline_run: str) -> SavedPlan:
    """Return what a journal has to keep of a plan."""
    catalog = prepared.catalog
    return SavedPlan(
        prepared.spec,
        prepared.config,
        prepared.plan,
        catalog.models,
        catalog.recipes,
        catalog.toolchains,
        catalog.runners,
        tuple((model, recipe, size) for (model, recipe), size in catalog.export_bytes.items()),
        asked(options),
        baseline_run,
    )


def asked(options: RunOptions) -> dict[str, str]:
    """Return what the command line says about the plan, as text; empty is the default."""
    return {
        "select": options.select,
        "inventory": "" if options.inventory is None else str(options.inventory.resolve()),
        "quick": "yes" if options.quick else "",
        "baseline": options.baseline or "",
    }


def refuse_other(saved: SavedPlan, options: RunOptions, folder: Path) -> None:
    """Refuse to go on with a run under another plan than it was started with.

    Raises:
        ConfigError: The config or an option differs; names it.
    """
    remedy = f"leave it out (`farm run --resume {folder}`), or start a new run"
    for key, value in asked(options).items():
        if value and value != saved.asked[key]:
            raise ConfigError(
                f"{folder}: was started with --{key} {saved.asked[key] or '(none)'}, not"
                f" {value}: {remedy}"
            )
    if options.config is not None:
        spec, _ = load_run(options.config, options.overrides)
        if spec.sha256 != saved.spec.sha256:
            raise ConfigError(
                f"{folder}: was started with another config than {options.config}: {remedy}"
            )
    elif options.overrides:
        raise ConfigError(f"{folder}: --set can't change a run that was started: {remedy}")


async def look_again(saved: SavedPlan, sites: Mapping[str, Site], home: Path) -> Prepared:
    """Return the plan with its devices as they are now; one that is gone stays, and says so."""
    by_site: dict[str, list[DeviceEntry]] = {}
    for device in saved.plan.devices:
        by_site.setdefault(device.entry.site, []).append(device.entry)
    known = {name: entries for name, entries in by_site.items() if name in sites}
    found = await asyncio.gather(
        *(
            sites[name].inventory(entries, adb_auto=False, recover=True)
            for name, entries in known.items()
        )
    )
    now = {device.name: device for devices in found for device in devices}
    devices = tuple(_as_now(device, now.get(device.name)) for device in saved.plan.devices)
    devices = tuple(HealthBook(quarantine_file(home)).apply(devices))
    prepared = saved.prepared
    return replace(prepared, plan=replace(prepared.plan, devices=devices))


def _as_now(planned: Device, now: Device | None) -> Device:
    if now is None:
        where = planned.entry.site or "this host"
        reason = f"{planned.name}: its site ({where}) is not in this cluster"
        return planned.marked("absent", reason)
    if planned.facts is None or now.facts is None:
        return now
    if now.facts.identity != planned.facts.identity:
        reason = (
            f"{planned.name}: another device ({now.facts.identity}) answers in its place"
            f" ({planned.facts.identity})"
        )
        return planned.marked("absent", reason)
    return now
