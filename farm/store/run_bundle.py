"""A bundle: one file that holds a run for others. Read, checked whole, and unpacked.

A zip archive that any program opens. Its last bytes are the SHA-256 of all bytes before them, so
that one byte that changed anywhere is noticed before anything of it is believed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from farm import paths
from farm.core.errors import ConfigError, StoreError
from farm.store.objects import ContentStore

SUFFIX = ".farm.zip"
#: Files of a bundle that have a meaning of their own; the others are reports.
CONFIG, MANIFEST, SHIPPED, OBJECTS = "config.yaml", "bundle.json", "shipped.json", "objects"
#: What decides what is shipped: as it was packed, whenever the bundle is named.
_BELIEVED = ("report.json", SHIPPED)
#: Comment of the archive up to the digest, which is in hex.
_MARK = b"farm bundle 1, sha256 of all bytes before: "
_DIGEST = 64
_BLOCK = 1 << 20


def is_bundle(path: Path) -> bool:
    """Whether a path is a bundle by its name."""
    return path.name.endswith(SUFFIX) and path.is_file()


def came_of(folder: Path) -> bool:
    """Whether a run folder came out of a bundle."""
    return (folder / MANIFEST).is_file()


def refuse(folder: Path) -> None:
    """Refuse to go on with the run of a bundle, or with one cell of it.

    Raises:
        ConfigError: It is one.
    """
    if came_of(folder):
        raise ConfigError(
            f"{folder} came out of a bundle, which doesn't hold how its devices are reached:"
            " `farm run BUNDLE --inventory FILE` runs its config on devices of yours"
        )


def config_of(path: Path, home: Path) -> Path:
    """Return the config of the run that a bundle holds.

    Raises:
        ConfigError: The bundle was changed, or has no config; says why.
        StoreError: It can't be unpacked.
    """
    folder = unpacked(path, home)
    if not (folder / CONFIG).is_file():
        raise ConfigError(
            f"{path}: can't be run again, its runners were given variables that a bundle doesn't"
            f" hold; {folder / 'report.json'} has the config without them"
        )
    return folder / CONFIG


def unpacked(path: Path, home: Path) -> Path:
    """Check a bundle and return the run folder that it holds; its objects go to the store.

    Raises:
        ConfigError: It is no bundle, or not as it was written.
        StoreError: It can't be unpacked here.
    """
    digest = _checked(path)
    folder = home / "bundles" / digest
    try:
        with zipfile.ZipFile(path) as archive:
            names = [_safe(path, info) for info in archive.infolist()]
            _bring_objects(archive, names, home)
            files = [name for name in names if not name.startswith(f"{OBJECTS}/")]
            if not folder.is_dir():
                _unpack(archive, files, folder)
            for name in (name for name in files if name in _BELIEVED):
                if (folder / name).read_bytes() != archive.read(name):
                    raise ConfigError(
                        f"{folder / name}: was changed since it was unpacked from {path}: remove"
                        f" {folder}, and it is unpacked again"
                    )
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise ConfigError(f"{path}: is no bundle of farm: {error}", file=str(path)) from error
    except OSError as error:
        raise StoreError(f"can't unpack {path} to {folder}: {error.strerror or error}") from error
    return folder


def seal(path: Path) -> str:
    """Let an archive end with its own digest; return it.

    Raises:
        OSError: It can't be written.
    """
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = _MARK + b"0" * _DIGEST
    with path.open("r+b") as file:
        found = _digest(file, path.stat().st_size - _DIGEST)
        file.seek(-_DIGEST, 2)
        file.write(found.encode())
        file.flush()
        os.fsync(file.fileno())
    return found


def _checked(path: Path) -> str:
    """The digest of a bundle that is as it was written."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            file.seek(max(0, size - _DIGEST - len(_MARK)))
            end = file.read()
            if len(end) != len(_MARK) + _DIGEST or not end.startswith(_MARK):
                raise ConfigError(
                    f"{path}: is no whole bundle of farm (`farm bundle RUN` writes one): its end is"
                    " missing or changed",
                    file=str(path),
                )
            file.seek(0)
            found = _digest(file, size - _DIGEST)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", file=str(path)) from error
    if found.encode() != end[-_DIGEST:]:
        raise ConfigError(
            f"{path}: was changed or damaged since it was written: its bytes have sha256 {found},"
            f" its end says {end[-_DIGEST:].decode('ascii', 'replace')}; get it again",
            file=str(path),
        )
    return found


def _digest(file: BinaryIO, size: int) -> str:
    found = hashlib.sha256()
    file.seek(0)
    while size > 0 and (block := file.read(min(_BLOCK, size))):
        found.update(block)
        size -= len(block)
    return found.hexdigest()


def _safe(path: Path, info: zipfile.ZipInfo) -> str:
    """The name of an entry; whoever wrote the bundle may not write outside its folder."""
    name = PurePosixPath(info.filename)
    plain = not name.is_absolute() and ".." not in name.parts and "\\" not in info.filename
    if not plain or info.is_dir() or info.external_attr >> 28 not in (0, 8):
        raise ConfigError(f"{path}: holds {info.filename!r}, which is no plain file of a bundle")
    return info.filename


def _bring_objects(archive: zipfile.ZipFile, names: list[str], home: Path) -> None:
    store = ContentStore(paths.store_root(home))
    for name in names:
        sha256 = name.removeprefix(f"{OBJECTS}/")
        if sha256 == name or store.has(sha256):
            continue
        with store.scratch() as folder:
            target = folder / "object"
            _copy(archive, name, target)
            store.put_file(target, sha256, sha256=sha256)


def _copy(archive: zipfile.ZipFile, name: str, target: Path) -> None:
    with archive.open(name) as source, target.open("wb") as out:
        shutil.copyfileobj(source, out, _BLOCK)


def _unpack(archive: zipfile.ZipFile, names: list[str], folder: Path) -> None:
    """Unpack into a folder that appears whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unpacking-") as scratch:
        for name in names:
            target = Path(scratch, "run", *PurePosixPath(name).parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            _copy(archive, name, target)
        try:
            Path(scratch, "run").rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process unpacked the same bundle
                raise
