"""Build the report of a run from what is known at its end. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from farm.core.artifact import ExportResult, ToolchainVersions
from farm.core.asked import Prompt, unanswered
from farm.core.device import Device, Incident
from farm.core.errors import FarmError
from farm.core.flow.outcomes import artifact_report, error_report
from farm.core.plan import ArtifactId, Plan
from farm.core.result import (
    CellResult,
    DeviceReport,
    ExportReport,
    FarmReport,
    Report,
)
from farm.core.rules import verdict
from farm.core.spec import RunSpec

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What the edges know about a run and the report has to say."""

    run_id: str
    started_at: str
    ended_at: str
    wall_s: float
    interrupted: bool
    config: dict[str, Any]
    host: dict[str, Any]
    farm: FarmReport
    #: Seconds each device had a job.
    busy_s: Mapping[str, float]
    #: What had to be done about devices, in order.
    incidents: tuple[Incident, ...] = ()
    #: Job events that were not of this run's current attempts, counted by what they were of.
    dropped: Mapping[str, int] = field(default_factory=dict)


def export_report(
    artifact: ArtifactId, result: ExportResult | None, error: FarmError | None
) -> ExportReport:
    """Describe one export, finished or failed."""
    return ExportReport(
        key=None if result is None else result.bundle.key,
        model=artifact.model,
        recipe=artifact.recipe,
        toolchain=artifact.toolchain,
        artifact=artifact_report(result),
        seconds=None if result is None else result.seconds,
        cpu_s=None if result is None else result.cpu_s,
        peak_rss_bytes=None if result is None else result.peak_rss_bytes,
        cache_hit=result is not None and result.cache_hit,
        delegation=None if result is None else result.delegation,
        unquantised=() if result is None else result.unquantised,
        error=None if error is None else error_report(error),
        warnings=() if result is None else result.warnings,
    )


def alarms(
    devices: Iterable[Device],
    exports: Iterable[ExportReport],
    incidents: Iterable[Incident] = (),
    dropped: Mapping[str, int] | None = None,
) -> tuple[str, ...]:
    """Return what somebody should look at although no cell failed of it."""
    found = []
    for device in devices:
        reason = device.reason or device.state
        if device.unmet:
            found.append(f"device {device.name}: {'; '.join(device.unmet)}")
        elif device.state == "quarantined":
            found.append(f"device {device.name} is quarantined: {reason}")
        elif device.facts is None:
            found.append(f"device {device.name} of the inventory is not there: {reason}")
        elif device.state == "unfit":
            found.append(f"device {device.name} can't be used: {reason}")
        elif not device.usable:
            found.append(f"device {device.name} was lost during the run: {reason}")
    for incident in incidents:
        found.append(f"device {incident.device}: {incident.kind}: {incident.detail}")
    for what, count in (dropped or {}).items():
        found.append(f"job events dropped: {count} of {what}")
    for export in exports:
        if export.unquantised:
            names = ", ".join(export.unquantised[:3])
            more = f" and {len(export.unquantised) - 3} more" if len(export.unquantised) > 3 else ""
            found.append(
                f"export {export.model}/{export.recipe}: {len(export.unquantised)} Linears were "
                f"left unquantised ({names}{more})"
            )
    return tuple(found)


def cell_alarms(results: Iterable[CellResult]) -> tuple[str, ...]:
    """Return what the cells say about their devices and models, each once."""
    found: dict[str, None] = {}
    for result in results:
        found |= dict.fromkeys(result.alarms)
        if "unanchored" in result.flags:
            why = result.conditions.get("source", "").removeprefix("none: ")
            found[f"model {result.model} is unanchored: {why}"] = None
        if "speed_untrusted" in result.flags:
            found[f"{result.cell_id}: {result.conditions.get('speed', '')}"] = None
    return tuple(found)


def build_report(
    spec: RunSpec,
    plan: Plan,
    facts: RunFacts,
    results: Sequence[CellResult],
    exports: Sequence[ExportReport],
    toolchains: Mapping[str, ToolchainVersions],
    extra: Iterable[str] = (),
) -> Report:
    """Put the report together; counts, exit code and last line are derived here.

    `extra` are alarms about the config itself, such as waivers that expired.
    """
    summary = verdict.summarise(results)
    code = verdict.exit_code(
        summary,
        planned=sum("excluded" not in result.flags for result in results),
        require=spec.require,
        device_missing=any(map(_device_missing, results)),
        interrupted=facts.interrupted,
    )
    used = {name for cell in plan.cells for name in cell.devices}
    made = Report(
        schema_version=SCHEMA_VERSION,
        run_id=facts.run_id,
        name=spec.name,
        config_sha256=spec.sha256,
        config=facts.config,
        started_at=facts.started_at,
        ended_at=facts.ended_at,
        exit_code=code,
        summary=summary,
        host=facts.host,
        toolchains=dict(toolchains),
        farm=facts.farm,
        alarms=(
            *plan.unmet,
            *alarms(plan.devices, exports, facts.incidents, facts.dropped),
            *cell_alarms(results),
            *extra,
        ),
        devices=tuple(
            DeviceReport(
                name=device.name,
                identity=None if device.facts is None else device.facts.identity,
                facts=device.facts,
                idle_share=_idle_share(facts, device.name) if device.name in used else None,
                state=device.state,
                reason=device.reason,
                incidents=tuple(i for i in facts.incidents if i.device == device.name),
            )
            for device in plan.devices
        ),
        exports=tuple(exports),
        results=tuple(_answered(result, spec.prompts) for result in results),
        verdict_line=verdict.last_line(results, summary, code),
    )
    made = verdict.unproven(made, "; ".join(plan.unmet)) if plan.unmet else made
    torn = _torn(results)
    return verdict.unproven(replace(made, alarms=(*made.alarms, *torn)), torn[0]) if torn else made


def _torn(results: Iterable[CellResult]) -> list[str]:
    """Say which artifact has other bytes in some cells: exported anew for a part of a run."""
    seen: dict[ArtifactId, set[str]] = {}
    for result in results:
        if result.artifact.sha256 is not None:
            name = ArtifactId(result.model, result.recipe, result.toolchain)
            seen.setdefault(name, set()).add(result.artifact.sha256)
    return [
        f"{name} is {len(found)} artifacts in one run: it was exported anew with other bytes"
        for name, found in seen.items()
        if len(found) > 1
    ]


def _answered(result: CellResult, prompts: Sequence[Prompt]) -> CellResult:
    """Say of a cell whose device was never asked that it wasn't, and why."""
    if result.answers or not prompts:
        return result
    why = f"not asked, the cell was {result.outcome}: {result.reason or ', '.join(result.flags)}"
    return replace(result, answers=unanswered(prompts, why))


def _device_missing(result: CellResult) -> bool:
    """Whether the device of a cell was not there, or not any more for its second sitting."""
    flags = {*result.flags, *(() if result.second is None else result.second.flags)}
    return not flags.isdisjoint({"device_missing", "quarantined"})


def _idle_share(facts: RunFacts, device: str) -> float | None:
    if facts.wall_s <= 0:
        return None
    return round(max(0.0, 1.0 - facts.busy_s.get(device, 0.0) / facts.wall_s), 4)
