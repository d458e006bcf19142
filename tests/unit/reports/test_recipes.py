"""Which recipes are worth shipping: the front, what is missing, and the plot."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from farm.core.result import CellResult, CorrectnessReport, StageComparison
from farm.reports import recipes
from farm.reports.pareto import pareto_svg
from farm.reports.recipes import NUMBERS, RecipeRow, compare_recipes
from farm.ui.recipes import compared
from tests.unit.reports.builders import report, results


def stage(source: str, to: str, kl: float, perplexity: float) -> StageComparison:
    return StageComparison(
        source, to, "decode", 9, False, None, kl, None, None, None, None, None, perplexity
    )  # fmt: skip


def cell(
    recipe: str, *, kl: float | None = 0.1, speed: float = 1.0, size: int = 1000
) -> CellResult:
    base = results()[0]
    stages = [stage("host_pte", "device_pte", 0.0, 20.0)]
    if kl is not None:
        stages.append(stage("eager_fp32", "device_pte", kl, 20.0))
    return replace(
        base,
        recipe=recipe,
        outcome="passed",
        correctness=CorrectnessReport(tuple(stages), None, None, ()),
        artifact=replace(base.artifact, size_bytes=size, data_size_bytes=None),
        performance=tuple(
            replace(row, median=row.median and row.median * speed, trust="ok")
            for row in base.performance
        ),
    )


def test_the_front_is_what_nothing_else_beats_in_everything() -> None:
    cells = (
        cell("base"),
        cell("better", kl=0.05),
        cell("slower", kl=0.01, speed=0.9),
        cell("worse", kl=0.2, speed=0.8),
    )
    (group,) = compare_recipes(report(cells))
    found = {row.recipe: row for row in group.rows}
    assert {name for name, row in found.items() if row.on_front} == {"better", "slower"}
    assert found["base"].off_front == "better is better"
    assert (group.prefill, group.decode) == ("pp64", "tg32")
    assert found["slower"].kl_ratio == pytest.approx(0.1)
    assert found["slower"].decode_ratio == pytest.approx(0.9)
    assert found["base"].reasons == ()


def test_what_has_no_number_or_is_wrong_is_never_worth_it_and_says_why() -> None:
    unread = cell("unread", kl=None)
    wrong = replace(cell("wrong", kl=1e-6), outcome="failed")
    noisy = cell("noisy", kl=0.01)
    noisy = replace(noisy, performance=tuple(replace(p, trust="noisy") for p in noisy.performance))
    blind = cell("blind", kl=0.01)
    blind = replace(
        blind, performance=tuple(replace(p, trust="invalid") for p in blind.performance)
    )
    (group,) = compare_recipes(report((cell("base"), unread, wrong, noisy, blind)))
    found = {row.recipe: row for row in group.rows}
    assert found["unread"].kl is None
    assert found["unread"].off_front == "no kl"
    assert "no eager reference" in dict(found["unread"].reasons)["kl"]
    assert found["wrong"].off_front == "failed", "and it beats nobody"
    assert found["base"].off_front == "noisy is better"
    assert dict(found["noisy"].reasons)["decode_tok_s"] == "tg32 is noisy"
    assert found["blind"].decode_tok_s is None
    assert found["blind"].off_front == "no prefill_tok_s, decode_tok_s"
    console = Console(width=300, record=True)
    console.print(compared([group]))
    text = console.export_text()
    assert "no eager reference in fp32 (unread)" in text
    assert "noisy is better" in text
    drawn = ElementTree.fromstring(pareto_svg([group]))
    words = " ".join(drawn.itertext())
    assert "not drawn: unread, blind" in words


def test_devices_are_groups_of_their_own_and_errors_are_rows() -> None:
    other = cell("base")
    other = replace(other, device=replace(other.device, name="b<oard"))
    broken = replace(
        cell("broken"),
        outcome="errored",
        reason="no space",
        correctness=None,
        performance=(),
        memory=replace(other.memory, peak_rss_bytes=None),
        artifact=replace(other.artifact, size_bytes=None),
    )
    groups = compare_recipes(report((cell("base"), other, broken)))
    assert [len(group.rows) for group in groups] == [2, 1]
    row = groups[0].rows[1]
    assert (row.off_front, row.size_bytes, row.kl_ratio) == ("errored", None, None)
    assert {why for _name, why in row.reasons} == {"no space"}
    assert all(row.on_front for row in (groups[0].rows[0], groups[1].rows[0]))
    assert ElementTree.fromstring(pareto_svg(groups)) is not None
    assert "b&lt;oard" in pareto_svg(groups)


ROWS = st.builds(
    lambda kl, size, speed: RecipeRow("r", "passed", kl, 1.0, size, 1, 1.0, speed, None, ()),
    st.floats(0, 1),
    st.integers(1, 5),
    st.floats(1, 2),
)


@given(st.lists(ROWS, min_size=1, max_size=8))
def test_a_front_is_never_empty_and_holds_no_beaten_row(rows: list[RecipeRow]) -> None:
    placed = [recipes._placed(row, rows) for row in rows]
    assert any(row.on_front for row in placed)
    for row in placed:
        beaten = any(
            all(
                (getattr(o, n) >= getattr(row, n)) if more else (getattr(o, n) <= getattr(row, n))
                for n, more in NUMBERS.items()
            )
            and any(getattr(o, n) != getattr(row, n) for n in NUMBERS)
            for o in rows
        )
        assert row.on_front != beaten
