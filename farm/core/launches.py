"""What a cell's launches do: the correctness launch first, then the measuring ones. Pure."""

from __future__ import annotations

from farm.core.artifact import Bundle, LogitsPass, ReferenceResult
from farm.core.runtime import Generate, LaunchRequest, Measure
from farm.core.spec import Correctness, Workload

#: Length of the later chunks of the prefill pass: short enough for several rows of evidence.
_CHUNK = 16


def logits_passes(correctness: Correctness, workload: Workload) -> tuple[LogitsPass, ...]:
    """Return the teacher-forced passes: token by token, and in chunks.

    The prefill pass begins with one forward of the length that is timed, so that what is timed
    is what is checked, and goes on in short chunks that continue from the cache.
    """
    tokens = correctness.tokens
    first = min(workload.prefill[0] if workload.prefill else _CHUNK, tokens // 2)
    rest = tokens - first
    chunks = [first, *([_CHUNK] * (rest // _CHUNK))]
    if rest % _CHUNK:
        chunks.append(rest % _CHUNK)
    return (LogitsPass("decode", (1,) * tokens), LogitsPass("prefill", tuple(chunks)))


def measures(workload: Workload) -> tuple[Measure, ...]:
    """Return the timed workloads of one launch: pp and tg at every depth."""
    found = []
    for depth in workload.depth:
        suffix = f"@d{depth}" if depth else ""
        for prefill in workload.prefill:
            found.append(_measure(f"pp{prefill}{suffix}", workload, prefill=prefill, depth=depth))
        for decode in workload.decode:
            found.append(_measure(f"tg{decode}{suffix}", workload, decode=decode, depth=depth))
    return tuple(found)


def _measure(
    name: str, workload: Workload, *, prefill: int = 0, decode: int = 0, depth: int
) -> Measure:
    return Measure(
        name=name,
        prefill=prefill,
        decode=decode,
        depth=depth,
        repetitions=workload.repetitions,
        warmup=workload.warmup,
    )


def cell_launches(
    correctness: Correctness, workload: Workload, reference: ReferenceResult, *, threads: int
) -> tuple[LaunchRequest, ...]:
    """Return the launches of one cell, in order."""
    check = LaunchRequest(
        threads=threads,
        tokens=reference.tokens,
        passes=logits_passes(correctness, workload),
        generate=Generate(reference.prompt, correctness.max_new_tokens, reference.stop_ids),
    )
    timed = LaunchRequest(threads=threads, tokens=reference.tokens, measures=measures(workload))
    return (check, *([timed] * workload.launches))


def ram_need_bytes(bundle: Bundle) -> int:
    """Return a lower bound of the memory that the artifact needs on a device.

    The program is mapped and read in full while it runs; 48 MiB cover the runtime and
    activations of small models (measured: 133 MB peak for a 105 MB program).
    """
    data = 0 if bundle.data is None else bundle.data.size_bytes
    return bundle.pte.size_bytes + data + (48 << 20)
