"""Whether a runner starts on a device at all, and which build of it does.

Nothing here knows how a runner is built.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from farm.core.errors import DeviceUnfit, FarmError, RunnerCrashed
from farm.core.runner import RunnerBuild
from farm.site.device.supervised import Link, follow, launch
from farm.site.job.launch import TAIL_BYTES, read_failure, timed_out
from farm.site.job.results import fetch_logs
from farm.site.parsers.start import Trouble, diagnose
from farm.site.parsers.text import clean_text
from farm.store.objects import ContentStore

log = logging.getLogger(__name__)

#: Limit of a start that only introduces itself, seconds: an emulated device needs a few.
HELLO_S = 60.0


def unfit(trouble: Trouble, build: RunnerBuild, device: str) -> DeviceUnfit:
    """The error of a device on which no build of the runner starts."""
    return DeviceUnfit(
        f"{device}: the runner {build.name} ({build.libc or 'unknown C library'}) doesn't start:"
        f" {trouble.output}. Remedy: {trouble.remedy}",
        device=device,
        trouble=trouble.kind,
    )


def starting_build(
    build: RunnerBuild,
    bundled: Callable[[], RunnerBuild],
    hello: Callable[[RunnerBuild], Trouble | None],
    device: str,
) -> RunnerBuild:
    """Find out which build starts on a device: this one, or one with its own C library.

    Args:
        build: The first choice.
        bundled: Makes the other one.
        hello: Deploys a build and lets it introduce itself; says why it didn't.
        device: Name, for errors.

    Raises:
        DeviceUnfit: Neither starts; the message has the remedy.
    """
    trouble = hello(build)
    if trouble is None:
        return build
    log.info("%s: %s: %s", device, trouble.kind, trouble.output)
    other = bundled() if trouble.bundle_helps else build
    again = trouble if other.sha256 == build.sha256 else hello(other)
    if again is not None:
        raise unfit(again, other, device)
    return other


def start_once(
    link: Link,
    work: str,
    words: Sequence[str],
    env: Sequence[tuple[str, str]],
    store: ContentStore,
) -> Trouble | None:
    """Start a program in its work folder that only introduces itself.

    Returns:
        None when it did; else why not.

    Raises:
        RunnerCrashed: It failed for a reason without a known remedy.
        RunnerTimeout: It didn't end.
        DeviceLost: The device is gone.
    """
    device = link.helper.device
    try:
        launch(link, work, words, env)
    except RunnerCrashed as error:
        return _known(error, error.message, None)
    ended = follow(link, work, HELLO_S, lambda _line: None)
    if not ended.timed_out and ended.status.exit_code == 0:
        return None
    stderr, _ = fetch_logs(link, "hello", work, ended, store)
    if ended.timed_out:
        raise timed_out(HELLO_S, stderr, device)
    output = clean_text((stderr + b"\n" + ended.stdout)[-TAIL_BYTES:])
    return _known(read_failure(ended.status, stderr, device), output, ended.status.signal)


def _known(error: FarmError, text: str, signal: int | None) -> Trouble:
    trouble = diagnose(text, signal)
    if trouble is None:
        raise error
    return trouble
