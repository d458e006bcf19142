"""Finished builds of farm's native programs: what one consists of, and the cache that keeps them.

A build lies in a folder named after the hash of its inputs. It doesn't know compilers.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from farm.core.abi import BUILT
from farm.core.errors import FarmError
from farm.files import locked

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class NativeFile:
    """One file of a build, as it must stand in a work folder."""

    name: str
    """Relative name there, for example `lib/libexecutorch.so`."""
    path: Path
    sha256: str
    size: int
    """Bytes."""
    mode: int
    """Permission bits: 0o700 for what is executed, else 0o600."""


@dataclass(frozen=True, slots=True)
class NativeBuild:
    """A finished build: the files to deploy and how to start it from the work folder."""

    name: str
    """`farm-runner` or `farm-helper`."""
    abi: str
    version: str
    isa_baseline: str
    """What every device of this ABI can run, for example `x86-64-v2`."""
    libc: str
    """`glibc` or `bionic` (the device must have it), `glibc-bundle` (it comes along), `static`."""
    key: str
    """sha256 of everything that went in."""
    toolchain: str
    """Version of the ExecuTorch it was built against; empty for the helper."""
    argv: tuple[str, ...]
    """Start of the command line, relative to the work folder."""
    env: tuple[tuple[str, str], ...]
    files: tuple[NativeFile, ...]
    how: str = ""
    """Why this way of building was taken, where there were several."""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def file(self, name: str) -> NativeFile:
        """The file of that relative name.

        Raises:
            KeyError: the build has no such file.
        """
        for file in self.files:
            if file.name == name:
                return file
        raise KeyError(name)


def adopt(path: Path, folder: Path, target: Path) -> NativeFile:
    """Takes a file into the build folder, so that a build stays whole when its SDK goes away."""
    if path == target:
        return entry(path.name, path, 0o700)
    (folder / "lib").mkdir(exist_ok=True)
    copy = folder / "lib" / path.name
    shutil.copyfile(path, copy)
    loader = any(abi.glibc_loader.endswith(f"/{path.name}") for abi in BUILT.values())
    return entry(f"lib/{path.name}", copy, 0o700 if loader else 0o600)


def entry(name: str, path: Path, mode: int) -> NativeFile:
    """Describes a file under its name in a work folder, and gives it its mode."""
    path.chmod(mode)
    return NativeFile(name, path, hash_file(path), path.stat().st_size, mode)


def hash_file(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def tick_of(name: str, abi: str, progress: Progress | None) -> Callable[[], None]:
    """Say what is built; the listener may end the build by raising."""

    def tick() -> None:
        if progress is not None:
            progress(f"building {name} for {abi}")

    return tick


def cached(
    cache: Path,
    name: str,
    abi: str,
    key: str,
    make: Callable[[Path], NativeBuild],
    progress: Progress | None,
) -> NativeBuild:
    """The build of that key, made when there is none yet; one process makes it at a time.

    Args:
        cache: folder of all builds.
        name: of the program.
        abi: Android's name of it.
        key: sha256 over all that goes in.
        make: builds into an empty folder.
        progress: called once when something has to be built, here or by another that is waited for.

    Raises:
        FarmError: what was built can't be read back, or as `make`.
    """
    final = cache / abi / f"{name}-{key[:24]}"
    found = _load(final)
    if found is not None:
        return found
    final.parent.mkdir(parents=True, exist_ok=True)
    tick_of(name, abi, progress)()  # also where another builds it: this is what is waited for
    # One builder per key; whoever waited finds the result of the other.
    with locked(final.with_suffix(".lock")):
        found = _load(final)
        if found is not None:
            return found
        folder = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=final.parent))
        try:
            _save(make(folder), folder)
            shutil.rmtree(final, ignore_errors=True)
            folder.rename(final)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    found = _load(final)
    if found is None:
        raise FarmError(f"The build of {name} for {abi} in {final} can't be read back.")
    return found


def cached_builds(cache: Path, abi: str) -> list[NativeBuild]:
    """The builds of an ABI that are there and whole."""
    folders = sorted(path for path in (cache / abi).glob("farm-*") if path.is_dir())
    return [build for folder in folders if (build := _load(folder)) is not None]


def _save(build: NativeBuild, folder: Path) -> None:
    document = asdict(build)
    for file in document["files"]:
        file["path"] = str(Path(file["path"]).relative_to(folder))
    for scrap in folder.glob("*.o"):
        scrap.unlink()
    (folder / "build.json").write_text(json.dumps(document, indent=1))


def _load(folder: Path) -> NativeBuild | None:
    """The build in that folder; None when there is none or a file of it is missing or cut."""
    try:
        document = json.loads((folder / "build.json").read_text())
        files = tuple(
            NativeFile(**{**entry, "path": folder / entry["path"]}) for entry in document["files"]
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    if any(not file.path.is_file() or file.path.stat().st_size != file.size for file in files):
        return None
    env = tuple((name, value) for name, value in document["env"])
    with contextlib.suppress(OSError):  # a cache that is read only, or another user's, will do
        os.utime(folder / "build.json")
    return NativeBuild(**{**document, "files": files, "env": env, "argv": tuple(document["argv"])})
