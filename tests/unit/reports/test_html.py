from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from typing import Any

import pytest

from farm.core.comparison import BaselineReport, MetricComparison
from farm.core.nights import MetricTrend
from farm.core.result import Report
from farm.core.telemetry import ClockRange, LaunchState
from farm.reports import html
from tests.unit.reports.builders import EVIL, report

VOID = {"meta", "br", "img", "link", "input"}


class Page(HTMLParser):
    """Collects tags and attributes, and checks that every tag is closed in order."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def parsed(report: Report) -> Page:
    page = Page()
    page.feed(html.render(report))
    page.close()
    assert page.open == []
    return page


@pytest.fixture(scope="module")
def full() -> Report:
    return report()


def test_the_page_asks_for_nothing_and_runs_its_own_scripts_only(full: Report) -> None:
    page = parsed(full)
    assert not {"link", "img", "iframe", "object", "embed"} & set(page.tags)
    for name, value in page.attributes:
        assert not name.startswith("on"), (name, value)
        assert name not in ("src", "action", "xlink:href", "style"), (name, value)
        if name == "href":
            assert re.fullmatch(r"#[A-Za-z0-9._-]+", value), value
    text = html.render(full)
    style = text.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    policy = unescape(text.split('Policy" content="')[1].split('"')[0])
    assert "default-src 'none'" in policy
    own = text.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in policy
    assert "unsafe-eval" not in policy
    assert policy.split("script-src ")[1].count("sha256-") == 3


def test_hostile_text_is_shown_as_text(full: Report) -> None:
    evil = replace(
        full,
        name=EVIL,
        run_id=EVIL,
        alarms=(EVIL,),
        results=tuple(
            replace(
                r,
                cell_id=EVIL,
                model=EVIL,
                recipe=EVIL,
                reason=EVIL,
                flags=(EVIL,),
                conditions={EVIL: EVIL},
                device=replace(r.device, name=EVIL, soc=EVIL, os=EVIL),
                runner=replace(r.runner, name=EVIL, version=EVIL, isa=EVIL),
            )
            for r in full.results
        ),
        host={EVIL: EVIL},
        config={EVIL: [EVIL]},
    )
    page = parsed(evil)
    assert page.tags.count("script") == parsed(full).tags.count("script")
    assert any('<script>alert("1")</script>' in words for words in page.words)


def test_every_cell_has_its_details_and_its_link(full: Report) -> None:
    page = parsed(full)
    ids = [value for name, value in page.attributes if name == "id"]
    links = [value for name, value in page.attributes if name == "href"]
    cells = [name for name in ids if name.startswith("cell-")]
    assert len(cells) == len(full.results) == 6
    assert {f"#{name}" for name in cells} <= set(links)
    assert {link.removeprefix("#") for link in links} <= set(ids)
    text = " ".join(page.words)
    for word in ("eager_quantised", "What is the capital of France?", "clock_cap", "tg32"):
        assert word in text


def test_the_comparison_with_a_baseline_is_shown(full: Report) -> None:
    metric = MetricComparison("tg32", "REGRESSED", 0.5, (0.45, 0.55), "half as fast")
    baseline = BaselineReport("old-run", "REGRESSED", 0.5, (0.45, 0.55), (metric,), "slow")
    first = replace(full.results[0], baseline=baseline)
    text = " ".join(parsed(replace(full, results=(first,))).words)
    assert "half as fast" in text
    assert "0.450 to 0.550" in text


def unpacked(text: str) -> Any:
    block = text.split('id="data">')[1].split("<")[0]
    return json.loads(gzip.decompress(base64.b64decode(block)))


def test_the_charts_have_every_sample(full: Report) -> None:
    data = unpacked(html.render(full))
    for result, cell in zip(full.results, data["cells"], strict=True):
        drawn = {(c["metric"], c["regime"]): c["points"] for c in cell["charts"]}
        for metric in result.performance:
            points = drawn.get((metric.metric, metric.regime.replace("_", " ")), [])
            assert [point[1] for point in points] == pytest.approx(
                [sample.value for sample in metric.samples], rel=1e-4
            )
    assert {entry["metric"] for entry in data["speeds"]} >= {"pp64", "tg32", "ttft"}


def test_nights_heat_and_clocks_are_drawn_where_they_are_known(full: Report) -> None:
    first = replace(
        full.results[0],
        trend=(MetricTrend("tg32", "tok/s", ("r1", "r2"), (80.0, None)),),
        launches=(
            LaunchState(1, 1.0, ("cpu", 61.5), 35.0, (ClockRange("policy0", 2_400_000, 900_000),)),
        ),
    )
    charts = unpacked(html.render(replace(full, results=(first,))))["cells"][0]["lines"]
    assert [chart["title"] for chart in charts] == [
        "tg32 over 2 nights", "temperature", "ceiling of the clocks",
    ]  # fmt: skip
    assert charts[0]["lines"] == [["tg32", [[0, 80.0, "r1"], [1, None, "r2"]]]]
    assert dict(charts[1]["lines"]) == {"battery": [[1, 35.0, ""]], "cpu": [[1, 61.5, ""]]}
    assert dict(charts[2]["lines"])["policy0 lowest"] == [[1, 900, ""]]


def test_what_is_not_drawn_says_why(full: Report) -> None:
    blind = replace(full, results=tuple(replace(r, trend=(), launches=()) for r in full.results))
    text = " ".join(parsed(blind).words)
    for reason in (
        "trend: no earlier night", "temperature and clocks: no device told them",
        "no device has numbers of two recipes", "the config has no self_check",
    ):  # fmt: skip
        assert reason in text
    other = replace(full.results[0], recipe="xnnpack-fp32", cell_id="another")
    both = parsed(replace(full, results=(full.results[0], other)))
    assert "no device has numbers of two recipes" not in " ".join(both.words)
    labels = [value for name, value in both.attributes if name == "aria-label"]
    assert any("KL to fp32 against tok/s" in label for label in labels)


def test_many_cells_carry_their_details_packed(
    full: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    inline = html.render(full)
    monkeypatch.setattr(html, "INLINE_CELLS", 5)
    packed = html.render(full)
    assert "The capital of France" in inline
    assert "The capital of France" not in packed
    details = [cell["html"] for cell in unpacked(packed)["cells"]]
    assert "The capital of France" in details[0]
    assert all("html" not in cell for cell in unpacked(inline)["cells"])


def test_what_needs_a_look_comes_before_the_plan(full: Report) -> None:
    text = " ".join(parsed(full).words)
    assert text.index("Needs a look") < text.index("Cells")
    assert f"farm rerun {full.run_id} {full.results[2].cell_id}" in text


def test_a_run_whose_numbers_are_all_invalid_is_not_green(full: Report) -> None:
    fine = report(full.results[:1])
    assert html.tone(fine) == "passed"
    first = fine.results[0]
    invalid = tuple(replace(p, trust="invalid") for p in first.performance)
    blind = replace(fine, results=(replace(first, performance=invalid),))
    assert html.tone(blind) == "inconclusive"
    assert html.sides(blind)[1].text.endswith("0 of 1 timed cells have numbers that count")
    assert html.tone(replace(fine, exit_code=3)) == "inconclusive"
    assert html.tone(replace(fine, exit_code=1)) == "failed"
