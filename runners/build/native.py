"""Builds farm's native programs for an ABI and keeps every build under the hash of its inputs.

It knows compilers, flags and files; it doesn't know devices, jobs or the protocol. Nothing here
imports torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from farm.core.abi import BUILT
from runners.build.cache import (
    NativeBuild,
    NativeFile,
    Progress,
    adopt,
    cached,
    entry,
    hash_file,
    tick_of,
)
from runners.build.compiler import Compiler, compile_objects, find_compiler, link
from runners.build.elf import check_alignment
from runners.build.prefix import Prefix
from runners.build.sdk import bundle_libraries, sdk_for, sdk_version, shipped_libraries

SOURCES = Path(__file__).parents[1] / "native"
VERSION = "0.1.0"

_HELPER_DIRS = ("common", "helper")
_RUNNER_DIRS = ("common", "kernels", "runner")
_ATTENTION_DIR, _TUNED_DIR = "attention", "tuned"
_BIND_DIRS = ("bind",)


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
        tick = tick_of("farm-helper", abi, progress)
        objects = compile_objects(compiler, sources, (*flags, _stamp(key)), folder, tick)
        target = folder / "farm-helper"
        link(compiler, objects, link_flags, target)
        files = (entry("farm-helper", target, 0o700),)
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

    return cached(cache, "farm-helper", abi, key, make, progress)


def build_bind(abi: str, cache: Path) -> Path:
    """Builds (or finds) the library that keeps a program's sockets on one address of its host.

    Raises:
        UnknownName: no such ABI.
        RunnerError: no compiler, or it refused our source.
    """
    compiler = find_compiler(abi)
    flags, link_flags = ("-Os", "-fPIC"), ("-shared", "-s", "-ldl")
    key = _key("farm-bind", compiler, flags + link_flags, _BIND_DIRS, ())

    def make(folder: Path) -> NativeBuild:
        objects = compile_objects(compiler, _sources(_BIND_DIRS), flags, folder)
        target = folder / "libfarm-bind.so"
        link(compiler, objects, link_flags, target)
        return NativeBuild(
            name="farm-bind",
            abi=abi,
            version=_version(key),
            isa_baseline=compiler.baseline,
            libc="glibc",
            key=key,
            toolchain="",
            argv=(),
            env=(),
            files=(entry("libfarm-bind.so", target, 0o700),),
        )

    return cached(cache, "farm-bind", abi, key, make, None).file("libfarm-bind.so").path


def build_runner(
    abi: str,
    sdk_root: Path,
    cache: Path,
    *,
    bundle_libc: bool = False,
    profile: bool = False,
    tuned: bool = False,
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
        tuned: with our code in place of XNNPACK's for 4-bit weights, and our memory settings.
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
    loader = _loader(abi)
    against = _Against(
        name=program_name(tuned=tuned),
        compiler=compiler,
        root=sdk,
        hashed=tuple(libraries),
        shipped=(*libraries, *(bundle_libraries(compiler, loader) if bundle_libc else ())),
        link_flags=(*search, "-Wl,--no-as-needed", *names, "-pthread", "-ldl"),
        libc="glibc-bundle" if bundle_libc else "glibc",
        version=sdk_version(sdk),
        argv=_start(loader, bundle_libc=bundle_libc),
        env=_library_path(bundle_libc=bundle_libc),
        flags=("-DET_EVENT_TRACER_ENABLED",) if profile else (),
        # No wheel has custom operators that do without torch.
        own=_own_code(own_attention=True, tuned=tuned),
    )
    return replace(_build_against(against, abi, cache, progress), how=how)


def build_for_prefix(
    abi: str,
    prefix: Prefix,
    cache: Path,
    *,
    bundle_libc: bool = False,
    tuned: bool = False,
    progress: Progress | None = None,
) -> NativeBuild:
    """Builds (or finds) farm-runner against an install tree of ExecuTorch, with its compiler.

    Its own custom operators are used where it has some, but for the tuned runner.

    Raises:
        RunnerError: the compiler refused our sources, or a library isn't loadable everywhere.
    """
    own_attention = tuned or not prefix.custom_ops
    shared = tuple(prefix.shared(custom_ops=not own_attention))
    loader = _loader(abi)
    libc = "glibc-bundle" if bundle_libc else "bionic" if prefix.android else "glibc"
    against = _Against(
        name=program_name(tuned=tuned),
        compiler=prefix.compiler,
        root=prefix.folder,
        hashed=(*shared, *prefix.archives(custom_ops=not own_attention)),
        shipped=(*shared, *(bundle_libraries(prefix.compiler, loader) if bundle_libc else ())),
        link_flags=tuple(prefix.link_flags(custom_ops=not own_attention)),
        libc=libc,
        version=prefix.version or "of unknown version",
        argv=_start(loader, bundle_libc=bundle_libc),
        env=_library_path(bundle_libc=bundle_libc),
        own=_own_code(own_attention=own_attention, tuned=tuned),
    )
    return replace(_build_against(against, abi, cache, progress), how=prefix.how)


def _loader(abi: str) -> str:
    return PurePosixPath(BUILT[abi].glibc_loader).name


def _start(loader: str, *, bundle_libc: bool) -> tuple[str, ...]:
    start = (f"./lib/{loader}", "--library-path", "./lib") if bundle_libc else ()
    return (*start, "./farm-runner")


def _library_path(*, bundle_libc: bool) -> tuple[tuple[str, str], ...]:
    return () if bundle_libc else (("LD_LIBRARY_PATH", "./lib"),)


@dataclass(frozen=True, slots=True)
class _OwnCode:
    """Our code in the timed path: its folders and the flags that name it."""

    folders: tuple[str, ...]
    flags: tuple[str, ...]


def _own_code(*, own_attention: bool, tuned: bool) -> _OwnCode:
    """What isn't asked for isn't compiled, so a build can't hold it by accident."""
    parts = {
        _ATTENTION_DIR: (own_attention, "-DFARM_OWN_ATTENTION"),
        _TUNED_DIR: (tuned, "-DFARM_TUNED"),
    }
    wanted = {folder: flag for folder, (used, flag) in parts.items() if used}
    return _OwnCode(tuple(wanted), tuple(wanted.values()))


@dataclass(frozen=True, slots=True)
class _Against:
    """An ExecuTorch to build farm-runner against, and what the result needs on a device."""

    name: str
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
    own: _OwnCode
    flags: tuple[str, ...] = ()


def program_name(*, tuned: bool) -> str:
    """What builds of `executorch` and `executorch-tuned` are called."""
    return "farm-runner-tuned" if tuned else "farm-runner"


def _build_against(
    against: _Against, abi: str, cache: Path, progress: Progress | None
) -> NativeBuild:
    compiler = against.compiler
    known = f'-DFARM_EXECUTORCH_VERSION="{against.version}"'
    own, folders = against.own, (*_RUNNER_DIRS, *against.own.folders)
    flags = ("-O3", "-fno-math-errno", known, *against.flags, *own.flags, *_defines(abi))
    flags += _sdk_includes(against.root)
    fingerprint = (against.libc, *(hash_file(path) for path in against.hashed))
    public = tuple(flag for flag in flags if str(against.root) not in flag)
    key = _key(against.name, compiler, public, folders, fingerprint)

    def make(folder: Path) -> NativeBuild:
        tick = tick_of(against.name, abi, progress)
        sources = _sources(folders)
        objects = compile_objects(compiler, sources, (*flags, _stamp(key)), folder, tick)
        target = folder / "farm-runner"
        link(compiler, objects, ["-s", *against.link_flags], target)
        files = [adopt(path, folder, target) for path in (target, *against.shipped)]
        _check_pages(abi, files)
        return NativeBuild(
            name=against.name,
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

    return cached(cache, against.name, abi, key, make, progress)


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
