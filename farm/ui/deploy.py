"""Deployments as tables and lines. Values in, renderables out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import RenderableType

from farm import codec
from farm.core.deployment import Provenance
from farm.core.durations import duration_text
from farm.deploy.begin import Planned
from farm.deploy.changes import Changed
from farm.deploy.fleet import Looked
from farm.deploy.past import Change
from farm.deploy.work import Ended
from farm.ui import tables


def plan_table(planned: Planned) -> RenderableType:
    """What a deployment would do, device by device."""
    saved = planned.saved
    rows = []
    assigned = iter(saved.assigned)
    for number, stage in enumerate(saved.rollout.stages, start=1):
        for _target in stage:
            one = next(assigned)
            rows.append(
                (
                    str(number),
                    one.entry.name,
                    one.manifest.version,
                    f"{one.manifest.size_bytes / (1 << 20):.1f} MiB",
                    one.manifest.provenance.cell_id,
                    f"UNVERIFIED: {one.reason}"
                    if one.manifest.provenance.unverified
                    else one.reason,
                )
            )
    rows += [("-", c.device, "", "", "", f"left out: {c.reason}") for c in planned.left_out]
    return tables.plain(("stage", "device", "version", "at most", "cell", "why"), rows)


def plan_line(planned: Planned) -> str:
    """The plan in a sentence."""
    saved = planned.saved
    plan = saved.rollout
    wait = f", {duration_text(plan.wait_s)} of wait in each" if plan.wait_s else ""
    left = f"; {len(planned.left_out)} left out" if planned.left_out else ""
    return (
        f"deployment {saved.deployment_id} of {saved.name} from"
        f" {'run ' + saved.run_id if saved.run_id else 'a config that nobody ran'}:"
        f" {len(plan.targets)} devices in {len(plan.ends)} stages{wait}, at most about"
        f" {duration_text(planned.forecast_s)}; a stage that fails:"
        f" {plan.on_failure}{left}{_run_ended(saved.assigned[0].manifest.provenance)}"
    )


def _run_ended(origin: Provenance) -> str:
    """What the run's own exit code says of its other cells."""
    if origin.run_exit_code in (None, 0):
        return ""
    return f"; the run itself ended with exit {origin.run_exit_code}: not all of it passed"


def outcome_table(ended: Ended) -> RenderableType:
    """How every device stands."""
    rows = [
        (
            one.device,
            {"new": one.version, "old": one.previous or "nothing", "unknown": "UNKNOWN"}[
                one.in_use
            ],
            one.previous or "nothing",
            "yes" if one.checked else "no",
            f"{one.pushed_bytes}",
            one.reason,
        )
        for one in ended.devices
    ]
    return tables.plain(("device", "in use", "before", "checked", "pushed bytes", "reason"), rows)


def last_line(ended: Ended) -> str:
    """How a deployment ended, in a sentence."""
    new = sum(one.in_use == "new" for one in ended.devices)
    stage = f" in stage {ended.finished.stage}" if ended.finished.stage else ""
    words = {
        "deployed": "deployed",
        "rolled_back": "undone" if undone(ended) else f"failed{stage} and rolled back",
        "rollback_incomplete": f"failed{stage}, and NOT everything could be rolled back",
        "stopped": f"stopped{stage}",
    }[ended.finished.outcome]
    count = len(ended.saved.left_out)
    left = f", {count} left out" if count else ""
    unknown = sum(one.in_use == "unknown" for one in ended.devices)
    doubt = f", {unknown} unknown" if unknown else ""
    again = ""
    if ended.finished.outcome == "rollback_incomplete":
        again = f"; `farm deploy --resume {ended.saved.deployment_id}` tries again"
    return (
        f"{ended.saved.name}: {words}: {new}/{len(ended.devices)} have the new"
        f" version{doubt}{left}{again}"
    )


def undone(ended: Ended) -> bool:
    """Whether it was taken back because somebody wanted that."""
    return ended.finished.outcome == "rolled_back" and not ended.finished.stage


def exit_code(ended: Ended) -> int:
    """0 all have it, or it was undone as asked; 1 a check failed.

    3 somebody was left out, or can't be put back.
    """
    if ended.finished.outcome == "rollback_incomplete":
        return 3
    if undone(ended):
        return 0
    if ended.finished.outcome != "deployed":
        return 1
    return 3 if ended.saved.left_out else 0


def summary(ended: Ended) -> dict[str, Any]:
    """What `--json` says besides the outcome."""
    return {
        "deployment_id": ended.saved.deployment_id,
        "name": ended.saved.name,
        "run_id": ended.saved.run_id,
        "devices": [codec.to_data(one) for one in ended.devices],
    }


def status_table(found: Sequence[Looked]) -> RenderableType:
    """What is deployed where."""
    rows = []
    for looked in found:
        if looked.failure:
            rows.append((looked.device, "?", "", "", "", "", f"not asked: {looked.failure}"))
        elif not looked.standings:
            rows.append((looked.device, "nothing", "", "", "", "", ""))
        for one in looked.standings:
            origin = None if one.manifest is None else one.manifest.provenance
            run = "?" if origin is None else origin.run_id
            state = "DRIFT: " + "; ".join(one.drift) if one.drift else "ok"
            if one.unread:
                state += f"; {one.unread}"
            if origin is not None and origin.unverified:
                state += f"; unverified: {origin.unverified}"
            rows.append(
                (
                    looked.device,
                    one.name,
                    one.version,
                    "in use" if one.current else "kept",
                    (one.since or "unknown") if one.current else "",
                    run,
                    state,
                )
            )
    return tables.plain(("device", "name", "version", "", "since", "run", "state"), rows)


def status_alarms(found: Sequence[Looked]) -> tuple[str, ...]:
    """Drift, and devices that couldn't be asked."""
    alarms = [f"{one.device}: not asked: {one.failure}" for one in found if one.failure]
    alarms += [
        f"{standing.device}: {standing.name} {standing.version}: {'; '.join(standing.drift)}"
        for one in found
        for standing in one.standings
        if standing.drift
    ]
    alarms += [
        f"{standing.device}: {standing.name} {standing.version}: {standing.unread}"
        for one in found
        for standing in one.standings
        if standing.unread
    ]
    return tuple(alarms)


def status_line(found: Sequence[Looked], damaged: int = 0) -> str:
    """How many devices were looked at, and what of the others.

    Args:
        found: The devices.
        damaged: Lines and files of this host's journals that can't be read.
    """
    asked = [one for one in found if not one.failure]
    drifted = sum(any(s.drift for s in one.standings) for one in asked)
    unread = sum(any(s.unread for s in one.standings) for one in asked)
    empty = sum(not any(s.current for s in one.standings) for one in asked)
    counts = (
        (drifted, "with drift"),
        (unread, "busy, not hashed"),
        (empty, "with nothing in use"),
        (len(found) - len(asked), "NOT asked"),
        (damaged, "places of this host's journals NOT read"),
    )
    more = "".join(f", {count} {what}" for count, what in counts if count)
    return f"{len(asked)}/{len(found)} devices looked at{more}"


def history_table(found: Sequence[Change]) -> RenderableType:
    """What was changed, by whom."""
    rows = [
        (c.at, c.device, c.name, c.action, c.version or "nothing", c.before or "nothing", c.by)
        for c in found
    ]
    return tables.plain(("at", "device", "name", "action", "version", "before", "by"), rows)


def changed_table(done: Sequence[Changed]) -> RenderableType:
    """What came of a change."""
    rows = [
        (
            one.device,
            "" if one.change is None else (one.change.version or "nothing"),
            "" if one.change is None else (one.change.before or "nothing"),
            f"unchanged: {one.failure}" if one.failure else "done",
        )
        for one in done
    ]
    return tables.plain(("device", "version", "before", "result"), rows)
