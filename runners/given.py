"""Runners that a user brings along: their files, their ABI, and what a config must say of them.

Nothing is built. The files lie in the content store of the host and in the job's work folder.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from farm.core.abi import abi_of_elf
from farm.core.artifact import ObjectRef, Sdk
from farm.core.device import DeviceFacts
from farm.core.errors import ConfigError, DeviceUnfit, RunnerError
from farm.core.runner import PLAIN, BuildVariant, DeployFile, RunnerBuild, RunnerSpec
from farm.core.runtime import Hello

#: More files than any runner has: a folder was named by mistake.
_MAX_FILES = 500


class GivenRunner:
    """What all of them share. `argv` and `parse` are their own."""

    greeting: tuple[str, ...] | None = None

    def __init__(self, spec: RunnerSpec) -> None:
        self.spec = spec
        self.name = spec.name

    def build(
        self,
        abi: str,
        facts: DeviceFacts,
        home: Path,
        sdk: Sdk,
        progress: Callable[[str], None] | None = None,
        variant: BuildVariant = PLAIN,
    ) -> RunnerBuild:
        """Describe the user's files; see `farm.protocols.Runner`."""
        del facts, home, sdk, progress, variant
        spec = self.spec
        if spec.abi is not None and spec.abi != abi:
            raise DeviceUnfit(
                f"runner {spec.name} is built for {spec.abi}, the device is {abi}", abi=abi
            )
        digest = hashlib.sha256(repr((spec.argv, spec.env)).encode())
        for file in spec.files:
            digest.update(f"{file.path}\0{file.object.sha256}\0".encode())
        return RunnerBuild(
            name=spec.name,
            version="as given",
            abi=abi,
            sha256=digest.hexdigest(),
            files=spec.files,
            argv=(),
            env=_with_libraries(spec),
        )

    def files(self, build: RunnerBuild) -> Mapping[str, Path]:
        """Refuse: planning puts these files into the content store, no build does."""
        raise RunnerError(
            f"the files of runner {build.name} aren't in the content store; run it anew"
        )

    def progress(self, line: bytes) -> tuple[str, int, int] | None:
        """These programs report no progress."""
        del line
        return None

    def rate(self, line: bytes) -> tuple[str, float] | None:
        """These programs report figures at their end only."""
        del line
        return None

    def hello(self, version: str = "as given") -> Hello:
        """Introduce a program that doesn't introduce itself: no ISA, no list of kernels."""
        return Hello(0, version, self.spec.abi or "any", "unknown", (), ())


def with_files(spec: RunnerSpec) -> RunnerSpec:
    """Look at the files that a config names: hashes, ABI. Folders stand for all they hold.

    Raises:
        ConfigError: A file isn't there, or two would lie at one place; `key` is `push`.
    """
    files, sources = [], []
    abis: dict[str, str] = {}
    for name, path in _expanded(spec.sources):
        with path.open("rb") as handle:
            head = handle.read(20)
            handle.seek(0)
            sha256 = hashlib.file_digest(handle, "sha256").hexdigest()
        executable = os.access(path, os.X_OK) and not name.endswith(".so")
        ref = ObjectRef(sha256, path.stat().st_size, path.name)
        files.append(DeployFile(ref, name, executable))
        sources.append(str(path))
        abi = elf_abi(head)
        if abi is not None:
            abis.setdefault(abi, name)
    places = [file.path for file in files]
    for place in places:
        if places.count(place) > 1:
            raise ConfigError(f"two files would be {place} on the device", key="push")
    if len(abis) > 1:
        found = ", ".join(f"{name} is {abi}" for abi, name in abis.items())
        raise ConfigError(f"files for different devices: {found}; make two runners", key="push")
    return replace(spec, files=tuple(files), sources=tuple(sources), abi=next(iter(abis), spec.abi))


def elf_abi(head: bytes) -> str | None:
    """ABI of a program or library by its first 20 bytes; None when it is no ELF file."""
    if head[:4] != b"\x7fELF" or len(head) < 20:
        return None
    machine = int.from_bytes(head[18:20], "little")
    found = abi_of_elf(machine)
    return found.name if found is not None else f"ELF machine {machine}"


def program_of(spec: RunnerSpec, *names: str) -> str | None:
    """Path in the work folder of the first file with one of these names."""
    for name in names:
        for file in spec.files:
            if file.path.rpartition("/")[2] == name:
                return f"./{file.path}"
    return None


def refuse(spec: RunnerSpec, *keys: str) -> None:
    """Refuse parts of a description that its kind has no use for.

    Raises:
        ConfigError: One is there.
    """
    for key in keys:
        if getattr(spec, "sources" if key == "push" else key):
            raise ConfigError(f"a runner of kind {spec.kind} takes no `{key}`", key=key)


def _expanded(texts: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    count = 0
    for text in texts:
        path = Path(text)
        if not path.exists():
            raise ConfigError(f"there is no {path}", key="push")
        members = sorted(path.rglob("*")) if path.is_dir() else [path]
        for member in members:
            if member.is_file():
                count += 1
                if count > _MAX_FILES:
                    raise ConfigError(f"more than {_MAX_FILES} files to push", key="push")
                inside = member.relative_to(path if path.is_dir() else path.parent)
                yield inside.as_posix(), member


def _with_libraries(spec: RunnerSpec) -> tuple[tuple[str, str], ...]:
    """Let programs find the libraries that came along, unless the user says where."""
    folders = {
        file.path.rpartition("/")[0] or "."
        for file in spec.files
        if ".so" in file.path.rpartition("/")[2]
    }
    if not folders or "LD_LIBRARY_PATH" in dict(spec.env):
        return spec.env
    return (*spec.env, ("LD_LIBRARY_PATH", ":".join(sorted(folders))))
