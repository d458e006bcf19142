"""Builds farm's native programs for an ABI and keeps every build under the hash of its inputs.

It knows compilers, flags and files; it doesn't know devices, jobs or the protocol. Nothing here
imports torch.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath

from farm.core.abi import BUILT
from farm.core.errors import FarmError
from runners.build.android import AndroidSdk
from runners.build.compiler import Compiler, compile_objects, find_compiler, link
from runners.build.elf import check_alignment
from runners.build.sdk import bundle_libraries, sdk_for, sdk_version, shipped_libraries

SOURCES = Path(__file__).parents[1] / "native"
VERSION = "0.1.0"

Progress = Callable[[str], None]

_HELPER_DIRS = ("common", "helper")
_RUNNER_DIRS = ("common", "kernels", "runner")


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


def build_helper(abi: str, cache: Path, *, progress: Progress | None = None) -> NativeBuild:
    """Builds (or finds) the static farm-helper.

    Raises:
        UnknownName: no such ABI.
        RunnerError: no compiler, or it refused our sources.
    """
    compiler = find_compiler(abi)
    flags = ("-Os", "-ffunction-sections", *_defines(abi))
    link_flags = ("-static", "-s", "-Wl,--gc-sections")
    key = _key("farm-helper", compiler, flags + link_flags, _HELPER_DIRS, ())

    def make(folder: Path) -> NativeBuild:
        sources = _sources(_HELPER_DIRS)
        tick = _tick("farm-helper", abi, progress)
        objects = compile_objects(compiler, sources, (*flags, _stamp(key)), folder, tick)
        target = folder / "farm-helper"
        link(compiler, objects, link_flags, target)
        files = (_entry("farm-helper", target, 0o700),)
        _check_pages(abi, files)
        return NativeBuild(
            name="farm-helper",
            abi=abi,
            version=_version(key),
            isa_baseline=compiler.baseline,
            libc="static",
            key=key,
            toolchain="",
            argv=("./farm-helper",),
            env=(),
            files=files,
        )

    return _cached(cache, "farm-helper", abi, key, make, progress)


def build_runner(
    abi: str,
    sdk_root: Path,
    cache: Path,
    *,
    bundle_libc: bool = False,
    profile: bool = False,
    progress: Progress | None = None,
    how: str = "",
) -> NativeBuild:
    """Builds (or finds) farm-runner against the C++ SDK of an installed ExecuTorch.

    Args:
        abi: Android's name of the ABI.
        sdk_root: the installed `executorch` package; for another ABI than its own, the wheel of
            the same version for that ABI is downloaded into the cache.
        cache: folder that may be deleted at any time when nothing builds.
        bundle_libc: also ship loader and C library, for systems without glibc.
        profile: the variant that can trace every operator; its timed windows are slower.
        progress: called with one short line per step.
        how: why this way of building was chosen, for reports.

    Raises:
        UnknownName: no such ABI.
        RunnerError: no compiler, no SDK in that ExecuTorch, or the compiler refused our sources.
    """
    compiler = find_compiler(abi)
    sdk = sdk_for(abi, sdk_root, cache, progress or (lambda _line: None))
    libraries = shipped_libraries(sdk, profile=profile)
    names = [f"-l{path.name[3:-3]}" for path in libraries]
    search = [f"-L{sdk / 'lib'}", "-Wl,-rpath-link," + str(sdk / "lib")]
    loader = PurePosixPath(BUILT[abi].glibc_loader).name
    start = (f"./lib/{loader}", "--library-path", "./lib") if bundle_libc else ()
    against = _Against(
        compiler=compiler,
        root=sdk,
        hashed=tuple(libraries),
        shipped=(*libraries, *(bundle_libraries(compiler, loader) if bundle_libc else ())),
        link_flags=(*search, "-Wl,--no-as-needed", *names, "-pthread", "-ldl"),
        libc="glibc-bundle" if bundle_libc else "glibc",
        version=sdk_version(sdk),
        argv=(*start, "./farm-runner"),
        env=() if bundle_libc else (("LD_LIBRARY_PATH", "./lib"),),
        flags=("-DET_EVENT_TRACER_ENABLED",) if profile else (),
    )
    return replace(_build_against(against, abi, cache, progress), how=how)


def build_for_android(
    abi: str, android: AndroidSdk, cache: Path, *, progress: Progress | None = None
) -> NativeBuild:
    """Builds (or finds) farm-runner with the NDK, against an ExecuTorch that was built with it.

    Raises:
        RunnerError: the compiler refused our sources, or a library isn't loadable everywhere.
    """
    against = _Against(
        compiler=android.compiler,
        root=android.prefix,
        hashed=(*android.shared, *android.archives),
        shipped=tuple(android.shared),
        link_flags=tuple(android.link_flags),
        libc="bionic",
        version="of the NDK build",
        argv=("./farm-runner",),
        env=(("LD_LIBRARY_PATH", "./lib"),),
    )
    return replace(_build_against(against, abi, cache, progress), how=android.how)


@dataclass(frozen=True, slots=True)
class _Against:
    """An ExecuTorch to build farm-runner against, and what the result needs on a device."""

    compiler: Compiler
    root: Path
    """Has `include/executorch`."""
    hashed: tuple[Path, ...]
    shipped: tuple[Path, ...]
    link_flags: tuple[str, ...]
    libc: str
    version: str
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    flags: tuple[str, ...] = ()


def _build_against(
    against: _Against, abi: str, cache: Path, progress: Progress | None
) -> NativeBuild:
    compiler = against.compiler
    known = f'-DFARM_EXECUTORCH_VERSION="{against.version}"'
    flags = ("-O3", "-fno-math-errno", known, *against.flags, *_defines(abi))
    flags += _sdk_includes(against.root)
    fingerprint = (against.libc, *(_hash_file(path) for path in against.hashed))
    public = tuple(flag for flag in flags if str(against.root) not in flag)
    key = _key("farm-runner", compiler, public, _RUNNER_DIRS, fingerprint)

    def make(folder: Path) -> NativeBuild:
        tick = _tick("farm-runner", abi, progress)
        sources = _sources(_RUNNER_DIRS)
        objects = compile_objects(compiler, sources, (*flags, _stamp(key)), folder, tick)
        target = folder / "farm-runner"
        link(compiler, objects, ["-s", *against.link_flags], target)
        files = [_adopt(path, folder, target) for path in (target, *against.shipped)]
        _check_pages(abi, files)
        return NativeBuild(
            name="farm-runner",
            abi=abi,
            version=_version(key),
            isa_baseline=compiler.baseline,
            libc=against.libc,
            key=key,
            toolchain=against.version,
            argv=against.argv,
            env=against.env,
            files=tuple(files),
        )

    return _cached(cache, "farm-runner", abi, key, make, progress)


def _check_pages(abi: str, files: Sequence[NativeFile]) -> None:
    """Refuse files that devices with pages of 16 KiB can't load, where such devices exist."""
    if BUILT[abi].large_page_kib:
        for file in files:
            check_alignment(file.path)


def _version(key: str) -> str:
    return f"{VERSION}+{key[:12]}"


def _stamp(key: str) -> str:
    return f'-DFARM_NATIVE_VERSION="{_version(key)}"'


def _defines(abi: str) -> tuple[str, ...]:
    return (f'-DFARM_NATIVE_ABI="{abi}"',)


def _sdk_includes(sdk: Path) -> tuple[str, ...]:
    include = sdk / "include"
    portable = include / "executorch" / "runtime" / "core" / "portable_type" / "c10"
    return (
        "-DC10_USING_CUSTOM_GENERATED_MACROS",
        f"-isystem{include}",
        f"-isystem{portable}",
    )


def _sources(folders: tuple[str, ...]) -> list[Path]:
    return sorted(path for name in folders for path in (SOURCES / name).glob("*.cpp"))


def _key(
    name: str,
    compiler: Compiler,
    flags: tuple[str, ...],
    folders: tuple[str, ...],
    extra: tuple[str, ...],
) -> str:
    digest = hashlib.sha256()
    for part in (name, VERSION, compiler.identity, *compiler.flags, *flags, *extra):
        digest.update(part.encode() + b"\0")
    for folder in folders:
        for path in sorted((SOURCES / folder).iterdir()):
            if path.suffix in {".h", ".cpp", ".inl"}:
                digest.update(f"{folder}/{path.name}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _adopt(path: Path, folder: Path, target: Path) -> NativeFile:
    """Takes a file into the build folder, so that a build stays whole when its SDK goes away."""
    if path == target:
        return _entry(path.name, path, 0o700)
    (folder / "lib").mkdir(exist_ok=True)
    copy = folder / "lib" / path.name
    shutil.copyfile(path, copy)
    loader = any(target.glibc_loader.endswith(f"/{path.name}") for target in BUILT.values())
    return _entry(f"lib/{path.name}", copy, 0o700 if loader else 0o600)


def _entry(name: str, path: Path, mode: int) -> NativeFile:
    path.chmod(mode)
    return NativeFile(name, path, _hash_file(path), path.stat().st_size, mode)


def _hash_file(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _tick(name: str, abi: str, progress: Progress | None) -> Callable[[], None]:
    """Report what is built; the callback may end the build by raising."""

    def tick() -> None:
        if progress is not None:
            progress(f"building {name} for {abi}")

    return tick


def _cached(
    cache: Path,
    name: str,
    abi: str,
    key: str,
    make: Callable[[Path], NativeBuild],
    progress: Progress | None,
) -> NativeBuild:
    final = cache / abi / f"{name}-{key[:24]}"
    found = _load(final)
    if found is not None:
        return found
    final.parent.mkdir(parents=True, exist_ok=True)
    # One builder per key: a process that waited finds the build of the other.
    with _locked(final.with_suffix(".lock")):
        found = _load(final)
        if found is not None:
            return found
        _tick(name, abi, progress)()
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
        raise FarmError(
            f"The build of {name} for {abi} in {final} can't be read back; delete that folder."
        )
    return found


def cached_builds(cache: Path, abi: str) -> list[NativeBuild]:
    """The builds of an ABI that are there and whole."""
    folders = sorted(path for path in (cache / abi).glob("farm-*") if path.is_dir())
    return [build for folder in folders if (build := _load(folder)) is not None]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


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
    os.utime(folder / "build.json")
    return NativeBuild(**{**document, "files": files, "env": env, "argv": tuple(document["argv"])})
