"""What this host changed on devices: its deployments' journals, and a file of later changes."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from farm import codec, paths
from farm.core.deployment import Manifest
from farm.core.errors import StoreError
from farm.core.rules.rollout import StepEvent
from farm.deploy import record as journal
from farm.files import locked, write_whole

_CHANGES = "changes.jsonl"


@dataclass(frozen=True, slots=True)
class Change:
    """A version that came into use, or was removed."""

    at: str
    by: str
    device: str
    name: str
    #: `deploy`, `rollback`, `remove`.
    action: str
    #: Version that is meant; empty: nothing is in use any more.
    version: str
    #: Version in use before; empty: none.
    before: str = ""
    deployment_id: str = ""
    run_id: str = ""


@dataclass(frozen=True, slots=True)
class Known:
    """What this host knows of its deployments."""

    #: Oldest first.
    changes: tuple[Change, ...]
    #: That it deployed, by device.
    manifests: Mapping[str, tuple[Manifest, ...]]
    #: Files and lines that can't be read: what they held is missing here.
    damage: tuple[str, ...] = ()
    #: Plans of another version of farm, likewise.
    foreign: tuple[str, ...] = ()


def known(home: Path) -> Known:
    """Return what this host changed and deployed; what can't be read is named."""
    journals = journal.every(home)
    manifests: dict[str, tuple[Manifest, ...]] = {}
    changes: list[Change] = []
    for saved, events in journals.deployments:
        changes += _switches(saved, events)
        for one in saved.assigned:
            manifests[one.entry.name] = (*manifests.get(one.entry.name, ()), one.manifest)
    later, damage = _later(paths.deployments(home) / _CHANGES)
    changes = sorted([*changes, *later], key=lambda change: change.at)
    return Known(tuple(changes), manifests, (*journals.damage, *damage), journals.foreign)


def _later(path: Path) -> tuple[list[Change], list[str]]:
    """Changes that no deployment's journal has; whatever of their file can't be read is named."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return [], []
    except OSError as error:
        return [], [f"can't read {path}: {error.strerror}"]
    # A last line without an end is one that a crash cut: the devices were changed all the same.
    return journal.parsed_lines(
        Change, content if content.endswith(b"\n") else content + b"\n", path
    )


def write_down(home: Path, change: Change) -> None:
    """Keep a change that no deployment's journal has.

    Raises:
        StoreError: The file can't be written.
    """
    folder = paths.deployments(home)
    text = codec.to_json(change) + "\n"
    path = folder / _CHANGES
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".changes.lock"):
            content = path.read_bytes() if path.exists() else b""
            # A line that a crash cut must not spoil this one.
            cut = b"\n" if content and not content.endswith(b"\n") else b""
            write_whole(path, content + cut + text.encode())
    except OSError as error:
        raise StoreError(
            f"{change.device} was changed, but that isn't written down: {error}"
        ) from error


def _switches(saved: journal.SavedDeployment, events: Sequence[StepEvent]) -> Iterator[Change]:
    versions = {target.device: target.version for target in saved.rollout.targets}
    before: dict[str, str] = {}
    for event in events:
        if event.kind != "ok":
            continue
        if event.step == "prepare":
            before[event.device] = event.previous
        pairs = {
            "switch": ("deploy", versions[event.device], before.get(event.device, "")),
            "restore": ("rollback", before.get(event.device, ""), versions[event.device]),
        }
        if event.step in pairs:
            action, version, was = pairs[event.step]
            yield Change(
                _text(event.at), saved.started_by, event.device, saved.name, action, version, was,
                saved.deployment_id, saved.run_id,
            )  # fmt: skip


def _text(at: float) -> str:
    moment = datetime.datetime.fromtimestamp(at, datetime.UTC)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
