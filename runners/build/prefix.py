"""An install tree of ExecuTorch: its version, what is linked of it, and what goes to a device.

Somebody built it, for Android or for Linux. Nothing here builds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from farm.core.errors import RunnerError
from runners.build.compiler import Compiler

#: Archives whose static constructors register kernels and backends: linked whole.
_WHOLE = (
    *("xnnpack_backend", "optimized_native_cpu_ops_lib", "quantized_ops_lib"),
    *("executorch_backend_xnnpack", "executorch_kernels_optimized", "executorch_kernels_quantized"),
    "custom_ops",
)
#: Archives that register what another one registers already.
_LEFT_OUT = re.compile(r"portable_ops_lib|optimized_ops_lib|_aot_|selective|_jni|etdump")
#: llama::custom_sdpa and its like. Registered twice they would end the process.
_CUSTOM_OPS = "custom_ops"
#: What the CMake package of an ExecuTorch calls its version, the exact one first.
_VERSIONS = ("EXECUTORCH_BUILD_VERSION", "PACKAGE_VERSION")


@dataclass(frozen=True, slots=True)
class Prefix:
    """An install tree and the compiler it was built with."""

    folder: Path
    """Has `include/executorch` and `lib`."""
    compiler: Compiler
    how: str
    """For reports."""
    version: str
    """As it calls itself, with the state of its checkout; empty when it doesn't tell."""
    android: bool = False

    @property
    def custom_ops(self) -> bool:
        """Whether it has attention and cache updates of its own."""
        files = (*self.shared(), *self.archives())
        return any(_CUSTOM_OPS in path.stem for path in files)

    def shared(self, *, custom_ops: bool = True) -> list[Path]:
        """Shared libraries that go to the device."""
        return self._libraries("*.so", custom_ops=custom_ops)

    def archives(self, *, custom_ops: bool = True) -> list[Path]:
        """Static libraries that are linked in."""
        return self._libraries("*.a", custom_ops=custom_ops)

    def _libraries(self, pattern: str, *, custom_ops: bool) -> list[Path]:
        return [
            path
            for path in sorted((self.folder / "lib").glob(pattern))
            if not _LEFT_OUT.search(path.stem) and (custom_ops or _CUSTOM_OPS not in path.stem)
        ]

    def link_flags(self, *, custom_ops: bool = True) -> list[str]:
        """Words for the linker, in order."""
        archives = self.archives(custom_ops=custom_ops)
        names = {path: path.stem.removeprefix("lib") for path in archives}
        whole = [str(path) for path, name in names.items() if name in _WHOLE]
        rest = [str(path) for path, name in names.items() if name not in _WHOLE]
        return [
            *("-Wl,--whole-archive", *whole, "-Wl,--no-whole-archive"),
            *("-Wl,--start-group", *rest, "-Wl,--end-group"),
            # They register themselves when loaded: nothing in our objects refers to them.
            *("-Wl,--no-as-needed", *(str(path) for path in self.shared(custom_ops=custom_ops))),
            *(("-static-libstdc++", "-llog") if self.android else ("-pthread", "-ldl")),
        ]


def checked_prefix(folder: Path, named_by: str) -> Path:
    """Return an install tree's folder.

    Raises:
        RunnerError: It is none; says what is missing, and who named it.
    """
    if not (folder / "include" / "executorch").is_dir():
        raise RunnerError(f"{named_by}: {folder} has no include/executorch; it is no install tree.")
    if not list((folder / "lib").glob("libexecutorch*")):
        raise RunnerError(f"{named_by}: {folder}/lib has no libexecutorch.")
    return folder


def installed_version(folder: Path) -> str:
    """The version that an install tree's CMake package names; empty when it names none."""
    found: dict[str, str] = {}
    for file in sorted(folder.glob("**/executorch-config-version.cmake")):
        text = file.read_text(errors="replace")
        found |= dict(re.findall(r'set\((\w+)\s+"([^"]+)"\)', text))
    return next((found[name] for name in _VERSIONS if name in found), "")
