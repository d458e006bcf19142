"""Whether an instruction set is emulated, and whether the machine is a virtual one.

Emulation makes speed meaningless; a virtual machine on its own hardware's instruction set is
only noted.
"""

from __future__ import annotations

from collections.abc import Mapping

from farm.core.abi import family_of_abi
from farm.site.parsers.cpu import CpuInfo

_HYPERVISORS: tuple[str, ...] = (
    *("qemu", "kvm", "vmware", "virtualbox", "xen", "amazon ec2", "bochs", "parallels"),
    *("google compute engine", "hyper-v", "virtual machine", "dummy-virt", "firecracker"),
)


def emulated(abi: str, info: CpuInfo) -> bool:
    """Tell whether the instruction set is emulated.

    Args:
        abi: What the userland is.
        info: /proc/cpuinfo. qemu-user passes the host's through, which is of another family.
    """
    family = family_of_abi(abi)
    if info.family is not None and family is not None and info.family != family:
        return True
    for core in info.cores:
        if "TCG" in core.model or core.model.startswith("QEMU Virtual CPU"):
            return True
        # QEMU's `max` model: no maker has implementer 0 with this part.
        if core.implementer == 0 and core.part in (0x000, 0x051):
            return True
    return False


def virtualised(info: CpuInfo, names: Mapping[str, str], properties: Mapping[str, str]) -> bool:
    """Tell whether this is a virtual machine.

    Args:
        info: /proc/cpuinfo.
        names: Names of the hardware: DMI vendor and product, device tree model.
        properties: Android's properties; empty elsewhere.
    """
    if any("hypervisor" in core.flags for core in info.cores):
        return True
    if properties.get("ro.kernel.qemu") == "1" or properties.get("ro.boot.qemu") == "1":
        return True
    text = " ".join(names.values()).lower()
    return any(word in text for word in _HYPERVISORS)
