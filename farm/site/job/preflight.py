"""Whether a runner starts on a device at all, and what helps when it doesn't.

What loaders and shells of devices print is read by `diagnose`, a pure function. Nothing here
knows how a runner is built.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from farm.core.errors import DeviceUnfit, FarmError, RunnerCrashed
from farm.core.runner import RunnerBuild
from farm.site.device.supervised import MAX_OUTPUT_BYTES, Link, follow
from farm.site.job.launch import TAIL_BYTES, read_failure, timed_out
from farm.site.job.results import fetch_logs
from farm.site.parsers.text import clean_text
from farm.store.objects import ContentStore

log = logging.getLogger(__name__)

#: Limit of a start that only introduces itself, seconds: an emulated device needs a few.
HELLO_S = 60.0
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
_START = r"(?:cannot start [^\n]*|(?m:^)(?:[^\s:]*/)?(?:ba|da|a|z|mk)?sh: [^\n]+): "

#: Pattern, kind, remedy, whether a bundle helps. The first that matches counts.
_TEXTS: tuple[tuple[str, str, str, bool], ...] = (
    (
        r"version [`'\"]?(?:GLIBC|GLIBCXX|CXXABI)_[\w.]+['\"]? not found",
        "libc_too_old",
        "its C or C++ library is older than the one the runner was built with",
        True,
    ),
    (
        r"program alignment \(\d+\) cannot be smaller than system page size \(\d+\)",
        "page_size",
        "build it with `-Wl,-z,max-page-size=16384`: this device has pages of 16 KiB",
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
        r"library \"?[^\"\n]+\"? not found|error while loading shared libraries"
        r"|Error loading shared library",
        "library_missing",
        "link that library statically, or install it on the device",
        True,
    ),
    (
        r"kernel too old",
        "kernel_too_old",
        "this device's kernel is older than the C library supports: update it",
        False,
    ),
    (
        rf"{_START}(?:can't execute: )?(?:Permission denied|Operation not permitted)",
        "no_execute",
        "programs can't run from farm's folder there: set `root` of the device in the inventory to"
        " a folder on a file system without noexec (Android: /data/local/tmp/farm)",
        False,
    ),
    (
        r"Exec format error|not executable: (?:32|64)-bit ELF|cannot execute binary file"
        r"|bad ELF magic|is for EM_|wrong ELF class",
        "wrong_format",
        "it is a program for another machine, or its loader is missing there",
        True,
    ),
    (
        rf"{_START}(?:No such file or directory|not found|inaccessible or not found)"
        r"|bad interpreter: |Could not open '[^'\n]*/(?:ld-|linker)[^'\n]*': No such file",
        "loader_missing",
        "the loader that the runner asks for isn't on the device",
        True,
    ),
)


def diagnose(text: str, signal: int | None = None) -> Trouble | None:
    """Say why a runner didn't start; None when the text is of no known kind.

    Args:
        text: What was printed instead of an introduction: standard error, or the helper's word.
        signal: Signal that ended it.
    """
    if signal == _SIGILL:
        remedy = "build the runner for this processor: it misses an instruction of the baseline"
        return Trouble("instruction_missing", "ended by SIGILL", remedy, False)
    if signal == _SIGSYS:
        remedy = "the device forbids a system call; use a device or user with fewer restrictions"
        return Trouble("system_call_forbidden", "ended by SIGSYS", remedy, False)
    for pattern, kind, remedy, bundle in _TEXTS:
        found = re.search(pattern, text)
        if found is not None:
            start = text.rfind("\n", 0, found.start()) + 1
            end = text.find("\n", found.end())
            line = text[start : end if end >= 0 else None]
            return Trouble(kind, clean_text(line).strip()[:300], remedy, bundle)
    return None


def unfit(trouble: Trouble, build: RunnerBuild, device: str) -> DeviceUnfit:
    """The error of a device on which no build of the runner starts."""
    return DeviceUnfit(
        f"{device}: the runner {build.name} ({build.libc or 'unknown C library'}) doesn't start:"
        f" {trouble.output}. Remedy: {trouble.remedy}",
        device=device,
        trouble=trouble.kind,
    )


def starting_build(
    build: RunnerBuild,
    bundled: Callable[[], RunnerBuild],
    hello: Callable[[RunnerBuild], Trouble | None],
    device: str,
) -> RunnerBuild:
    """Find out which build starts on a device: this one, or one with its own C library.

    Args:
        build: The first choice.
        bundled: Makes the other one.
        hello: Deploys a build and lets it introduce itself; says why it didn't.
        device: Name, for errors.

    Raises:
        DeviceUnfit: Neither starts; the message has the remedy.
    """
    trouble = hello(build)
    if trouble is None:
        return build
    log.info("%s: %s: %s", device, trouble.kind, trouble.output)
    other = bundled() if trouble.bundle_helps else build
    again = trouble if other.sha256 == build.sha256 else hello(other)
    if again is not None:
        raise unfit(again, other, device)
    return other


def start_once(
    link: Link,
    work: str,
    words: Sequence[str],
    env: Sequence[tuple[str, str]],
    store: ContentStore,
) -> Trouble | None:
    """Start a program in its work folder that only introduces itself.

    Returns:
        None when it did; else why not.

    Raises:
        RunnerCrashed: It failed for a reason without a known remedy.
        RunnerTimeout: It didn't end.
        DeviceLost: The device is gone.
    """
    device = link.helper.device
    try:
        link.helper.supervise(
            work,
            words,
            env=env,
            stale_s=link.limits.stale_s,
            max_output_bytes=MAX_OUTPUT_BYTES,
            lease=link.owner,
        )
    except RunnerCrashed as error:
        return _known(error, error.message, None)
    ended = follow(link, work, HELLO_S, lambda _line: None)
    if not ended.timed_out and ended.status.exit_code == 0:
        return None
    stderr, _ = fetch_logs(link, "hello", work, ended, store)
    if ended.timed_out:
        raise timed_out(HELLO_S, stderr, device)
    output = clean_text((stderr + b"\n" + ended.stdout)[-TAIL_BYTES:])
    return _known(read_failure(ended.status, stderr, device), output, ended.status.signal)


def _known(error: FarmError, text: str, signal: int | None) -> Trouble:
    trouble = diagnose(text, signal)
    if trouble is None:
        raise error
    return trouble
