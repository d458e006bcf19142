"""C++ compilers by ABI: which one, its flags, and how it is run.

It doesn't know what is built. A missing or failing compiler becomes a RunnerError with a remedy.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from farm.core.abi import BUILT, Abi
from farm.core.errors import RunnerError, UnknownName

_COMPILE_TIMEOUT_S = 600
#: How often a build looks whether it was cancelled, seconds.
_TICK_S = 0.3
_KNOWN = ", ".join(sorted(BUILT))
_WARNINGS = (
    *("-std=c++17", "-Wall", "-Wextra", "-Werror", "-fvisibility=hidden"),
    # GCC and clang have pragmas and warnings that the other doesn't know.
    *("-Wno-unknown-pragmas", "-Wno-unknown-warning-option"),
)


@dataclass(frozen=True, slots=True)
class Compiler:
    """A C++ compiler for one ABI, ready to run."""

    command: tuple[str, ...]
    flags: tuple[str, ...]
    link_flags: tuple[str, ...]
    baseline: str
    identity: str
    """First line of `--version`, the target machine, and the flags that CXX brings along: part
    of every build's key."""

    def ask(self, *words: str) -> str:
        """One line that the compiler prints about itself, for example `-print-file-name=...`."""
        return _run([*self.command, *words]).strip()


def host_abi() -> str:
    """The ABI of this machine.

    Raises:
        UnknownName: farm builds nothing for this machine.
    """
    machine = platform.machine()
    for abi in BUILT.values():
        if abi.machine == machine:
            return abi.name
    raise UnknownName(
        f"farm has no native build for {machine}, only for {_KNOWN}: use another host.",
        known=sorted(BUILT),
    )


def cross_package(abi: Abi) -> str:
    """Debian package of the cross compiler for an ABI."""
    return f"g++-{abi.triple.replace('_', '-')}"


def cross_variable(abi: Abi) -> str:
    """Environment variable that names another cross compiler for an ABI."""
    return f"CXX_{abi.machine.upper()}"


def find_compiler(abi: str) -> Compiler:
    """The compiler for that ABI: $CXX or g++ for this machine's own, else a cross compiler.

    Raises:
        UnknownName: no such ABI.
        RunnerError: no such compiler is installed.
    """
    if abi not in BUILT:
        raise UnknownName(f"Unknown ABI {abi!r}; farm builds for {_KNOWN}.", known=sorted(BUILT))
    target = BUILT[abi]
    native = target.machine == platform.machine()
    variable = "CXX" if native else cross_variable(target)
    wanted = os.environ.get(variable) or ("g++" if native else f"{target.triple}-g++")
    package = "g++" if native else cross_package(target)
    command = tuple(shlex.split(wanted))
    if not command or shutil.which(command[0]) is None:
        raise RunnerError(
            f"No C++17 compiler for {abi}: `{wanted}` is not on the PATH. Install one "
            f"(Debian and Ubuntu: `apt install {package}`; Fedora: `dnf install gcc-c++`; macOS "
            f"has none for this target), or set {variable} to your own.",
            abi=abi,
        )
    return describe(command, abi)


@lru_cache(maxsize=8)
def describe(command: tuple[str, ...], abi: str) -> Compiler:
    """Ask a compiler for its version and target, and add the flags of an ABI.

    Raises:
        RunnerError: It can't be run.
    """
    target = BUILT[abi]
    pages = target.large_page_kib << 10
    version = _run([*command, "--version"]).splitlines()[0]
    machine = _run([*command, "-dumpmachine"]).strip()
    return Compiler(
        command=command,
        flags=(*_WARNINGS, f"-march={target.baseline}"),
        # Android 15 refuses segments aligned to less than 16 KiB.
        link_flags=(f"-Wl,-z,max-page-size={pages}",) if pages else (),
        baseline=target.baseline,
        identity=" ".join((version, machine, *command[1:])),
    )


def compile_objects(
    compiler: Compiler,
    sources: Sequence[Path],
    flags: Sequence[str],
    folder: Path,
    tick: Callable[[], None] = lambda: None,
) -> list[Path]:
    """Compiles each source into an object of that folder, two at a time.

    Args:
        compiler: What compiles.
        sources: C++ files.
        flags: Flags beside the compiler's own.
        folder: Where the objects go.
        tick: Called a few times a second; an exception from it ends every compiler at once.

    Raises:
        RunnerError: the compiler refused one; the message holds the end of its output.
    """
    running = _Processes()

    def one(source: Path) -> Path:
        target = folder / f"{source.parent.name}-{source.stem}.o"
        words = [*compiler.command, *compiler.flags, *flags, "-c", str(source), "-o", str(target)]
        _run(words, running)
        return target

    with ThreadPoolExecutor(max_workers=2) as pool:
        jobs = [pool.submit(one, source) for source in sources]
        try:
            while wait(jobs, timeout=_TICK_S, return_when=FIRST_EXCEPTION).not_done:
                if any(job.done() and job.exception() is not None for job in jobs):
                    break
                tick()
            return [job.result() for job in jobs]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            running.kill()
            raise


def link(compiler: Compiler, objects: Sequence[Path], flags: Sequence[str], target: Path) -> None:
    """Links a program or, with `-shared` among the flags, a library.

    Raises:
        RunnerError: the linker refused.
    """
    words = [*compiler.command, *compiler.flags, *compiler.link_flags]
    _run([*words, *map(str, objects), *flags, "-o", str(target)])


class _Processes:
    """Compilers that run now, each in a group of its own, so that all can be ended."""

    def __init__(self) -> None:
        # Protects both: compilers start on pool threads, kill() comes from the caller's.
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._killed = False

    @contextlib.contextmanager
    def start(self, words: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
        """Start one; it is forgotten, and gone, when the block ends."""
        with self._lock:
            if self._killed:
                raise RunnerError("The build was cancelled.")
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            self._running.add(process)
        with process:
            try:
                yield process
            finally:
                _kill_group(process)
                with self._lock:
                    self._running.discard(process)

    def kill(self) -> None:
        """End all of them, and let no other start."""
        with self._lock:
            self._killed = True
            for process in self._running:
                _kill_group(process)


def _kill_group(process: subprocess.Popen[str]) -> None:
    """End a compiler with its parts; nothing happens once it was waited for."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _run(words: Sequence[str], running: _Processes | None = None) -> str:
    try:
        with (running or _Processes()).start(words) as process:
            stdout, stderr = process.communicate(timeout=_COMPILE_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RunnerError(
            f"The compiler {words[0]} can't be run: {error}. Check CXX, or install another one."
        ) from error
    if process.returncode != 0:
        tail = stderr.strip()[-2000:]
        raise RunnerError(
            f"{words[0]} failed with exit code {process.returncode}: {tail or 'no output'}"
        )
    return stdout
