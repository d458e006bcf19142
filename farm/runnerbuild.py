"""`farm runners`: what native runners there are, and building one ahead of its first use."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path

import runners
from farm.core.device import DeviceFacts
from farm.core.errors import UnknownName
from farm.core.runtime import RunnerBuild

#: What this machine calls itself, in Android's terms.
_ABIS = {"x86_64": "x86_64", "AMD64": "x86_64", "aarch64": "arm64-v8a", "arm64": "arm64-v8a"}
_KNOWN = ("x86_64", "arm64-v8a")


def build(abi: str, home: Path, say: Callable[[str], None]) -> RunnerBuild:
    """Build the native runner for an ABI, unless it is there already.

    Raises:
        UnknownName: Nobody builds for that ABI.
        RunnerError: It failed; says what is missing and how to get it.
    """
    wanted = abi or _ABIS.get(platform.machine(), platform.machine())
    if wanted not in _KNOWN:
        raise UnknownName(
            f"no runner for ABI {wanted!r}; there are {', '.join(_KNOWN)}", known=_KNOWN
        )
    facts = DeviceFacts(identity="build", abi=wanted, libc="glibc", system_loader=True)
    return runners.find("executorch").build(wanted, facts, home, "", say)


def listing() -> list[tuple[str, str]]:
    """Return each runner and the ABIs it exists for."""
    return [(name, ", ".join(_KNOWN)) for name in runners.RUNNERS.names()]
