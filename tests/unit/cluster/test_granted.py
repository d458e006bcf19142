from __future__ import annotations

import pytest

from farm.cluster.granted import granted
from farm.core.spec import Resources

GIB = 1 << 30
MANY_CPUS = {"CPU": 64.0, "memory": 4.0 * GIB}
MUCH_MEMORY = {"CPU": 4.0, "memory": 256.0 * GIB}


@pytest.mark.parametrize(
    ("asked", "got"),
    [
        (Resources(4, 100 * GIB), Resources(4, 100 * GIB)),
        (Resources(32, 100 * GIB), Resources(4, 100 * GIB)),
        (Resources(32, 2 * GIB), Resources(32, 2 * GIB)),
        (Resources(0, 0), Resources(2, 0)),
        (Resources(128, 512 * GIB), Resources(4, 256 * GIB)),
    ],
)
def test_one_node_can_give_it(asked: Resources, got: Resources) -> None:
    for nodes in ([MANY_CPUS, MUCH_MEMORY], [MUCH_MEMORY, MANY_CPUS]):
        found = granted(asked, nodes, 2)
        assert found == got
        assert any(
            found.cpus <= node["CPU"] and found.memory_bytes <= node["memory"] for node in nodes
        )


def test_nodes_without_cpus_are_no_hosts() -> None:
    head = {"memory": 512.0 * GIB}
    assert granted(Resources(2, GIB), [head, MANY_CPUS], 2) == Resources(2, GIB)
    assert granted(Resources(2, GIB), [], 2) == Resources(1, 0)
