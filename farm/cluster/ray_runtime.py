"""A Ray runtime: one of our own, or a cluster that is joined."""

from __future__ import annotations

import ray
from ray import exceptions as ray_errors

from farm.core.errors import PlanError

#: Memory of the object store of a local cluster: events and small results travel through it,
#: logits never do.
_OBJECT_STORE_BYTES = 128 << 20
_NAMESPACE = "farm"


def start_local(*, cpus: int) -> None:
    """Start a Ray runtime that belongs to this process and ends with it.

    Raises:
        PlanError: Ray can't start here; the message says why and names `--cluster none`.
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
    except (RuntimeError, OSError, ValueError, ConnectionError, ray_errors.RayError) as error:
        raise PlanError(
            f"Ray can't start on this machine: {error}. `--cluster none` runs the same work"
            " without it."
        ) from error


def join(address: str) -> None:
    """Join a running cluster.

    Raises:
        PlanError: Nothing answers there.
    """
    try:
        ray.init(
            address=address, namespace=_NAMESPACE, configure_logging=False, log_to_driver=False
        )
    except (RuntimeError, OSError, ValueError, ConnectionError, ray_errors.RayError) as error:
        raise PlanError(
            f"no Ray cluster answers at {address}: {error}. Start one with `ray start --head"
            " --resources '{\"site:NAME\": 1}'`, or leave --cluster out."
        ) from error


def site_names() -> list[str]:
    """Return the sites that the nodes of this cluster declare (`site:NAME` resources)."""
    resources = ray.cluster_resources()
    return sorted(name.removeprefix("site:") for name in resources if name.startswith("site:"))


def stop() -> None:
    """Leave the cluster; a local one ends."""
    ray.shutdown()
