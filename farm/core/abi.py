"""The ABIs that farm knows, in one table: their names elsewhere and what builds for them need.

The key is Android's name of the ABI. Every other module reads this table and keeps none of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Abi:
    """One ABI. The fields with defaults are for those that farm builds programs for."""

    #: Android's name.
    name: str
    #: Instruction-set family, as /proc/cpuinfo shows it: `x86`, `arm` or `riscv`.
    family: str
    #: What `uname -m` prints, in lower case; the first is also the compilers' name of the machine.
    machines: tuple[str, ...]
    #: `e_machine` of an ELF file.
    elf_machine: int
    #: `-march` of what every such device can run; empty: farm builds nothing for this ABI.
    baseline: str = ""
    #: Path of the loader that a glibc program names.
    glibc_loader: str = ""
    #: Pages of some of these devices, KiB, where they are large: segments must be aligned to them.
    large_page_kib: int = 0

    @property
    def machine(self) -> str:
        """The compilers' name of the machine."""
        return self.machines[0]

    @property
    def triple(self) -> str:
        """The GNU triple, as Debian names folders and cross compilers."""
        return f"{self.machine}-linux-gnu"


# A machine that emulates another instruction set behind the scenes runs arm64 programs on x86-64,
# rarely the other way round: where a device's ABI is unknown, x86-64 is tried first.
_TABLE = (
    Abi("x86_64", "x86", ("x86_64", "amd64"), 62, "x86-64-v2", "/lib64/ld-linux-x86-64.so.2"),
    Abi("arm64-v8a", "arm", ("aarch64", "arm64"), 183, "armv8-a", "/lib/ld-linux-aarch64.so.1", 16),
    Abi("armeabi-v7a", "arm", ("armv7l", "armv8l"), 40),
    Abi("x86", "x86", ("i686", "i586"), 3),
    Abi("riscv64", "riscv", ("riscv64",), 243),
)

#: Every ABI, by Android's name.
ABIS: Mapping[str, Abi] = {abi.name: abi for abi in _TABLE}
#: The ABIs that farm builds runner and helper for, in the order in which they are tried.
BUILT: Mapping[str, Abi] = {abi.name: abi for abi in _TABLE if abi.baseline}


def abi_of_machine(machine: str) -> str | None:
    """Android's name of the ABI for `uname -m`; None for an unknown machine."""
    return next((abi.name for abi in _TABLE if machine.strip().lower() in abi.machines), None)


def abi_of_elf(machine: int) -> Abi | None:
    """The ABI of an ELF file by its `e_machine`; None for an unknown one."""
    return next((abi for abi in _TABLE if abi.elf_machine == machine), None)


def family_of_abi(name: str) -> str | None:
    """Instruction-set family of an ABI; None for an unknown name."""
    return ABIS[name].family if name in ABIS else None
