"""Whether a device can run a job at all, before a byte is pushed. Pure."""

from __future__ import annotations

from farm.core.device import DeviceEntry, DeviceFacts
from farm.core.errors import DeviceUnfit
from farm.core.runtime import DeviceJob
from farm.site.deploy import gib


def unmet_expectations(entry: DeviceEntry, facts: DeviceFacts) -> tuple[str, ...]:
    """Expectations of the inventory that don't hold: `os is Android 14, expected 15`.

    A version alone (`15`) is met by a name that ends in it (`Android 15`).
    """
    found = []
    for key, wanted in entry.expect:
        value = getattr(facts, key, None)
        text = "unknown" if value is None else str(value)
        if text != wanted and text.rpartition(" ")[2] != wanted:
            found.append(f"{key} is {text}, expected {wanted}")
    return tuple(found)


def check_fit(job: DeviceJob, entry: DeviceEntry, facts: DeviceFacts) -> None:
    """Refuse a job that the device can't run.

    Raises:
        DeviceUnfit: What it needs and what the device has.
    """
    unmet = unmet_expectations(entry, facts)
    if unmet:
        raise DeviceUnfit(f"{entry.name}: {'; '.join(unmet)}", device=entry.name)
    if facts.ram_bytes is not None and job.ram_need_bytes > facts.ram_bytes:
        raise DeviceUnfit(
            f"{entry.name} needs {gib(job.ram_need_bytes)} of RAM, has {gib(facts.ram_bytes)}",
            device=entry.name,
            needed_bytes=job.ram_need_bytes,
            available_bytes=facts.ram_bytes,
        )
