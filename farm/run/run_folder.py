"""The folder of one run: its name, its files, and how another command finds it again."""

from __future__ import annotations

import datetime
import json
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from farm.core.artifact import ObjectRef
from farm.core.errors import ConfigError, StoreError
from farm.core.names import meant
from farm.files import write_whole
from farm.paths import farm_home, require_utf8
from farm.store import run_bundle

JOURNAL = "journal.db"
PLAN = "plan.json"
REPORT = "report.json"


def new_run_id(name: str, now: datetime.datetime) -> str:
    """Return an id that sorts by time and can't collide: `20260102-030405-tiny-1f2e`."""
    return f"{now:%Y%m%d-%H%M%S}-{name}-{secrets.token_hex(2)}"


def check_out(out: Path) -> None:
    """Refuse a folder for runs before anything is done for one.

    Raises:
        ConfigError: It is relative to a working directory that is gone, or is not UTF-8.
    """
    try:
        require_utf8(out.absolute(), "--out")
    except FileNotFoundError:
        raise ConfigError(
            f"--out {out}: the working directory is gone; give an absolute path"
        ) from None


def create(out: Path, run_id: str) -> Path:
    """Make the folder of a new run.

    Raises:
        StoreError: It can't be made; names the folder.
    """
    folder = out / run_id
    try:
        folder.mkdir(parents=True, mode=0o755)
    except OSError as error:
        raise StoreError(
            f"can't make the run folder {folder}: {error.strerror}; give another with --out"
        ) from error
    return folder


def point_latest(folder: Path) -> None:
    """Let `latest` beside the run folder point to it, in one step.

    Raises:
        StoreError: The disk is full or can't be written.
    """
    temporary = folder.parent / f".latest-{secrets.token_hex(4)}"
    try:
        temporary.symlink_to(folder.name)
        temporary.replace(folder.parent / "latest")
    except OSError as error:
        raise StoreError(f"can't write {folder.parent / 'latest'}: {error.strerror}") from error


def find(run: str, out: Path) -> Path:
    """Return the folder of a run given by id, `latest` or path; a bundle is unpacked.

    Raises:
        ConfigError: There is none; names the newest runs. A bundle was changed.
        StoreError: A bundle can't be unpacked.
    """
    if run_bundle.is_bundle(Path(run)):
        return run_bundle.unpacked(Path(run), farm_home())
    for candidate in (Path(run), out / run):
        if (candidate / JOURNAL).exists() or (candidate / REPORT).exists():
            return candidate.resolve()
    known = sorted(
        (p.name for p in out.glob("*") if (p / JOURNAL).exists() and not p.is_symlink()),
        reverse=True,
    )
    hint = f"the newest are: {', '.join(known[:3])}" if known else f"{out} holds none yet"
    near = meant(run, [*known, "latest"])
    kinds = "an id, `latest`, a folder or a bundle"
    raise ConfigError(f"no run {run!r}{near}: {hint}; a RUN is {kinds}")


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all.

    Raises:
        StoreError: The disk is full or can't be written.
    """
    try:
        write_whole(path, text)
    except OSError as error:
        raise StoreError(f"can't write {path}: {error.strerror}") from error


def write_json(path: Path, data: Any) -> None:
    """Write plain data as indented JSON, whole or not at all.

    Raises:
        StoreError: As in `write_text`.
    """
    write_text(path, json_text(data))


def json_text(data: Any) -> str:
    """Plain data as indented JSON."""
    return json.dumps(data, indent=1, sort_keys=False, allow_nan=False) + "\n"


def write_lines(path: Path, items: Iterator[dict[str, Any]]) -> None:
    """Write one JSON document a line.

    Raises:
        StoreError: As in `write_text`.
    """
    write_text(path, "".join(json.dumps(item, sort_keys=True) + "\n" for item in items))


def attempt_folder(folder: Path, job_id: str, attempt: int) -> Path:
    """Return the folder of one attempt; the name of a job may hold what a file name may not."""
    name = re.sub(r"[^A-Za-z0-9._+#-]+", "_", job_id)[:150]
    return folder / "attempts" / name / str(attempt)


def keep_logs(
    folder: Path, job_id: str, attempt: int, logs: Sequence[tuple[ObjectRef, Path]]
) -> None:
    """Copy the logs of an attempt into the run folder.

    Raises:
        StoreError: The disk is full or can't be written.
    """
    target = attempt_folder(folder, job_id, attempt)
    try:
        target.mkdir(parents=True, exist_ok=True)
        for ref, source in logs:
            shutil.copyfile(source, target / Path(ref.name).name)
    except OSError as error:
        raise StoreError(f"can't keep the logs of {job_id} in {target}: {error}") from error
