"""The C++ SDK of ExecuTorch: where it is, for which machine, and which of its libraries we ship.

From ExecuTorch 1.5.0 on it is inside the Python wheel. Nothing here imports executorch.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from farm.core.abi import BUILT
from farm.core.artifact import Sdk
from farm.core.errors import RunnerError
from farm.files import locked
from runners.build.compiler import Compiler
from runners.build.elf import elf_machine

_LIBRARIES = (
    "libexecutorch.so",
    "libexecutorch_backend_xnnpack.so",
    "libexecutorch_kernels_optimized.so",
    "libexecutorch_kernels_quantized.so",
    "libexecutorch_threadpool.so",
)
_ETDUMP = "libexecutorch_etdump.so"
_LIBC_BUNDLE = (
    "libc.so.6",
    "libm.so.6",
    "libdl.so.2",
    "libpthread.so.0",
    "librt.so.1",
    "libstdc++.so.6",
    "libgcc_s.so.1",
)
_DOWNLOAD_TIMEOUT_S = 900
_FIRST_WITH_SDK = (1, 5)


def installed_sdk() -> Path:
    """The `executorch` package of this Python environment.

    Raises:
        RunnerError: it isn't installed here.
    """
    spec = importlib.util.find_spec("executorch")
    places = list(spec.submodule_search_locations or []) if spec is not None else []
    if not places:
        raise RunnerError(
            "ExecuTorch is not installed in this environment; run `pip install executorch` or "
            "name another toolchain."
        )
    return Path(places[0])


@dataclass(frozen=True, slots=True)
class Chosen:
    """The SDK to build with."""

    folder: Path
    #: Why it isn't the one that was asked for; empty when it is.
    note: str = ""


def choose_sdk(
    abi: str, wanted: Sdk, environments: Path, cache: Path, progress: Callable[[str], None]
) -> Chosen:
    """Find the C++ SDK of a toolchain; farm's own stands in for one that has none.

    The runtime reads the programs of older exporters, so a stand-in runs them, and says so.

    Args:
        abi: Android's name of the ABI, where the SDK has to be downloaded.
        wanted: The toolchain's ExecuTorch.
        environments: Folder of toolchain environments on this host.
        cache: Folder of downloaded SDKs.
        progress: Called with one short line per step.

    Raises:
        RunnerError: Its wheel should have one, and can't be downloaded.
    """
    own = installed_sdk()
    if not wanted.version:
        return Chosen(own)
    place = f"{wanted.environment or '-'}/lib/python*/site-packages/executorch"
    for folder in environments.glob(place):
        if _missing_libraries(folder):
            return _stand_in(own, sdk_version(folder))
        return Chosen(folder)
    if wanted.version.partition("+")[0] == sdk_version(own):
        return Chosen(own)
    numbers = re.match(r"(\d+)\.(\d+)", wanted.version)
    if numbers is not None and (int(numbers[1]), int(numbers[2])) < _FIRST_WITH_SDK:
        return _stand_in(own, wanted.version)
    return Chosen(_downloaded(wanted.version, BUILT[abi].machine, cache, progress))


def _stand_in(own: Path, version: str) -> Chosen:
    note = (
        f"the wheel of ExecuTorch {version} has no C++ SDK to build a runner with, so the artifact"
        f" ran on the runtime of {sdk_version(own)}"
    )
    return Chosen(own, note)


def sdk_version(sdk: Path) -> str:
    """The public version of that ExecuTorch, for example `1.5.1`.

    Raises:
        RunnerError: the folder is no executorch package.
    """
    try:
        text = (sdk / "version.py").read_text()
    except OSError as error:
        raise RunnerError(
            f"{sdk} is no executorch package: {error}. Install it anew, or name another toolchain."
        ) from error
    found = re.search(r"__version__\s*=\s*[\"']([^\"'+]+)", text)
    if found is None:
        raise RunnerError(f"{sdk / 'version.py'} names no version. Install that ExecuTorch anew.")
    return found.group(1)


def shipped_libraries(sdk: Path, *, profile: bool = False) -> list[Path]:
    """The libraries that farm-runner links and that go to the device with it.

    Args:
        sdk: an `executorch` package.
        profile: with the one that writes ETDumps.

    Raises:
        RunnerError: this ExecuTorch has no C++ SDK.
    """
    names = (*_LIBRARIES, _ETDUMP) if profile else _LIBRARIES
    missing = _missing_libraries(sdk, names)
    if missing:
        raise RunnerError(
            f"ExecuTorch {sdk_version(sdk)} has no C++ SDK ({', '.join(missing)} missing in "
            f"{sdk / 'lib'}); wheels have one from 1.5.0 on. Use a newer toolchain."
        )
    return [sdk / "lib" / name for name in names]


def _missing_libraries(sdk: Path, names: Sequence[str] = _LIBRARIES) -> list[str]:
    return [name for name in names if not (sdk / "lib" / name).is_file()]


def sdk_for(abi: str, sdk_root: Path, cache: Path, progress: Callable[[str], None]) -> Path:
    """The SDK of the same version for that ABI: the given one, or the wheel of the other machine.

    Raises:
        RunnerError: no SDK in the given one, or the wheel can't be downloaded.
    """
    machine = BUILT[abi].machine
    if elf_machine(shipped_libraries(sdk_root)[0]) == machine:
        return sdk_root
    return _downloaded(sdk_version(sdk_root), machine, cache, progress)


def _downloaded(version: str, machine: str, cache: Path, progress: Callable[[str], None]) -> Path:
    """Provide the SDK of a released version for a machine."""
    home = cache / "sdk" / f"executorch-{version}-{machine}"
    if (home / "executorch" / "version.py").is_file():
        return home / "executorch"
    home.parent.mkdir(parents=True, exist_ok=True)
    # One download per version and machine: a process that waited finds it unpacked.
    with locked(home.with_suffix(".lock")):
        if not (home / "executorch" / "version.py").is_file():
            progress(f"downloading ExecuTorch {version} for {machine}")
            _unpack_wheel(version, machine, home)
    return home / "executorch"


def bundle_libraries(compiler: Compiler, loader: str) -> list[Path]:
    """Loader and C library of the compiler's own system, for devices that have none.

    Raises:
        RunnerError: the compiler doesn't know where one of them is.
    """
    found = []
    for name in (loader, *_LIBC_BUNDLE):
        path = Path(compiler.ask(f"-print-file-name={name}"))
        if not path.is_absolute():
            raise RunnerError(f"{compiler.command[0]} has no {name}, so no libc can be bundled.")
        found.append(Path(path.parent.resolve() / path.name))
    return found


def _unpack_wheel(version: str, machine: str, home: Path) -> None:
    scratch = Path(tempfile.mkdtemp(prefix=".wheel-", dir=home.parent))
    words = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-deps"]
    words += ["--only-binary=:all:", "--platform", f"manylinux_2_28_{machine}", "--dest"]
    try:
        done = subprocess.run(
            [*words, str(scratch), f"executorch=={version}"],
            capture_output=True,
            text=True,
            timeout=_DOWNLOAD_TIMEOUT_S,
            check=False,
        )
        wheels = list(scratch.glob("*.whl"))
        if done.returncode != 0 or not wheels:
            raise RunnerError(
                f"ExecuTorch {version} for {machine} can't be downloaded, so no runner can be "
                f"built for it: {done.stderr.strip()[-600:]}"
            )
        unpacked = scratch / "unpacked"
        with zipfile.ZipFile(wheels[0]) as wheel:
            wanted = [
                name
                for name in wheel.namelist()
                if name.startswith(("executorch/include/", "executorch/lib/"))
                or name == "executorch/version.py"
            ]
            wheel.extractall(unpacked, wanted)
        shutil.rmtree(home, ignore_errors=True)
        unpacked.rename(home)
    except (OSError, subprocess.TimeoutExpired, zipfile.BadZipFile) as error:
        raise RunnerError(
            f"ExecuTorch {version} for {machine} can't be fetched: {error}."
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
