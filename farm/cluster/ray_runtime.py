"""A Ray runtime: one of our own, or a cluster that is joined."""

from __future__ import annotations

import ray

from farm.cluster.start_failure import cannot_start, telling
from farm.core.errors import PlanError

#: Memory of the object store of a local cluster: events and small results travel through it,
#: logits never do.
_OBJECT_STORE_BYTES = 128 << 20
_NAMESPACE = "farm"


def start_local(*, cpus: int) -> None:
    """Start a Ray runtime that belongs to this process and ends with it.

    Raises:
        PlanError: Ray can't start here; the message names the likely cause.
    """
    try:
        ray.init(
            address="local",
            num_cpus=cpus,
            resources={"site:local": 1},
            include_dashboard=False,
            configure_logging=False,
            log_to_driver=False,
            namespace=_NAMESPACE,
            object_store_memory=_OBJECT_STORE_BYTES,
            _node_ip_address="127.0.0.1",
        )
    except Exception as error:  # Ray raises plain Exception, and whatever its hooks raise
        raise cannot_start(telling(f"{type(error).__name__}: {error}")) from error


def join(address: str) -> None:
    """Join a running cluster.

    Raises:
        PlanError: Nothing answers there.
    """
    try:
        ray.init(
            address=address, namespace=_NAMESPACE, configure_logging=False, log_to_driver=False
        )
    except Exception as error:  # as in start_local
        raise PlanError(
            f"no Ray cluster answers at {address}: {telling(str(error))}. Start one with"
            " `ray start --head --resources '{\"site:NAME\": 1}'`, or leave --cluster out."
        ) from error


def site_names() -> list[str]:
    """Return the sites that the nodes of this cluster declare (`site:NAME` resources)."""
    resources = ray.cluster_resources()
    return sorted(name.removeprefix("site:") for name in resources if name.startswith("site:"))


def stop() -> None:
    """Leave the cluster; a local one ends."""
    ray.shutdown()
