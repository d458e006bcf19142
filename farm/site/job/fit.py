"""Whether a device can run a job at all, before a byte is pushed. Pure."""

from __future__ import annotations

from farm.core.device import DeviceEntry, DeviceFacts, unmet_expectations
from farm.core.errors import DeviceUnfit
from farm.core.runtime import DeviceJob
from farm.site.device.deploy import gib


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
