"""What the head of a cluster knows: its nodes, their sites, and which farm it is.

Asked directly, without joining: a host that is no node can do it too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from ray import exceptions as ray_errors
from ray._raylet import GcsClient  # type: ignore[attr-defined]

from farm.cluster.start_failure import telling
from farm.core.errors import PlanError

_NAMESPACE = b"farm"
_HANDSHAKE = b"handshake"
_SITE = "site:"
#: Values of Ray's `GcsNodeInfo.state` and `NodeDeathInfo.reason`.
_ALIVE, _EXPECTED = 0, 1
#: Longest wait for one answer, seconds.
_ANSWER_S = 10


@dataclass(frozen=True, slots=True)
class Node:
    """One node of a cluster, as its head sees it."""

    node_id: str
    #: IP address that it is bound to.
    address: str
    host: str
    head: bool
    alive: bool
    #: It was ended, as by `farm site stop`; False also while it lives.
    left: bool
    #: Sites of its devices; a node of farm has one or none.
    sites: tuple[str, ...]
    #: CPUs that host tasks may take.
    cpus: int
    #: When it joined, milliseconds since 1970.
    since_ms: int


class Head:
    """A connection to the head of a cluster; the token is the environment's.

    Args:
        cluster: `HOST:PORT`, where something answers.

    Raises:
        PlanError: It is no cluster, or takes another token.
    """

    def __init__(self, cluster: str) -> None:
        self._cluster = cluster
        try:
            self._client = GcsClient(address=cluster)
        except ray_errors.RayError as error:
            raise self._failed(error) from error

    def nodes(self) -> list[Node]:
        """Return every node that has ever joined, the head first."""
        try:
            found = self._client.get_all_node_info(timeout=_ANSWER_S)
        except ray_errors.RayError as error:
            raise self._failed(error) from error
        nodes = [
            Node(
                node_id=node_id.hex(),
                address=info.node_manager_address,
                host=info.node_manager_hostname,
                head=info.is_head_node,
                alive=info.state == _ALIVE,
                left=info.state != _ALIVE and info.death_info.reason == _EXPECTED,
                sites=tuple(
                    sorted(
                        name.removeprefix(_SITE)
                        for name in info.resources_total
                        if name.startswith(_SITE)
                    )
                ),
                cpus=int(info.resources_total.get("CPU", 0)),
                since_ms=info.start_time_ms,
            )
            for node_id, info in found.items()
        ]
        return sorted(nodes, key=lambda node: (not node.head, node.since_ms, node.node_id))

    def announce(self, farm: dict[str, str]) -> None:
        """Say which farm this cluster runs, to whoever wants to join."""
        try:
            self._client.internal_kv_put(
                _HANDSHAKE, json.dumps(farm).encode(), True, _NAMESPACE, timeout=_ANSWER_S
            )
        except ray_errors.RayError as error:
            raise self._failed(error) from error

    def farm(self) -> dict[str, str] | None:
        """Return what `announce` said; None where nobody did: farm didn't start this cluster."""
        try:
            said = self._client.internal_kv_get(_HANDSHAKE, _NAMESPACE, timeout=_ANSWER_S)
        except ray_errors.RayError as error:
            raise self._failed(error) from error
        if said is None:
            return None
        found: dict[str, str] = json.loads(said)
        return found

    def _failed(self, error: ray_errors.RayError) -> PlanError:
        if isinstance(error, ray_errors.AuthenticationError):
            return PlanError(
                f"the cluster at {self._cluster} does not know this token: copy the file that"
                " `farm cluster up` named on its head, and give --token FILE"
            )
        return PlanError(
            f"no Ray cluster answers at {self._cluster}: {telling(str(error))}. `farm cluster up`"
            " starts one."
        )
