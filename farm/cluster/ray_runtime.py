"""A Ray runtime: one of our own, or a cluster that is joined."""

from __future__ import annotations

import logging
import os

import ray
from ray.job_config import JobConfig

from farm.cluster.node import OBJECT_STORE_BYTES
from farm.cluster.ray_environment import QUIET
from farm.cluster.ray_head import Head
from farm.cluster.ray_processes import end, stopped_ray_of
from farm.cluster.start_failure import (
    cannot_start,
    impatient,
    telling,
    too_busy,
    too_busy_twice,
)
from farm.core.errors import PlanError

log = logging.getLogger(__name__)

_NAMESPACE = "farm"


def start_local(*, cpus: int) -> None:
    """Start a Ray runtime that belongs to this process and ends with it.

    A start that Ray gives up because it is slow is tried once more.

    Raises:
        PlanError: Ray can't start here; the message names the likely cause.
    """
    try:
        _start(cpus)
    except Exception as error:  # Ray raises plain Exception, and whatever its hooks raise
        end(stopped_ray_of(os.getpid()))  # Ray does so itself only when we exit
        if not impatient(str(error)):
            raise cannot_start(telling(f"{type(error).__name__}: {error}")) from error
        log.warning("%s: it starts once more", too_busy())
    else:
        return
    try:
        _start(cpus)
    except Exception as error:  # as above
        end(stopped_ray_of(os.getpid()))
        why = too_busy_twice() if impatient(str(error)) else telling(str(error))
        raise cannot_start(why) from error


def _start(cpus: int) -> None:
    ray.init(
        address="local",
        num_cpus=cpus,
        resources={"site:local": 1},
        include_dashboard=False,
        configure_logging=False,
        log_to_driver=False,
        namespace=_NAMESPACE,
        job_config=_own_modules(),
        object_store_memory=OBJECT_STORE_BYTES,
        _node_ip_address="127.0.0.1",
    )


def join(cluster: str, address: str) -> None:
    """Join a running cluster, on a host that is one of its nodes.

    Args:
        cluster: `HOST:PORT` of its head, which answers.
        address: This host's address on the way there.

    Raises:
        PlanError: It takes another token, this host is no node of it, or Ray can't join.
    """
    nodes = Head(cluster).nodes()
    if not any(node.alive and node.address == address for node in nodes):
        raise PlanError(
            f"this host ({address}) is no node of the cluster at {cluster}: `farm site join"
            f" {cluster}` makes it one, also without devices; or run this on"
            f" {' or '.join(node.host for node in nodes if node.alive) or 'its head'}"
        )
    os.environ.pop(QUIET, None)  # a driver would say that it was set
    try:
        ray.init(
            address=cluster,
            namespace=_NAMESPACE,
            job_config=_own_modules(),
            configure_logging=False,
            log_to_driver=False,
            _node_ip_address=address,
        )
    except Exception as error:  # as in start_local
        raise PlanError(
            f"the cluster at {cluster} can't be joined: {telling(str(error))}"
        ) from error


def _own_modules() -> JobConfig:
    """Let workers import what this process imports.

    For other jobs than Ray Client's the working directory comes first on the path of workers: a
    `yaml.py` or a folder `models` there would take the place of ours, on every node.
    """
    return JobConfig(_client_job=True)


def site_names() -> list[str]:
    """Return the sites that the nodes of this cluster declare (`site:NAME` resources)."""
    resources = ray.cluster_resources()
    return sorted(name.removeprefix("site:") for name in resources if name.startswith("site:"))


def stop() -> None:
    """Leave the cluster; a local one ends."""
    ray.shutdown()
