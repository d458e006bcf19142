"""How many threads suit a device: its performance cores, where it tells them apart."""

from __future__ import annotations

from farm.core.device import DeviceFacts

#: A core counts as a performance core from this share of the fastest one's capacity...
CAPACITY_SHARE = 0.5
#: ... or clock, where the kernel tells no capacity. Little cores run at up to 70 % of the clock.
CLOCK_SHARE = 0.75


def performance_cores(facts: DeviceFacts) -> int:
    """Count performance cores; all online cores where they can't be told apart, at least 1."""
    clusters = facts.clusters
    listed = sum(len(cluster.cores) for cluster in clusters)
    fast = listed
    capacities = [cluster.capacity for cluster in clusters if cluster.capacity is not None]
    clocks = [cluster.max_khz for cluster in clusters if cluster.max_khz is not None]
    if clusters and len(capacities) == len(clusters):
        limit = CAPACITY_SHARE * max(capacities)
        fast = sum(len(c.cores) for c in clusters if (c.capacity or 0) >= limit)
    elif clusters and len(clocks) == len(clusters):
        limit = CLOCK_SHARE * max(clocks)
        fast = sum(len(c.cores) for c in clusters if (c.max_khz or 0) >= limit)
    # A control group may allow fewer cores than are online.
    allowed = facts.cores or fast or 1
    return max(1, min(fast or allowed, allowed))
