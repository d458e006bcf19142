"""The cheap share of the mutation suite, on the tiny model: `benchmarks/mutations.py` has all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.models.exports import library_noise

pytestmark = pytest.mark.export

#: Faults marked cheap. The table imports the exporter, which collecting tests must not wait for.
CHEAP = (
    "rotary base x0.1",
    "rotary pairing swapped",
    "two weight files of one shape swapped",
    "w2 of one layer zeroed",
    "embedding rounded twice",
    "one scale zeroed",
    "one scale off by 1%",
    "w2 of one layer x0.8",
    "attention scores x1.01",
    "flipped byte of a weight",
)


@pytest.fixture(scope="module")
def bench(warm_home: Path) -> Iterator[Any]:
    with library_noise():
        from benchmarks.mutation.workbench import Workbench

        made = Workbench(warm_home, "tiny-llama", "xnnpack-8da4w", tokens=256)
        yield made
    made.close()


@pytest.mark.parametrize("name", CHEAP)
def test_a_fault_is_caught_and_blamed_where_it_arose(bench: Any, name: str) -> None:
    with library_noise():
        from benchmarks.mutation.faults import FAULTS
        from benchmarks.mutation.table import tried

        (fault,) = (one for one in FAULTS if one.name == name)
        row = tried(bench, fault)
    assert row["verdict"] == "caught", row


@pytest.mark.parametrize("name", ["w2 of one layer x0.8", "flipped byte of a weight"])
def test_a_fault_is_traced_to_its_layer_and_operator(bench: Any, name: str) -> None:
    with library_noise():
        from benchmarks.mutation.faults import FAULTS
        from benchmarks.mutation.sides import PLACES, looked

        (fault,) = (one for one in FAULTS if one.name == name)
        blame = looked(bench, fault.inject(bench, fault.size)).blame
    assert blame is not None
    assert (blame.stage, blame.layer, blame.operator) == PLACES[fault.kind]


def test_healthy_cells_raise_no_alarm(bench: Any) -> None:
    with library_noise():
        from benchmarks.mutation.faults import FAULTS
        from benchmarks.mutation.table import clean

        rows = clean(bench)
    assert {row["cell"]: row["reason"] for row in rows if row["outcome"] != "passed"} == {}
    assert len(rows) >= 4
    assert tuple(one.name for one in FAULTS if one.cheap) == CHEAP
    assert len(FAULTS) >= 24
    assert len({one.name for one in FAULTS}) == len(FAULTS)
