"""Processors: /proc/cpuinfo, clusters of alike cores, features that kernels choose by."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from farm.core.device import CoreCluster
from farm.site.parsers.system import clean_name
from farm.site.parsers.text import whole_lines, whole_number

#: Largest number of a core that is believed.
_MOST_CORES = 4095

#: Kernel's flag to the name that this project uses. Only what kernels choose by.
_FEATURES = {
    "asimd": "neon",
    "neon": "neon",
    "asimddp": "dotprod",
    "asimdhp": "fp16",
    "i8mm": "i8mm",
    "bf16": "bf16",
    "sve": "sve",
    "sve2": "sve2",
    "sme": "sme",
    "sme2": "sme2",
    "ssse3": "ssse3",
    "sse4_2": "sse4.2",
    "sse4.2": "sse4.2",
    "avx512vnni": "avx512_vnni",
    "avx": "avx",
    "avx2": "avx2",
    "f16c": "f16c",
    "fma": "fma",
    "avx_vnni": "avx_vnni",
    "avx512f": "avx512f",
    "avx512bw": "avx512bw",
    "avx512vl": "avx512vl",
    "avx512_vnni": "avx512_vnni",
    "avx512_bf16": "avx512_bf16",
    "amx_int8": "amx_int8",
    "v": "rvv",
}

#: (implementer, part): the same part number means another core of another maker.
_ARM_CORES = {
    (0x41, 0xC07): "Cortex-A7",
    (0x41, 0xC09): "Cortex-A9",
    (0x41, 0xC0D): "Cortex-A17",
    (0x41, 0xC0F): "Cortex-A15",
    (0x41, 0xD02): "Cortex-A34",
    (0x41, 0xD03): "Cortex-A53",
    (0x41, 0xD04): "Cortex-A35",
    (0x41, 0xD05): "Cortex-A55",
    (0x41, 0xD07): "Cortex-A57",
    (0x41, 0xD08): "Cortex-A72",
    (0x41, 0xD09): "Cortex-A73",
    (0x41, 0xD0A): "Cortex-A75",
    (0x41, 0xD0B): "Cortex-A76",
    (0x41, 0xD0C): "Neoverse-N1",
    (0x41, 0xD0D): "Cortex-A77",
    (0x41, 0xD40): "Neoverse-V1",
    (0x41, 0xD41): "Cortex-A78",
    (0x41, 0xD42): "Cortex-A78AE",
    (0x41, 0xD44): "Cortex-X1",
    (0x41, 0xD46): "Cortex-A510",
    (0x41, 0xD47): "Cortex-A710",
    (0x41, 0xD48): "Cortex-X2",
    (0x41, 0xD49): "Neoverse-N2",
    (0x41, 0xD4B): "Cortex-A78C",
    (0x41, 0xD4C): "Cortex-X1C",
    (0x41, 0xD4D): "Cortex-A715",
    (0x41, 0xD4E): "Cortex-X3",
    (0x41, 0xD4F): "Neoverse-V2",
    (0x41, 0xD80): "Cortex-A520",
    (0x41, 0xD81): "Cortex-A720",
    (0x41, 0xD82): "Cortex-X4",
    (0x41, 0xD85): "Cortex-X925",
    (0x41, 0xD84): "Neoverse-V3",
    (0x41, 0xD87): "Cortex-A725",
    (0x41, 0xD8A): "C1-Nano",
    (0x41, 0xD8B): "C1-Pro",
    (0x41, 0xD8C): "C1-Ultra",
    (0x41, 0xD8E): "Neoverse-N3",
    (0x41, 0xD8F): "Cortex-A320",
    (0x41, 0xD90): "C1-Premium",
    (0x48, 0xD01): "TaiShan-v110",
    (0x48, 0xD02): "TaiShan-v120",
    # Kirin 980 and 990 give Arm's cores their own maker's number.
    (0x48, 0xD40): "Cortex-A76",
    (0x48, 0xD41): "Cortex-A77",
    (0x4E, 0x003): "Denver 2",
    (0x4E, 0x004): "Carmel",
    (0x51, 0x001): "Oryon",
    (0x51, 0x800): "Kryo Gold",
    (0x51, 0x801): "Kryo Silver",
    (0x51, 0x802): "Kryo Gold",
    (0x51, 0x803): "Kryo Silver",
    (0x51, 0x804): "Kryo Gold",
    (0x51, 0x805): "Kryo Silver",
    (0x53, 0x002): "Exynos-M3",
    (0x53, 0x003): "Exynos-M4",
    (0x53, 0x004): "Exynos-M5",
}

_PROCESSOR = re.compile(r"^processor[ \t]*:(.*)$", re.MULTILINE)
#: Makers of Arm cores, for cores that have no name above.
_MAKERS = {0x41: "Arm", 0x48: "HiSilicon", 0x4E: "NVIDIA", 0x51: "Qualcomm", 0x53: "Samsung"}
_MAKERS |= {0x42: "Broadcom", 0x61: "Apple", 0xC0: "Ampere"}


@dataclass(frozen=True, slots=True)
class Core:
    """One block of /proc/cpuinfo."""

    index: int
    #: Arm only.
    implementer: int | None = None
    part: int | None = None
    variant: int | None = None
    #: `model name`, or `uarch`; empty where it names an architecture alone.
    model: str = ""
    flags: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """Name for people, as exact as the text allows."""
        if self.implementer is None or self.part is None:
            return self.model
        known = _ARM_CORES.get((self.implementer, self.part))
        maker = _MAKERS.get(self.implementer)
        return known or (
            f"{maker} 0x{self.part:03x}" if maker else f"0x{self.implementer:02x}/0x{self.part:03x}"
        )


@dataclass(frozen=True, slots=True)
class CpuInfo:
    """The whole of /proc/cpuinfo."""

    cores: tuple[Core, ...]
    #: `Hardware` and `Model` of the footer, where there is one.
    hardware: str | None
    board: str | None
    #: `x86`, `arm`, `riscv` by the keys used; None when there are none.
    family: str | None


def parse_cpuinfo(text: str) -> CpuInfo:
    """Read /proc/cpuinfo. Keys are matched with their case: old kernels have `Processor` too."""
    cores: list[Core] = []
    footer: dict[str, str] = {}
    family: str | None = None
    shared = frozenset[str]()
    for block in re.split(r"\n[ \t]*\n", whole_lines(text.replace("\r\n", "\n"))):
        values: dict[str, str] = {}
        for line in block.splitlines():
            key, colon, value = line.partition(":")
            if colon:
                values.setdefault(key.strip(), value.strip())
        # The footer may follow the last block without an empty line.
        footer |= {key: values[key] for key in ("Hardware", "Model") if key in values}
        found = [whole_number(text, _MOST_CORES) for text in _PROCESSOR.findall(block)]
        family = family or _family(values)
        if len(found) != 1:
            # Kernels before 3.16 say once what the core that was asked is. Others may be another.
            values.pop("CPU part", None)
            shared |= _core(0, values).flags
        cores += [_core(index, values) for index in found if index is not None]
    cores = [core if core.flags else replace(core, flags=shared) for core in cores]
    return CpuInfo(tuple(cores), footer.get("Hardware"), footer.get("Model"), family)


def features(info: CpuInfo) -> tuple[str, ...]:
    """Features that every listed core has, by this project's names, sorted."""
    listed = [core.flags for core in info.cores if core.flags]
    common = frozenset.intersection(*listed) if listed else frozenset[str]()
    return named_features(common)


def named_features(flags: Iterable[str]) -> tuple[str, ...]:
    """Kernel's flags by this project's names, sorted; what kernels don't choose by is left out."""
    return tuple(sorted({_FEATURES[flag] for flag in flags if flag in _FEATURES}))


def clusters(
    online: Sequence[int],
    info: CpuInfo,
    max_khz: Mapping[int, int],
    capacity: Mapping[int, int],
) -> tuple[CoreCluster, ...]:
    """Group cores of one kind, slowest first.

    Part numbers alone don't split all chips, nor do clocks alone: a group shares all of
    maximum clock, capacity, implementer, part and variant.
    """
    known = {core.index: core for core in info.cores}
    groups: dict[tuple[object, ...], list[int]] = {}
    for index in online:
        core = known.get(index, Core(index))
        key = (max_khz.get(index), capacity.get(index), core.name, core.variant)
        groups.setdefault(key, []).append(index)
    made = [
        CoreCluster(
            cores=tuple(cores),
            max_khz=max_khz.get(cores[0]),
            capacity=capacity.get(cores[0]),
            name=known.get(cores[0], Core(cores[0])).name,
        )
        for cores in groups.values()
    ]
    return tuple(sorted(made, key=lambda c: (c.capacity or 0, c.max_khz or 0, c.cores)))


def parse_cpu_list(text: str) -> tuple[int, ...] | None:
    """Read a kernel list like `0-3,7`; an empty list is (), anything else None."""
    found: list[int] = []
    for part in filter(None, text.strip().split(",")):
        match = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", part)
        if match is None:
            return None
        first, last = int(match[1]), int(match[2] or match[1])
        found += range(first, last + 1)
    return tuple(found)


def _core(index: int, values: Mapping[str, str]) -> Core:
    flags = values.get("flags") or values.get("Features") or values.get("isa", "")
    model = clean_name(values.get("model name") or values.get("uarch", "")) or ""
    return Core(
        index,
        implementer=_hex(values.get("CPU implementer")),
        part=_hex(values.get("CPU part")),
        variant=_hex(values.get("CPU variant")),
        # For Arm cores the kernel gives the architecture as the model.
        model="" if model.startswith(("ARMv", "AArch64")) else model,
        flags=frozenset(flags.split()),
    )


def _family(values: Mapping[str, str]) -> str | None:
    if "vendor_id" in values or "cpu family" in values:
        return "x86"
    if "CPU implementer" in values or "Features" in values:
        return "arm"
    if "isa" in values or "hart" in values:
        return "riscv"
    return None


def _hex(text: str | None) -> int | None:
    if text is None or not re.fullmatch(r"(0x)?[0-9a-fA-F]{1,8}", text):
        return None
    return int(text, 16)
