"""The journal of a deployment: a folder in FARM_HOME that says what was decided and what happened.

`plan.json` is written once, whole. `events.jsonl` grows by whole lines, each on the disk before the
next step begins: a process that is killed loses nothing that a device was asked for.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import pydantic

from farm import codec, paths
from farm.core.artifact import CanaryProgram
from farm.core.deployment import Manifest
from farm.core.device import DeviceEntry
from farm.core.errors import ConfigError, StoreError
from farm.core.names import meant
from farm.core.rules.deployable import Choice
from farm.core.rules.rollout import RolloutPlan, StepEvent
from farm.core.runner import RunnerSpec
from farm.files import write_whole

T = TypeVar("T")

PLAN, EVENTS, LOCK = "plan.json", "events.jsonl", "lock"


@dataclass(frozen=True, slots=True)
class Assigned:
    """A device of a deployment, and what it gets."""

    entry: DeviceEntry
    manifest: Manifest
    runner: RunnerSpec
    #: How the cell was validated for this device.
    reason: str


@dataclass(frozen=True, slots=True)
class SavedDeployment:
    """Everything that was decided at the start: whoever goes on never decides anew."""

    deployment_id: str
    name: str
    run_id: str
    started_at: str
    started_by: str
    rollout: RolloutPlan
    assigned: tuple[Assigned, ...]
    canary: CanaryProgram
    #: Versions that stay on each device.
    keep: int
    #: Whether a unit of the device's user manager keeps the runner loaded.
    service: bool = False
    #: Devices that were meant and get nothing, and why.
    left_out: tuple[Choice, ...] = ()


class Record:
    """One deployment, open in this process alone.

    Args:
        folder: Its folder.

    Raises:
        StoreError: Another process works on it, or it can't be read.
        ConfigError: There is no such deployment.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = (folder / LOCK).open("a")
        try:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise StoreError(
                    f"{folder.name}: another process works on this deployment"
                ) from error
            self.saved = read_plan(folder)
            self.events, self._whole = _undamaged(folder)
            mode = "r+b" if (folder / EVENTS).exists() else "w+b"
            # Unbuffered: what a full disk refused isn't tried again by `close`.
            self._file = (folder / EVENTS).open(mode, buffering=0)
            # Of a line that was cut by a crash nothing had been done yet.
            self._file.truncate(self._whole)
            self._file.seek(self._whole)
        except BaseException:
            self._lock.close()
            raise
        self.session = max((event.session for event in self.events), default=0) + 1

    def add(self, events: Sequence[StepEvent]) -> None:
        """Write events; they are on the disk when this returns.

        Raises:
            StoreError: The disk is full or can't be written.
        """
        lines = "".join(codec.to_json(event) + "\n" for event in events).encode()
        try:
            rest = lines
            while rest:
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            # Half a line would spoil the next one.
            with contextlib.suppress(OSError):
                self._file.truncate(self._whole)
                self._file.seek(self._whole)
            raise StoreError(f"can't write {self.folder / EVENTS}: {error.strerror}") from error
        self._whole += len(lines)
        self.events += events

    def close(self) -> None:
        """Let others work on it."""
        self._file.close()
        self._lock.close()

    def __enter__(self) -> Record:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def create(home: Path, saved: SavedDeployment) -> Record:
    """Begin a deployment's journal.

    Raises:
        StoreError: The disk is full or can't be written.
    """
    folder = paths.deployments(home) / saved.deployment_id
    try:
        folder.mkdir(parents=True, mode=0o700)
        # It holds the values of `runners.*.env`, which reports mask.
        write_whole(folder / PLAN, codec.to_json(saved), mode=0o600)
    except OSError as error:
        raise StoreError(f"can't write {folder}: {error.strerror}") from error
    return Record(folder)


def new_id(name: str, stamp: str) -> str:
    """Return an id that sorts by time and can't collide."""
    return f"{stamp}-{name}-{secrets.token_hex(2)}"


def find(home: Path, deployment: str) -> Path:
    """Return the folder of a deployment by its id, or `latest`.

    Raises:
        ConfigError: There is none; names the newest ones.
    """
    known = sorted((p.parent for p in paths.deployments(home).glob(f"*/{PLAN}")), reverse=True)
    for folder in known:
        if deployment in (folder.name, "latest"):
            return folder
    names = ", ".join(folder.name for folder in known[:3])
    hint = f"the newest are: {names}" if names else "this host made none yet"
    near = meant(deployment, [folder.name for folder in known])
    raise ConfigError(f"no deployment {deployment!r}: {hint}{near}")


def read_plan(folder: Path) -> SavedDeployment:
    """Read what was decided.

    Raises:
        ConfigError: Another version of farm wrote it.
        StoreError: It can't be read, or is damaged.
    """
    path = folder / PLAN
    try:
        return codec.from_data(SavedDeployment, json.loads(path.read_bytes()))
    except OSError as error:
        raise StoreError(f"can't read {path}: {error.strerror}") from error
    except pydantic.ValidationError as error:
        raise ConfigError(f"{path}: can't be read by this farm: {error.title}") from error
    except ValueError as error:
        raise StoreError(f"{path} is damaged: {error}") from error


def read_events(folder: Path) -> list[StepEvent]:
    """Read what happened, also while another process works on it.

    Raises:
        StoreError: A line in the middle is damaged.
    """
    return _undamaged(folder)[0]


@dataclass(frozen=True, slots=True)
class Journals:
    """The deployments that this host made, as far as they can be read."""

    #: Newest first; events without damaged lines.
    deployments: tuple[tuple[SavedDeployment, list[StepEvent]], ...]
    #: Files and lines that can't be read: what they held isn't known.
    damage: tuple[str, ...]
    #: Plans of another version of farm, likewise.
    foreign: tuple[str, ...]


def every(home: Path) -> Journals:
    """Read the deployments that this host made; nothing that can't be read stops the others."""
    found, damage, foreign = [], [], []
    for path in sorted(paths.deployments(home).glob(f"*/{PLAN}"), reverse=True):
        try:
            saved = read_plan(path.parent)
            events, _, lines = _read_events(path.parent)
        except ConfigError as error:
            foreign.append(error.message)
        except StoreError as error:
            damage.append(error.message)
        else:
            found.append((saved, events))
            damage += lines
    return Journals(tuple(found), tuple(damage), tuple(foreign))


def _undamaged(folder: Path) -> tuple[list[StepEvent], int]:
    events, whole, damage = _read_events(folder)
    if damage:
        raise StoreError(f"{damage[0]}; nothing is done by it")
    return events, whole


def _read_events(folder: Path) -> tuple[list[StepEvent], int, list[str]]:
    """Return the events, how many bytes their lines take, and which lines are damaged.

    A last line without an end is none.
    """
    path = folder / EVENTS
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return [], 0, []
    except OSError as error:
        raise StoreError(f"can't read {path}: {error.strerror}") from error
    whole = content.rfind(b"\n") + 1
    events, damage = parsed_lines(StepEvent, content[:whole], path)
    return events, whole, damage


def parsed_lines(kind: type[T], content: bytes, path: Path) -> tuple[list[T], list[str]]:
    """Read a value from each line; return those of whole lines, and name the damaged ones."""
    found, damage = [], []
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            found.append(codec.from_data(kind, json.loads(line)))
        except (ValueError, pydantic.ValidationError):
            damage.append(f"{path}: line {number} is damaged")
    return found, damage
