"""Objects of the host's store to a device: only what is missing, resumed, verified there."""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Callable, Sequence

from farm.core.artifact import ObjectRef
from farm.core.errors import DeviceUnfit, FarmError, RunnerError, StorageFull, TransferError
from farm.core.lease import LeaseOwner
from farm.core.runner import DeployFile
from farm.core.runtime import Deployed, DeviceJob
from farm.site.device.helper import DeviceHelper
from farm.store.objects import ContentStore

log = logging.getLogger(__name__)

#: Left free on the device beyond what is pushed, bytes: logits, logs, the system itself.
MARGIN_BYTES = 64 << 20

#: Bytes done and total of one deployment.
Progress = Callable[[int, int], None]


def deploy(
    helper: DeviceHelper,
    files: Sequence[DeployFile],
    store: ContentStore,
    lease: LeaseOwner,
    *,
    free_bytes: int | None,
    progress: Progress,
) -> Deployed:
    """Make every object of `files` present and verified on the device.

    Args:
        helper: Helper of the device.
        files: What a work folder needs.
        store: Where the objects come from.
        lease: Our lease; no byte is written without it.
        free_bytes: Free storage of the device; None when unknown.
        progress: Called with bytes done and total, skipped ones excluded.

    Raises:
        DeviceUnfit: Even an otherwise empty store of the device would be too small.
        StorageFull: The device filled up while we pushed.
        TransferError: What arrived isn't what was sent, twice.
        TransportError: The connection broke; what arrived stays for the next attempt.
        StoreError: An object isn't in this host's store.
    """
    started = time.monotonic()
    objects = {file.object.sha256: file.object for file in files}
    executable = {file.object.sha256 for file in files if file.executable}
    total = sum(ref.size_bytes for ref in objects.values())
    present = helper.have(list(objects), size_bytes=total, lease=lease)
    wanted = [ref for sha, ref in objects.items() if present[sha].state != "ok"]
    parts = {ref.sha256: min(present[ref.sha256].part_bytes, ref.size_bytes) for ref in wanted}
    missing = sum(ref.size_bytes - parts[ref.sha256] for ref in wanted)
    if wanted:
        _make_room(helper, missing, list(objects), lease, free_bytes)
    pushed = 0
    progress(0, missing)
    for ref in wanted:
        base = pushed
        offset = parts[ref.sha256]

        def report(done: int, base: int = base, offset: int = offset) -> None:
            progress(base + done - offset, missing)

        _push(helper, ref, offset, store, lease, ref.sha256 in executable, report)
        pushed += ref.size_bytes - offset
        progress(pushed, missing)
    return Deployed(
        pushed_bytes=pushed,
        skipped_bytes=total - pushed,
        seconds=time.monotonic() - started,
    )


def total(parts: Sequence[Deployed]) -> Deployed:
    """Add up deployments of one job. What the second one found was pushed by the first."""
    pushed = sum(part.pushed_bytes for part in parts)
    last = parts[-1]
    return Deployed(
        pushed_bytes=pushed,
        skipped_bytes=max(0, last.pushed_bytes + last.skipped_bytes - pushed),
        seconds=sum(part.seconds for part in parts),
    )


def check_intact(helper: DeviceHelper, refs: Sequence[ObjectRef], lease: LeaseOwner) -> None:
    """Hash objects on the device whatever their stamps say.

    Raises:
        TransferError: One of them isn't what was deployed; the next attempt replaces it.
    """
    objects = {ref.sha256: ref for ref in refs}
    size = sum(ref.size_bytes for ref in objects.values())
    found = helper.have(list(objects), size_bytes=size, rehash=True, lease=lease)
    for sha, ref in objects.items():
        if found[sha].state != "ok":
            raise TransferError(
                f"{ref.name} on {helper.device} is not what was deployed (it is"
                f" {found[sha].state}): nothing measured with it counts",
                device=helper.device,
                sha256=sha,
            )


def damage_or(
    error: RunnerError, helper: DeviceHelper, refs: Sequence[ObjectRef], lease: LeaseOwner
) -> FarmError:
    """Tell damage of files on the device from a fault of the model, once a runner failed."""
    try:
        check_intact(helper, refs, lease)
    except TransferError as damage:
        return damage
    except FarmError as trouble:
        log.warning("%s: objects not checked again: %s", helper.device, trouble)
    return error


def _make_room(
    helper: DeviceHelper,
    missing: int,
    keep: Sequence[str],
    lease: LeaseOwner,
    free_bytes: int | None,
) -> None:
    need = missing + MARGIN_BYTES
    if free_bytes is not None and free_bytes >= need:
        return
    try:
        freed = helper.free_space(need, keep, lease)
    except StorageFull as error:
        reachable = error.context.get("reachable_bytes", free_bytes)
        raise DeviceUnfit(
            f"{helper.device} needs {gib(need)} of free storage in {helper.root}, has"
            f" {gib(reachable)}",
            device=helper.device,
            needed_bytes=need,
            free_bytes=reachable,
        ) from error
    log.info("%s: evicted %d bytes of unused objects", helper.device, freed)


def _push(
    helper: DeviceHelper,
    ref: ObjectRef,
    offset: int,
    store: ContentStore,
    lease: LeaseOwner,
    executable: bool,
    report: Callable[[int], None],
) -> None:
    source = store.path(ref)
    part = f"{helper.root}/objects/{ref.sha256}.part"
    try:
        if offset < ref.size_bytes or ref.size_bytes == 0:
            helper.transport.push(source, part, offset=offset, progress=report)
        helper.commit(ref.sha256, ref.size_bytes, executable=executable, lease=lease)
    except TransferError as error:
        # A part from an earlier break may itself be damaged: once more from the start.
        if offset == 0 or error.context.get("code") not in ("mismatch", "incomplete"):
            raise
        log.warning("%s: resumed %s was damaged, sending it whole", helper.device, ref.name)
        helper.transport.push(source, part, progress=report)
        helper.commit(ref.sha256, ref.size_bytes, executable=executable, lease=lease)


def gib(size_bytes: int | None) -> str:
    """Bytes for people: `1.9 GiB`, `12.3 MiB`, `unknown`."""
    if size_bytes is None:
        return "an unknown amount"
    if size_bytes >= 1 << 30:
        return f"{size_bytes / (1 << 30):.1f} GiB"
    return f"{size_bytes / (1 << 20):.1f} MiB"


def work_name(job: DeviceJob) -> str:
    """Name of the job's folder on the device: unique, and plain whatever the job is called."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", job.job_id).strip("-")[:60]
    mark = hashlib.sha256(f"{job.run_id}\0{job.job_id}".encode()).hexdigest()[:12]
    return f"{plain or 'job'}-{mark}-{job.attempt}-{job.epoch}"
