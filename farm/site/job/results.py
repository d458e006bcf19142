"""Small files to a work folder, and what a launch left there back into the store."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from farm.core.artifact import ObjectRef
from farm.core.errors import BadOutput, TransferError
from farm.core.runtime import LaunchRequest, LaunchResult
from farm.protocols import ByteProgress
from farm.site.device.helper import DeviceHelper
from farm.site.device.supervised import MAX_OUTPUT_BYTES, Ended, Link, persevere
from farm.site.parsers.text import clean_text
from farm.store.objects import ContentStore

#: A file name of a device goes into a path of the device only when it is this plain.
PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,120}")
#: Largest generated text.
MAX_TEXT_BYTES = 1 << 20
#: Largest trace of one window.
MAX_PROFILE_BYTES = 256 << 20


def push_files(link: Link, work: str, files: Mapping[str, bytes], store: ContentStore) -> None:
    """Write a launch's small files into its work folder, through broken connections.

    Raises:
        DeviceLost: The device is gone.
        StorageFull: The device has no space left.
    """
    with store.scratch() as folder:

        def push(helper: DeviceHelper) -> None:
            for index, (name, content) in enumerate(files.items()):
                local = folder / str(index)
                local.write_bytes(content)
                helper.transport.push(local, f"{work}/{name}")

        persevere(link, push)


def fetch_bytes(link: Link, path: str, store: ContentStore, *, max_bytes: int) -> bytes:
    """Content of a small file of the device, through broken connections.

    Raises:
        DeviceLost: The device is gone.
        TransferError: It can't be read, or is larger than `max_bytes`.
    """
    with store.scratch() as folder:
        local = folder / "file"

        def pull(helper: DeviceHelper) -> None:
            helper.transport.pull(path, local, max_bytes=max_bytes)

        persevere(link, pull)
        return local.read_bytes()


def fetch_logs(
    link: Link, name: str, work: str, ended: Ended, store: ContentStore
) -> tuple[bytes, list[ObjectRef]]:
    """Keep a launch's output; return its standard error and the objects.

    Raises:
        DeviceLost: The device is gone.
        TransferError: Its standard error can't be read.
    """
    stderr = b""
    if ended.status.stderr_size:
        stderr = fetch_bytes(link, f"{work}/stderr", store, max_bytes=MAX_OUTPUT_BYTES)
    texts = {f"{name}.stdout": ended.stdout, f"{name}.stderr": stderr}
    return stderr, [store.put_bytes(text, name) for name, text in texts.items() if text]


def with_text(
    link: Link,
    work: str,
    name: str | None,
    request: LaunchRequest,
    result: LaunchResult,
    store: ContentStore,
) -> LaunchResult:
    """Read the generated text of a program that writes it to a file; without one nothing changes.

    Raises:
        DeviceLost: The device is gone.
        TransferError: It can't be read, or is larger than any answer.
    """
    if name is None or request.generate is None or request.measures:
        return result
    raw = fetch_bytes(link, f"{work}/{name}", store, max_bytes=MAX_TEXT_BYTES)
    text = clean_text(raw)
    # Some write the prompt before the answer.
    answer = text.removeprefix(request.generate.text.strip()).strip()
    return dataclasses.replace(result, text=answer or None)


def fetch_profiles(link: Link, out: str, result: LaunchResult, store: ContentStore) -> None:
    """Pull the traces of a launch and verify them.

    Raises:
        BadOutput: The runner named an impossible file or size.
        TransferError: What arrived isn't what the runner hashed.
        DeviceLost: The device is gone.
    """
    for profile in result.profiles:
        ref = profile.object
        if not PLAIN.fullmatch(ref.name) or not 0 < ref.size_bytes <= MAX_PROFILE_BYTES:
            raise BadOutput(
                f"{link.helper.device}: the runner named a profile {ref.name[:80]!r} of"
                f" {ref.size_bytes} bytes",
                device=link.helper.device,
            )
        pull_object(link, out, ref, store)


def pull_object(
    link: Link,
    out: str,
    ref: ObjectRef,
    store: ContentStore,
    moved: ByteProgress | None = None,
) -> None:
    """Bring a file of a launch's output folder into the store; `moved` may raise to end that.

    Raises:
        TransferError: What arrived isn't what `ref` says.
        DeviceLost: The device is gone.
    """

    def progress(done: int) -> None:
        link.beat_aside()
        if moved is not None:
            moved(done)

    with store.scratch() as folder:
        local = folder / "logits"

        def pull(helper: DeviceHelper) -> None:
            helper.transport.pull(
                f"{out}/{ref.name}",
                local,
                max_bytes=ref.size_bytes,
                progress=progress,
            )

        persevere(link, pull)
        arrived = store.adopt(local)
    if (arrived.sha256, arrived.size_bytes) != (ref.sha256, ref.size_bytes):
        store.remove(arrived.sha256)
        device = link.helper.device
        raise TransferError(
            f"{device}: {ref.name} arrived damaged ({arrived.size_bytes} bytes of sha256"
            f" {arrived.sha256[:12]}, the runner reported {ref.size_bytes} of {ref.sha256[:12]})",
            device=device,
        )


def common_clock(launches: tuple[LaunchResult, ...]) -> tuple[LaunchResult, ...]:
    """Count the time of samples from the job's first timed window; a load counts from 0."""
    windows = [s.t_s for launch in launches for s in launch.samples if s.t_s > 0]
    base = min(windows, default=0.0)
    return tuple(
        dataclasses.replace(
            launch,
            samples=tuple(
                dataclasses.replace(s, t_s=max(0.0, s.t_s - base)) for s in launch.samples
            ),
        )
        for launch in launches
    )
