from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from farm.core.comparison import BaselineReport, MetricComparison
from farm.core.result import Report
from farm.reports import html
from farm.reports.strip import strip
from tests.unit.reports.builders import EVIL, report

VOID = {"meta", "br", "rect", "line", "img", "link"}


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


def test_the_page_asks_for_nothing_and_runs_nothing(full: Report) -> None:
    page = parsed(full)
    assert not {"script", "link", "img", "iframe", "object", "embed", "form"} & set(page.tags)
    for name, value in page.attributes:
        assert not name.startswith("on"), (name, value)
        if name in ("href", "src", "action", "xlink:href", "style"):
            assert re.fullmatch(r"#cell\d+", value), (name, value)
    style = html.render(full).split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    assert ("http-equiv", "Content-Security-Policy") in page.attributes


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
    assert "script" not in page.tags
    assert any('<script>alert("1")</script>' in words for words in page.words)


def test_every_cell_has_its_details_and_its_link(full: Report) -> None:
    page = parsed(full)
    ids = [value for name, value in page.attributes if name == "id"]
    links = [value for name, value in page.attributes if name == "href"]
    assert ids == [f"cell{n}" for n in range(6)]
    assert links == [f"#{name}" for name in ids]
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


def test_a_strip_has_a_dot_for_each_sample(full: Report) -> None:
    metric = next(p for p in full.results[0].performance if p.metric == "tg32")
    svg = strip(metric)
    assert svg.count("<circle") == len(metric.samples)
    xs = [float(x) for x in re.findall(r'cx="([\d.]+)"', svg)]
    assert all(0 <= x <= 420 for x in xs)
    ordered = sorted(range(len(xs)), key=lambda n: metric.samples[n].value)
    assert [xs[n] for n in ordered] == sorted(xs)
    assert strip(replace(metric, samples=())) == ""


def test_equal_samples_and_wide_intervals_can_be_drawn(full: Report) -> None:
    metric = next(p for p in full.results[0].performance if p.metric == "load")
    assert "<circle" in strip(metric)
    assert "<circle" in strip(replace(metric, ci95=(1e-9, 1e9)))
