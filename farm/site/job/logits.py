"""A launch's logits into the store: whole rows, or over a slow link their compact form."""

from __future__ import annotations

import dataclasses
import struct
import time

from farm.core.artifact import LogitsRef, ObjectRef
from farm.core.errors import RAW_BYTES, BadOutput, DeviceError, TransferError, TransportError
from farm.core.runtime import LaunchRequest, LaunchResult
from farm.site.device.helper import HASH_BYTES_S, SHORT_S
from farm.site.device.supervised import Link, persevere
from farm.site.job.results import PLAIN, fetch_profiles, pull_object, push_files
from farm.store.objects import ContentStore

#: Largest file of logits: 8,192 rows of a vocabulary of 256,000.
MAX_LOGITS_BYTES = 8192 * 256_000 * 4
#: Logits that a link would need longer for come in the compact form, seconds.
WHOLE_S = 2.0
#: How long a pull is watched before it is given up for being slow, seconds.
_WATCHED_S = 0.2
#: Files up to here come whole: the compact form would hardly be smaller.
_SMALL_BYTES = 4 << 20
#: Rows that stay whole in 4 MiB, at least and at most.
_WHOLE_BYTES, _WHOLE_LEAST, _WHOLE_MOST = 4 << 20, 8, 12
#: Most largest values of each other row, and most buckets of the ids that remain.
_PARTS = 512


class _TooSlow(Exception):
    """The whole rows would take too long."""


def fetch_logits(
    link: Link, out: str, request: LaunchRequest, result: LaunchResult, store: ContentStore
) -> LaunchResult:
    """Pull logits that the store doesn't have yet, and traces, and verify them.

    Args:
        link: The job's connection.
        out: Output folder of the launch on the device.
        request: What the launch was asked for, and in which form its logits may come.
        result: What the runner reported; its logits refer to files of that folder.
        store: Where they go.

    Raises:
        BadOutput: The runner named an impossible file or size.
        TransferError: What arrived isn't what the runner hashed.
        DeviceLost: The device is gone.
    """
    fetch_profiles(link, out, result, store)
    passes = {one.name: one.positions for one in request.passes}
    pulled = []
    for name, reported in result.logits:
        ref = reported if reported.object.sha256 else _measured(link, out, reported)
        _check_logits(ref, link.helper.device)
        many = ref.rows == len(passes.get(name, ())) and ref.rows >= 2 * _WHOLE_MOST
        form = request.logits if many else "whole"
        found = _whole(link, out, ref, store, form)
        if found is None:
            after = (position + 1 for position in passes[name])
            ids = [request.tokens[i] if i < len(request.tokens) else -1 for i in after]
            found = _compact(link, out, ref, ids, store) or _whole(link, out, ref, store, "whole")
            assert found is not None, "whole rows are not given up"
        suffix = "compact" if found.compact else "f32"
        named = dataclasses.replace(found.object, name=f"{name}.{suffix}")
        pulled.append((name, dataclasses.replace(found, object=named)))
    return dataclasses.replace(result, logits=tuple(pulled))


def _whole(
    link: Link, out: str, ref: LogitsRef, store: ContentStore, form: str
) -> LogitsRef | None:
    """The raw rows; None where the store hasn't them and they are too many for the link."""
    found = ref.object
    if store.has(found.sha256, found.size_bytes) and store.verify(found.sha256):
        return ref
    if form == "compact":
        return None
    begun: float | None = None

    def moved(done: int) -> None:
        nonlocal begun
        now = time.monotonic()
        begun = begun or now
        took = now - begun
        if took >= _WATCHED_S and took / max(done, 1) * found.size_bytes > WHOLE_S:
            raise _TooSlow

    try:
        watched = form == "auto" and found.size_bytes > _SMALL_BYTES
        pull_object(link, out, found, store, moved if watched else None)
    except _TooSlow:
        return None
    return ref


def _compact(
    link: Link, out: str, ref: LogitsRef, ids: list[int], store: ContentStore
) -> LogitsRef | None:
    """The compact form, made on the device; None where a row isn't finite: that has to be seen.

    Args:
        link: The job's connection.
        out: Folder of the logits.
        ref: The raw rows.
        ids: The token that follows each row, -1 for none.
        store: Where it goes.
    """
    name = f"{ref.object.name}.compact"
    known = [one if one < ref.cols else -1 for one in ids]
    push_files(link, out, {f"{name}-ids": struct.pack(f"<{len(known)}i", *known)}, store)
    whole = max(_WHOLE_LEAST, min(_WHOLE_MOST, _WHOLE_BYTES // (4 * ref.cols)))
    parts = max(1, min(_PARTS, ref.cols // 8))
    shape = {"rows": ref.rows, "cols": ref.cols, "whole": whole, "top": parts, "buckets": parts}
    words = (
        *("compact", f"{out}/{ref.object.name}", f"{out}/{name}", "--next", f"{out}/{name}-ids"),
        *(word for key, value in shape.items() for word in (f"--{key}", str(value))),
        *("--root", link.helper.root, *link.owner.kept),
    )
    limit_s = SHORT_S + 4 * ref.object.size_bytes / HASH_BYTES_S
    (answer,) = persevere(link, lambda helper: helper.lines(*words, timeout_s=limit_s))
    if not answer.truth("finite"):
        return None
    found = ObjectRef(answer.text("sha256"), answer.size("size"), name)
    size = 24 + 4 * whole * ref.cols + 16 * parts * (ref.rows - whole)
    source = answer.text("source_sha256")
    if (source, found.size_bytes) != (ref.object.sha256, size):
        device = link.helper.device
        raise TransferError(
            f"{device}: {ref.object.name} is another file than the runner reported (sha256"
            f" {source[:12]} for {ref.object.sha256[:12]}, {found.size_bytes} bytes of {size})",
            device=device,
        )
    if not (store.has(found.sha256, found.size_bytes) and store.verify(found.sha256)):
        pull_object(link, out, found, store)
    return dataclasses.replace(ref, object=found, whole_sha256=ref.object.sha256)


def _measured(link: Link, out: str, ref: LogitsRef) -> LogitsRef:
    """Size, hash and columns of a file that its program doesn't describe."""
    name, rows = ref.object.name, ref.rows
    if not PLAIN.fullmatch(name):
        raise BadOutput(f"{link.helper.device}: logits can't be a file {name[:80]!r}")
    try:
        found = persevere(link, lambda helper: helper.hash_file(f"{out}/{name}", link.owner))
    except TransportError:
        raise
    except DeviceError as error:
        raise BadOutput(f"{link.helper.device}: no logits in {name}: {error.message}") from error
    columns, rest = divmod(found.size_bytes, 4 * rows)
    if rest:
        raise BadOutput(
            f"{link.helper.device}: {name} has {found.size_bytes} bytes, no whole number of"
            f" columns in {rows} rows of fp32"
        )
    return LogitsRef(ObjectRef(found.sha256, found.size_bytes, name), rows, columns)


def _check_logits(ref: LogitsRef, device: str) -> None:
    found = ref.object
    expected = ref.rows * ref.cols * 4
    plain = PLAIN.fullmatch(found.name)
    if plain and found.size_bytes == expected and 0 < expected <= MAX_LOGITS_BYTES:
        return
    raise BadOutput(
        f"{device}: the runner named logits {found.name[:80]!r} of {found.size_bytes} bytes for"
        f" {ref.rows} x {ref.cols} values",
        device=device,
        raw=repr(ref)[:RAW_BYTES],
    )
