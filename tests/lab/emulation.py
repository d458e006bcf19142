"""Running arm64 programs on this machine: qemu-user through the kernel's binfmt_misc."""

from __future__ import annotations

from pathlib import Path

from tests.lab.host import LabError, sh

_BINFMT = Path("/proc/sys/fs/binfmt_misc")
_NAME = "farm-lab-aarch64"
#: Under this name the emulator takes the program's own argv[0], which busybox lives by.
_EMULATOR = Path("/usr/libexec/qemu-binfmt/aarch64-binfmt-P")
_MAGIC = "7f454c460201010000000000000000000200b700"
_MASK = "ffffffffffffff00fffffffffffffffffeffffff"


def enable_arm64() -> None:
    """Let the kernel start arm64 programs, in any root: the registration holds the emulator open.

    It stays after the tests, as an installed qemu-user-static would leave it.

    Raises:
        LabError: The kernel has no binfmt_misc.
    """
    if not (_BINFMT / "register").exists():
        sh("mount", "-t", "binfmt_misc", "binfmt_misc", _BINFMT)
    if any(_serves(path) for path in _BINFMT.iterdir() if path.name not in ("register", "status")):
        return
    if not _EMULATOR.exists():
        raise LabError(f"{_EMULATOR} is missing: run tests/lab/install.sh")
    rule = f":{_NAME}:M::{_escaped(_MAGIC)}:{_escaped(_MASK)}:{_EMULATOR}:OPF"
    (_BINFMT / "register").write_text(rule)


def _serves(path: Path) -> bool:
    text = path.read_text()
    flags = next((line for line in text.splitlines() if line.startswith("flags:")), "")
    return text.startswith("enabled") and f"magic {_MAGIC}" in text and {"P", "F"} <= set(flags[6:])


def _escaped(digits: str) -> str:
    return "".join(f"\\x{digits[at : at + 2]}" for at in range(0, len(digits), 2))
