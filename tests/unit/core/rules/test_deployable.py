"""Only what passed comes to a device, and only to one where kernels see no difference."""

from __future__ import annotations

from dataclasses import replace

import pytest

from farm.core.device import Device, DeviceEntry, DeviceFacts
from farm.core.errors import ConfigError
from farm.core.flow.outcomes import errored
from farm.core.plan import ArtifactId, Cell
from farm.core.result import ArtifactReport, CellResult, Outcome, RunnerReport
from farm.core.rules.deployable import Choice, Ran, choose, class_difference, named_cells

FACTS = DeviceFacts("id-a", "arm64-v8a", soc="G3", features=("dotprod", "i8mm"))


def device(name: str, facts: DeviceFacts | None = None) -> Device:
    state = "ready" if facts is not None else "offline"
    return Device(DeviceEntry(name, "adb"), facts, state, "" if facts else "no answer")


def cell(
    on: str, outcome: Outcome = "passed", recipe: str = "r", runner: str = "executorch"
) -> CellResult:
    made = Cell(
        f"m/{recipe}:{runner}:{on}", ArtifactId("m", recipe, "default"), runner, 0, (on,), on
    )
    facts = replace(FACTS, identity=f"id-{on}")
    result = errored(made, device(on, facts), ConfigError("x"), "errored")
    return replace(
        result,
        outcome=outcome,
        reason="",
        flags=(),
        artifact=ArtifactReport("key", recipe, 1),
        runner=RunnerReport(runner, sha256="s"),
    )


def chosen(
    cells: list[CellResult], facts: DeviceFacts | None, *, unverified: bool = False
) -> Choice:
    run = Ran(
        {c.cell_id: c.runner.name for c in cells},
        {c.device.name: replace(FACTS, identity=f"id-{c.device.name}") for c in cells},
    )
    (choice,) = choose(cells, [device("here", facts)], run, unverified=unverified)
    return choice


def here(**changes: object) -> DeviceFacts:
    return replace(FACTS, identity="id-here", **changes)  # type: ignore[arg-type]


def test_its_own_pass_comes_first_and_that_of_its_class_does_too() -> None:
    assert chosen([cell("a"), cell("here")], here()).cell_id == "m/r:executorch:here"
    choice = chosen([cell("a")], here())
    assert (choice.cell_id, choice.reason) == ("m/r:executorch:a", "passed on a, of its class")


@pytest.mark.parametrize("outcome", ["failed", "inconclusive", "errored", "skipped"])
def test_what_did_not_pass_on_it_never_comes_because_it_passed_elsewhere(outcome: Outcome) -> None:
    choice = chosen([cell("a"), cell("here", outcome)], here())
    assert choice.cell_id == ""
    assert outcome in choice.reason
    forced = chosen([cell("a"), cell("here", outcome)], here(), unverified=True)
    assert forced.unverified
    assert forced.cell_id == "m/r:executorch:here"
    assert outcome in forced.reason, "the manifest keeps why it isn't validated"


def test_what_was_waived_failed_and_flags_are_shown() -> None:
    waived = replace(cell("here", "failed"), waived=True, reason="waived: known")
    choice = chosen([waived], here())
    assert (choice.cell_id, choice.reason) == (
        "",
        "not passed: m/r:executorch:here failed: waived: known",
    )
    flagged = replace(cell("here"), flags=("unanchored", "retried"))
    assert chosen([flagged], here()).reason == "passed on this device (unanchored, retried)"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"abi": "x86_64"}, "ABI"),
        ({"soc": "G2"}, "processor G3, not G2"),
        ({"soc": None}, "isn't known"),
        ({"emulated": True}, "not emulated"),
        ({"features": ("dotprod",)}, "i8mm"),
    ],
)
def test_another_class_gets_nothing_and_says_in_what_it_differs(
    changes: dict[str, object], why: str
) -> None:
    choice = chosen([cell("a")], here(**changes))
    assert choice.cell_id == ""
    assert why in choice.reason


def test_without_a_soc_the_model_names_the_processor() -> None:
    pc = replace(FACTS, soc=None, model="EPYC")
    assert class_difference(pc, replace(pc, identity="other")) == ""
    assert "EPYC" in class_difference(pc, replace(pc, model="Xeon"))
    assert class_difference(replace(pc, model=None), replace(pc, model=None)) != ""


def test_a_device_that_does_not_answer_is_named_and_gets_nothing() -> None:
    choice = chosen([cell("here")], None, unverified=True)
    assert (choice.cell_id, choice.reason) == ("", "no answer")


def test_a_runner_of_others_is_not_deployed() -> None:
    choice = chosen([cell("here", runner="llama_cpp")], here(), unverified=True)
    assert choice.cell_id == ""
    assert "llama_cpp" in choice.reason


def test_two_recipes_have_to_be_told_apart() -> None:
    with pytest.raises(ConfigError, match="name one of m/q:executorch:a, m/r:executorch:a"):
        chosen([cell("a"), cell("a", recipe="q")], here())


def test_cells_are_named_by_globs_and_a_wrong_name_is_refused() -> None:
    cells = [cell("a"), cell("a", recipe="q")]
    assert [c.recipe for c in named_cells(cells, ["*/q:*"])] == ["q"]
    assert named_cells(cells, []) == tuple(cells)
    with pytest.raises(ConfigError, match="did you mean m/q:executorch:a"):
        named_cells(cells, ["m/q:executorch:b"])
