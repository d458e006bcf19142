from __future__ import annotations

import dataclasses

import pytest

from farm.core.errors import PlanError
from farm.core.plan import selects
from farm.core.selector import parse_selector
from farm.core.spec import DeviceRequest
from tests.unit.core import builders as b


def test_cells_are_the_product_and_ids_are_made_of_names() -> None:
    plan = b.plan(b.run_spec(recipes=("r1", "r2")), b.device("a"), b.device("b"))
    assert [cell.cell_id for cell in plan.cells] == [
        "m1/r1:executorch:auto:a",
        "m1/r1:executorch:auto:b",
        "m1/r2:executorch:auto:a",
        "m1/r2:executorch:auto:b",
    ]
    assert [str(artifact) for artifact in plan.artifacts] == ["m1/r1", "m1/r2"]


def test_pool_cells_float_over_their_devices() -> None:
    request = DeviceRequest("transport=adb", any=2, pool="phones")
    plan = b.plan(
        b.run_spec(requests=(request,)),
        b.device("a"),
        b.device("b"),
        b.device("l", transport="ssh"),
    )
    assert [cell.place for cell in plan.cells] == ["phones#1", "phones#2"]
    assert {cell.devices for cell in plan.cells} == {("a", "b")}


def test_exclusion_and_absence_are_skips_with_reasons() -> None:
    spec = dataclasses.replace(
        b.run_spec(recipes=("r1", "r2")), exclude=((("recipe", "r2"), ("device", "a")),)
    )
    plan = b.plan(spec, b.device("a"), b.device("gone", alive=False))
    assert [(s.cell.place, s.flag) for s in plan.skips] == [
        ("gone", "device_missing"),
        ("a", "excluded"),
        ("gone", "device_missing"),
    ]
    assert plan.planned == 4


def test_absent_device_is_not_hidden_by_a_selector_on_facts() -> None:
    request = DeviceRequest("abi=x86_64, transport=adb")
    plan = b.plan(b.run_spec(requests=(request,)), b.device("gone", alive=False))
    assert [skip.flag for skip in plan.skips] == ["device_missing"]


def test_nothing_matches_names_the_term_that_fails() -> None:
    spec = b.run_spec(requests=(DeviceRequest("abi=arm64-v8a"),))
    with pytest.raises(PlanError, match="a: not abi=arm64-v8a"):
        b.plan(spec, b.device("a"))
    with pytest.raises(PlanError, match="inventory has none"):
        b.plan(spec)


def test_a_request_that_no_device_meets_is_named_beside_those_that_are_met() -> None:
    wrong = ("name=pixle8", "nam=pixel8", "transport=uart")
    requests = (DeviceRequest("name=pixel8"), *map(DeviceRequest, wrong))
    plan = b.plan(b.run_spec(requests=requests), b.device("pixel8"))
    assert len(plan.cells) == 1
    assert plan.unmet == (
        "devices.1: no device is `name=pixle8`, did you mean pixel8?",
        "devices.2: no device is `nam=pixel8`, did you mean name?",
        "devices.3: no device is `transport=uart`",
    )
    assert b.plan(b.run_spec(), b.device("a")).unmet == ()


def test_one_device_twice_is_refused() -> None:
    spec = b.run_spec(requests=(DeviceRequest(""), DeviceRequest("name=a")))
    with pytest.raises(PlanError, match="planned twice"):
        b.plan(spec, b.device("a"))


@pytest.mark.parametrize(
    ("select", "expected"),
    [("transport=ssh", False), ("name=gone", True), ("ram>=1GiB", True), ("", True)],
)
def test_absent_device_is_selected_by_what_is_known_of_it(select: str, expected: bool) -> None:
    assert selects(parse_selector(select), b.device("gone", alive=False)) is expected
