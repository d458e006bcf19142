"""What one node of a cluster can set aside for a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from farm.core.spec import Resources


def granted(asked: Resources, nodes: Sequence[Mapping[str, float]], default_cpus: int) -> Resources:
    """Return what is asked for, cut to what the best node has: Ray would wait for ever for more.

    CPUs and memory are those of one node. A model that doesn't fit is refused by the export
    itself, which says what it needs.

    Args:
        asked: What the config or the estimate says; 0 CPUs leave the number to us.
        nodes: Ray's resources of each living node: `CPU`, and `memory` in bytes.
        default_cpus: CPUs of a task that asks for none.
    """
    cpus = asked.cpus or default_cpus
    offers = [
        (min(asked.memory_bytes, int(node.get("memory", 0))), min(cpus, int(node["CPU"])))
        for node in nodes
        if node.get("CPU", 0) >= 1
    ]
    memory, cpus = max(offers, default=(0, 1))
    return replace(asked, cpus=cpus, memory_bytes=memory)
