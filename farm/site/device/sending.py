"""Brings a job's files to its device, through broken connections, and its runner to the store."""

from __future__ import annotations

import time
from collections.abc import Callable

from farm.clock import Deadline
from farm.core.device import DeviceFacts
from farm.core.errors import TransferError
from farm.core.lease import LeaseOwner
from farm.core.runner import BuildVariant, DeployFile, RunnerBuild
from farm.core.runtime import Deployed, DeviceJob
from farm.protocols import Runner
from farm.site.context import SiteContext
from farm.site.device import deploy
from farm.site.device.supervised import Link, persevere
from farm.store.actions import ActionCache, runner_key
from farm.store.objects import ContentStore


def provide_runner(
    runner: Runner,
    facts: DeviceFacts,
    job: DeviceJob,
    context: SiteContext,
    step: Callable[[str], None],
    variant: BuildVariant,
) -> RunnerBuild:
    """Build the runner for a device, keep its files, and remember it by its hash.

    Raises:
        DeviceUnfit, RunnerError: As `Runner.build`.
        StoreError: The files can't be kept.
    """
    build = runner.build(facts.abi, facts, context.home, job.sdk, step, variant)
    missing = [f.object for f in build.files if not context.store.has(f.object.sha256)]
    if missing:
        places = runner.files(build)
        for ref in missing:
            context.store.put_file(places[ref.sha256], ref.name, sha256=ref.sha256)
    ActionCache(context.store).record(runner_key(build.sha256), build)
    return build


def send(
    link: Link,
    files: tuple[DeployFile, ...],
    store: ContentStore,
    lease: LeaseOwner,
    *,
    free_bytes: int | None,
    tell: Callable[[int, int], None],
    deadline: Deadline,
) -> Deployed:
    """Make every object of `files` present and verified on the device.

    Args:
        link: The job's connection.
        files: What a work folder needs.
        store: Where the objects come from.
        lease: Our lease; the link renews it while a long push blocks the connection.
        free_bytes: Free storage of the device; None when unknown.
        tell: Called with bytes done and total, skipped ones excluded.
        deadline: Of the job. A link that trickles stalls never, and would hold the device.

    Raises:
        TransferError: The job's time was over; what arrived is there for the next attempt.
        FarmError: As farm.site.device.deploy.deploy; DeviceLost when the device doesn't come back.
    """
    missing: int | None = None
    moved_at = 0.0

    def progress(done: int, total: int) -> None:
        nonlocal missing, moved_at
        missing = total if missing is None else missing
        moved_at = time.monotonic() if done else moved_at
        tell(done, total)
        if deadline.passed:
            raise TransferError(
                f"{link.helper.device}: the job's time of {deadline.seconds:.0f} s was over after"
                f" {done} of {total} bytes",
                device=link.helper.device,
            )
        link.beat_aside()

    started = time.monotonic()
    # What arrived before a break is a `.part` on the device: a repeat sends only the rest.
    last = persevere(
        link,
        lambda helper: deploy.deploy(
            helper, files, store, lease, free_bytes=free_bytes, progress=progress
        ),
        last_sign=lambda: moved_at,
    )
    pushed = missing or 0
    return Deployed(
        pushed_bytes=pushed,
        skipped_bytes=last.pushed_bytes + last.skipped_bytes - pushed,
        seconds=time.monotonic() - started,
    )
