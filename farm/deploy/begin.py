"""From a request to a deployment that can start: run opened, devices looked at, cells chosen."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from farm import paths
from farm.clock import utc_now
from farm.config.load import load_inventory
from farm.core.deployment import Stages
from farm.core.device import Device
from farm.core.errors import ConfigError, DeviceError, PlanError
from farm.core.result import CellResult
from farm.core.rules.deployable import Choice, choose, named_cells
from farm.core.rules.rollout import OnFailure, RolloutPlan, Target, forecast_s
from farm.deploy import unverified
from farm.deploy.controller import WORKERS
from farm.deploy.record import Assigned, SavedDeployment, new_id
from farm.deploy.release import Release, canary, find_build, make_releases, open_run
from farm.host.limits import usable_cpus
from farm.planning.reach import Reach
from farm.run import run_folder
from farm.site.device.lease import user_and_host
from farm.store.objects import ContentStore

#: Slowest copy that a forecast reckons with, bytes a second.
COPY_BYTES_S = 10e6
#: A device's part of a run, where its report doesn't tell; seconds.
_USUAL_S = 120.0


@dataclass(frozen=True, slots=True)
class DeployRequest:
    """What the command line asks for."""

    #: Run id, `latest` or folder; or a config, with `unverified`.
    run: str
    #: Selector of the devices.
    to: str
    #: Cell ids or globs; none: whatever passed.
    cells: tuple[str, ...] = ()
    out: Path = Path("runs")
    inventory: Path | None = None
    #: Name of the deployment; empty: the model's.
    name: str = ""
    stages: Stages = field(default_factory=Stages)
    wait_s: float = 0.0
    on_failure: OnFailure = "rollback"
    keep: int = 2
    #: Also what isn't validated for a device; recorded.
    unverified: bool = False
    #: Keep the runner loaded behind a socket, by a unit of the device's user manager.
    service: bool = False


@dataclass(frozen=True, slots=True)
class Planned:
    """A deployment that could start."""

    saved: SavedDeployment
    #: Devices that were meant and get nothing, and why.
    left_out: tuple[Choice, ...]
    #: About how long it takes at most when nothing fails, seconds.
    forecast_s: float
    #: Most time that the check of one device takes, by the run; seconds.
    took_s: float


def plan(request: DeployRequest, home: Path, reach: Reach | None = None) -> Planned:
    """Decide everything that a deployment does; nothing is changed on any device.

    Raises:
        ConfigError: There is no such run, cell or device, or several cells would do for one.
        PlanError: No device can get anything; says why of each.
        StoreError: What was validated isn't in the store of this host any more.
        FarmError: A config is deployed without a run, and can't be exported.
    """
    with ContentStore(paths.store_root(home)).in_use(f"farm deploy {request.run}"):
        return _plan(request, home, reach or Reach(home))


def _plan(request: DeployRequest, home: Path, reach: Reach) -> Planned:
    devices = reach.look(load_inventory(request.inventory), request.to)
    if not devices:
        raise ConfigError(f"--to {request.to!r}: no device matches; `farm devices` shows them")
    if unverified.is_config(request.run):
        chosen = _of_config(request, devices, home)
    else:
        chosen = _of_run(request, devices, home, reach)
    assigned, left_out = chosen.assigned, chosen.left_out
    if not assigned:
        why = "; ".join(f"{c.device}: {c.reason}" for c in left_out)
        raise PlanError(f"nothing of {request.run} can be deployed: {why}")
    names = {one.manifest.name for one in assigned}
    if len(names) > 1:
        raise PlanError(
            f"several models at once ({', '.join(sorted(names))}): deploy them one by one, each"
            " with its CELL"
        )
    (name,) = names
    rollout = RolloutPlan(
        targets=tuple(Target(one.entry.name, one.manifest.version) for one in assigned),
        ends=request.stages.ends(len(assigned)),
        wait_s=request.wait_s,
        on_failure=request.on_failure,
    )
    now = datetime.datetime.now(datetime.UTC)
    saved = SavedDeployment(
        deployment_id=new_id(name, f"{now:%Y%m%d-%H%M%S}"),
        name=name,
        run_id=chosen.run_id,
        started_at=utc_now(),
        started_by=user_and_host(),
        rollout=rollout,
        assigned=assigned,
        canary=canary(home),
        keep=max(request.keep, 1),
        service=request.service,
        left_out=left_out,
    )
    return Planned(saved, left_out, forecast(saved, chosen.took_s), chosen.took_s)


def forecast(saved: SavedDeployment, took_s: float) -> float:
    """Return about how long a deployment takes at most, seconds; `took_s`: a check of a device."""
    size = max(one.manifest.size_bytes for one in saved.assigned)
    here = any(one.entry.transport in ("local", "sim") for one in saved.assigned)
    # Devices that are this host compute on its cores, and take turns there.
    at_once = min(WORKERS, usable_cpus()) if here else WORKERS
    return forecast_s(saved.rollout, took_s + size / COPY_BYTES_S, took_s, at_once)


@dataclass(frozen=True, slots=True)
class _Chosen:
    """What each device gets, and about how long one of them takes."""

    run_id: str
    assigned: tuple[Assigned, ...]
    left_out: tuple[Choice, ...]
    took_s: float


def _of_run(request: DeployRequest, devices: Sequence[Device], home: Path, reach: Reach) -> _Chosen:
    run = open_run(run_folder.find(request.run, request.out), home)
    builds = partial(find_build, home, reach)
    cells = named_cells(run.report.results, request.cells)
    choices = choose(cells, devices, run.ran, unverified=request.unverified)
    taken = [choice for choice in choices if choice.cell_id]
    # A version says why it isn't validated: of one cell two devices may differ in that.
    reasons = {c.device: c.reason if c.unverified else "" for c in taken}
    releases: dict[tuple[str, str], Release] = {}
    for choice in taken:
        key = choice.cell_id, reasons[choice.device]
        if key not in releases:
            releases[key] = make_releases(run, [key], home, request.name, builds)[choice.cell_id]
    by_name = {device.name: device for device in devices}
    shipped = {choice.cell_id for choice in taken}
    return _Chosen(
        run.report.run_id,
        tuple(
            _assigned(c, by_name[c.device], releases[c.cell_id, reasons[c.device]]) for c in taken
        ),
        tuple(choice for choice in choices if not choice.cell_id),
        max((_took_s(result) for result in cells if result.cell_id in shipped), default=_USUAL_S),
    )


def _of_config(request: DeployRequest, devices: Sequence[Device], home: Path) -> _Chosen:
    if not request.unverified:
        unverified.refuse_unasked(request.run)
    made = unverified.Unrun(Path(request.run), home, request.name)
    assigned: list[Assigned] = []
    left_out: list[Choice] = []
    for device in devices:
        if not device.usable:
            left_out.append(Choice(device.name, reason=device.problem or device.state))
            continue
        if device.entry.site:
            why = f"without a run it is deployed from its own host: do that on {device.entry.site}"
            left_out.append(Choice(device.name, reason=why))
            continue
        try:
            choice = Choice(device.name, reason=unverified.WHY, unverified=True)
            assigned.append(_assigned(choice, device, made.release(device)))
        except DeviceError as error:
            left_out.append(Choice(device.name, reason=error.message))
    return _Chosen("", tuple(assigned), tuple(left_out), _USUAL_S)


def _assigned(choice: Choice, device: Device, release: Release) -> Assigned:
    return Assigned(device.entry, release.manifest, release.runner, choice.reason)


def _took_s(result: CellResult) -> float:
    """How long the run had the cell's device: no check takes longer than all that the run did."""
    for attempt in reversed(result.attempts):
        if attempt.started_at and attempt.ended_at:
            start, end = map(
                datetime.datetime.fromisoformat, (attempt.started_at, attempt.ended_at)
            )
            return max(1.0, (end - start).total_seconds())
    return _USUAL_S
