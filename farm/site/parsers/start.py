"""What loaders, shells and runtimes of devices print when a program doesn't start. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from farm.site.parsers.text import clean_text

_SIGILL, _SIGSYS = 4, 31


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a runner doesn't start."""

    kind: str
    #: What the device printed, one line.
    output: str
    remedy: str
    #: The same runner with its own loader and C library may start.
    bundle_helps: bool


#: Before the reason: the helper or a shell names the program that didn't start. A program that
#: runs says the same of its own files, which is no matter of loaders.
_SHELL = r"(?:[^\s:]*/)?(?:ba|da|a|z|mk)?sh: [^\n]+"
_START = rf"(?:cannot start [^\n]*|(?:(?m:^)|exit code 12[67]: ){_SHELL}): "
_DENIED = rf"{_START}(?:can't execute: )?(?:Permission denied|Operation not permitted)"

_BASELINE = "build the runner for this processor: it misses an instruction of the baseline"

#: Pattern, kind, remedy, whether a bundle helps. The first that matches counts.
_TEXTS: tuple[tuple[str, str, str, bool], ...] = (
    (
        r"version [`'\"]?(?:GLIBC|GLIBCXX|CXXABI)_[\w.]+['\"]? not found",
        "libc_too_old",
        "its C or C++ library is older than the one the runner was built with",
        True,
    ),
    (
        r"program alignment \(\d+\) cannot be smaller than system page size \(\d+\)"
        r"|ELF load command (?:alignment|address/offset) not (?:page-|properly )aligned",
        "page_size",
        "build it with `-Wl,-z,max-page-size=65536`: memory pages of this device are larger than"
        " those it was linked for",
        True,
    ),
    (
        r"has text relocations",
        "text_relocations",
        "build every part of it with `-fPIC`",
        True,
    ),
    (
        r"cannot locate symbol",
        "symbol_missing",
        "build it for the device's API level or an older one (ANDROID_PLATFORM), with the C++"
        " runtime linked statically (ANDROID_STL=c++_static)",
        True,
    ),
    (
        r"undefined symbol: |Error relocating [^\n]*: symbol not found"
        r"|version [`'\"]?[A-Z]\w+_[\w.]+['\"]? not found",
        "symbol_missing",
        "a library there is another version than it was built with: push the right one along, or"
        " link it statically",
        True,
    ),
    (
        r"only (?:position independent executables \(PIE\)|support position-independent exec)",
        "not_relocatable",
        "build it with `-fPIE -pie`: Android starts no other programs",
        True,
    ),
    (
        r"is not accessible for the namespace",
        "library_forbidden",
        "the device lets programs of this folder use public libraries alone: push the library"
        " along, or link it statically",
        False,
    ),
    (
        r"CPU ISA level is lower than required|CPU does not support x86-64-v\d"
        r"|exit code 132: |(?m:^)Illegal instruction",
        "instruction_missing",
        _BASELINE,
        False,
    ),
    (
        r"cannot enable executable stack",
        "executable_stack",
        "link every part of it with `-Wl,-z,noexecstack`",
        False,
    ),
    (
        r"invalid ELF header|file too short|is too small to be an ELF",
        "damaged",
        "one of its files is cut or is no program: copy or build it anew",
        False,
    ),
    (
        r"library \"?[^\"\n]+\"? not found"
        r"|error while loading shared libraries: [^\n]*: cannot open shared object file"
        r"|Error loading shared library [^\n]*: No such file",
        "library_missing",
        "link that library statically, or install it on the device",
        True,
    ),
    (
        r"TLS segment is underaligned",
        "tls_alignment",
        "it wasn't linked for Android: build it with the NDK for API level 29 or later",
        True,
    ),
    (
        r"kernel too old",
        "kernel_too_old",
        "this device's kernel is older than the C library supports: update it",
        False,
    ),
    (
        rf"{_DENIED}|failed to map segment from shared object",
        "no_execute",
        "programs can't run from farm's folder there: set `root` of the device in the inventory to"
        " a folder on a file system without noexec (Android: /data/local/tmp/farm);"
        " on this machine set FARM_HOME to one",
        False,
    ),
    (
        r"Exec format error|not executable: (?:32|64)-bit ELF|cannot execute binary file"
        r"|bad ELF magic|is for EM_|wrong ELF class|unexpected e_machine"
        r"|exec format error|Not a valid dynamic program"
        r"|(?:32|64)-bit instead of (?:32|64)-bit",
        "wrong_format",
        "it is a program for another machine, or its loader is missing there",
        True,
    ),
    (
        rf"{_START}(?:No such file or directory|not found|inaccessible or not found"
        r"|cannot execute: required file not found)"
        r"|bad interpreter: |Could not open '[^'\n]*/(?:ld-|linker)[^'\n]*': No such file",
        "loader_missing",
        "the loader that the runner asks for isn't on the device",
        True,
    ),
)


#: What ExecuTorch says of a program that the runner can't run; the group is what is missing.
_OPERATOR = re.compile(r"Missing operator: (?:\[\d+\] *)?([\w:.]+)")
_BACKEND = re.compile(r"Backend (\w+) is not registered")


def diagnose(
    text: str, signal: int | None = None, *, no_exec: bool | None = None
) -> Trouble | None:
    """Say why a runner didn't start; None when the text is of no known kind.

    Args:
        text: What was printed instead of an introduction: standard error, or the helper's word.
        signal: Signal that ended it.
        no_exec: Whether the file system of farm's folder is mounted noexec, where that is known.
    """
    if signal == _SIGILL:
        return Trouble("instruction_missing", "ended by SIGILL", _BASELINE, False)
    if signal == _SIGSYS:
        remedy = "the device forbids a system call; use a device or user with fewer restrictions"
        return Trouble("system_call_forbidden", "ended by SIGSYS", remedy, False)
    for pattern, kind, remedy, bundle in _TEXTS:
        found = re.search(pattern, text)
        if found is not None:
            start = text.rfind("\n", 0, found.start()) + 1
            end = text.find("\n", found.end())
            line = clean_text(text[start : end if end >= 0 else None]).strip()[:300]
            if kind == "no_execute" and no_exec is False:
                return Trouble("wrong_format", line, _REFUSED_FILE, True)
            return Trouble(kind, line, remedy, bundle)
    return _missing(text)


#: Some kernels and security modules say no more than "Permission denied" of such a file.
_REFUSED_FILE = (
    "its folder allows programs, so the file is what is refused: it is a program for another"
    " machine, or a security module of the device forbids it"
)


def _missing(text: str) -> Trouble | None:
    """Operators or a backend that the exported program needs and the runner doesn't have."""
    operators = sorted(set(_OPERATOR.findall(text)))
    if operators:
        names = ", ".join(operators)
        remedy = f"link the library that registers {names} into the runner, or export without them"
        return Trouble("operator_missing", f"missing operators: {names}"[:300], remedy, False)
    backend = _BACKEND.search(text)
    if backend is not None:
        name = backend[1]
        remedy = f"build the runner with {name}, or export with a recipe for a backend that it has"
        return Trouble("backend_missing", f"backend {name} is not registered", remedy, False)
    return None
