from __future__ import annotations

import json
import re
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from farm.core.comparison import BaselineReport, MetricComparison
from farm.core.errors import UnknownName
from farm.core.result import Report
from farm.core.rules import verdict
from farm.reports import junit, markdown, renderers, table
from farm.reports.summary import rows, unreadable
from tests.unit.reports.builders import report

CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")
FORMATS = ("json", "junit", "markdown", "html", "table", "pytorch", "openmetrics", "csv")


@pytest.fixture(scope="module")
def full() -> Report:
    return report()


def test_the_report_has_every_outcome(full: Report) -> None:
    outcomes = [result.outcome for result in full.results]
    assert outcomes == ["passed", "passed", "failed", "inconclusive", "errored", "skipped"]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_renders_and_is_pure(full: Report, name: str) -> None:
    text = renderers.render(full, name)
    assert text
    assert text == renderers.render(full, name)


@pytest.mark.parametrize("name", FORMATS)
def test_an_empty_run_renders(name: str) -> None:
    assert renderers.render(report(()), name)


@pytest.mark.parametrize("name", FORMATS)
def test_no_control_character_of_a_device_reaches_a_file(full: Report, name: str) -> None:
    assert not CONTROLS.search(renderers.render(full, name))


def test_an_unknown_format_names_those_that_exist(full: Report) -> None:
    with pytest.raises(UnknownName, match="junit"):
        renderers.render(full, "pdf")


# JUnit: the rules of the schema that Jenkins publishes and pytest tests itself against.
ALLOWED = {
    "testsuites": {"name", "tests", "failures", "errors", "disabled", "time"},
    "testsuite": {"name", "tests", "failures", "errors", "skipped", "disabled", "time",
                  "timestamp", "hostname", "id", "package"},
    "testcase": {"name", "classname", "time", "status", "assertions", "file", "line"},
    "failure": {"message", "type"},
    "error": {"message", "type"},
    "skipped": {"message", "type"},
    "properties": set(),
    "property": {"name", "value"},
    "system-out": set(),
    "system-err": set(),
}  # fmt: skip
CHILDREN = {
    "testsuites": ["testsuite"],
    "testsuite": ["properties", "testcase", "system-out", "system-err"],
    "testcase": ["skipped", "error", "failure", "system-out", "system-err"],
    "properties": ["property"],
}


def assert_junit(element: ET.Element) -> None:
    assert element.tag in ALLOWED, element.tag
    assert set(element.attrib) <= ALLOWED[element.tag], element.attrib
    order = CHILDREN.get(element.tag, [])
    positions = [order.index(child.tag) for child in element]
    assert positions == sorted(positions)
    for child in element:
        assert_junit(child)


def test_junit_follows_the_usual_schema(full: Report) -> None:
    root = ET.fromstring(junit.render(full))
    assert root.tag == "testsuites"
    assert_junit(root)
    for suite in root:
        cases = suite.findall("testcase")
        assert suite.get("tests") == str(len(cases))
        for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert suite.get(name) == str(sum(case.find(tag) is not None for case in cases))
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.get("timestamp") or "")


def test_junit_tells_wrong_from_broken_from_not_judged(full: Report) -> None:
    root = ET.fromstring(junit.render(full))
    found = {}
    for case in root.iter("testcase"):
        place = (case.get("name") or "").rpartition(":")[2]
        tags = [c.tag for c in case if c.tag in ("failure", "error", "skipped")]
        found[place] = tags
    assert found == {
        "local": [],
        "s24": [],
        "s23": ["failure"],
        "s22": ["skipped"],
        "pixel8": ["error"],
        "tablet": ["skipped"],
        "run": [],
    }
    bodies = [(case.tag, case.text) for tag in ("failure", "error") for case in root.iter(tag)]
    assert all((text or "").strip() for _, text in bodies), bodies
    error = root.find(".//error")
    assert error is not None
    assert error.get("type") == "DeviceLost"


def test_a_waived_failure_is_skipped_in_junit(full: Report) -> None:
    waived = tuple(replace(r, waived=True) if r.outcome == "failed" else r for r in full.results)
    root = ET.fromstring(junit.render(replace(full, results=waived)))
    assert root.find(".//failure") is None
    assert any((s.get("message") or "").startswith("waived") for s in root.iter("skipped"))


def test_a_request_that_no_device_meets_takes_the_green(full: Report) -> None:
    made = report(full.results[:1], ("devices.1: no device is `name=pixle8`",))
    assert made.exit_code == 3
    assert made.verdict_line.endswith("; devices.1: no device is `name=pixle8` -> exit 3")
    assert made.alarms[0] == "devices.1: no device is `name=pixle8`"


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "json"])
@pytest.mark.parametrize(
    ("cells", "code"),
    [((0,), 0), ((0, 1), 3), ((2,), 1), ((3,), 3), ((5,), 3)],
    ids=["green", "passed, and not proven", "failed", "not decided", "skipped"],
)
def test_no_format_is_greener_than_the_exit_code(
    full: Report, name: str, cells: tuple[int, ...], code: int
) -> None:
    made = report(tuple(full.results[n] for n in cells))
    made = verdict.unproven(made, "nobody looked") if len(cells) == 2 else made
    assert made.exit_code == code
    text = renderers.render(made, name)
    match name:
        case "junit":
            red = [*ET.fromstring(text).iter("failure"), *ET.fromstring(text).iter("error")]
            assert bool(red) == (code != 0)
            assert made.verdict_line.replace(">", "&gt;") in text
        case "openmetrics":
            assert re.search(rf"^farm_run_exit_code{{.*}} {code}\.0$", text, re.MULTILINE)
        case "csv":
            assert {line.rsplit(",", 1)[1] for line in text.splitlines()[1:]} == {str(code)}
        case "pytorch":
            told = {one["benchmark"]["extra_info"]["exit_code"] for one in json.loads(text)}
            assert told <= {str(code)}
        case _:
            assert f"exit {code}" in text


def test_markdown_holds_device_text_as_text(full: Report) -> None:
    text = markdown.render(full)
    assert "<script>" not in re.sub(r"(?ms)^(`{3,})text\n.*?^\1$", "", text)
    for line in text.splitlines():
        if line.startswith("| ") and "eager" not in line:
            assert len(re.findall(r"(?<!\\)\|", line)) in (11, 10, 8, 4), line


def test_markdown_says_verdict_alarms_and_reasons(full: Report) -> None:
    text = markdown.render(full)
    assert "2 passed, 1 failed" in text
    assert "tied weights are stored twice" in text
    assert "could not be read" in text


def test_the_plain_table_is_aligned(full: Report) -> None:
    text = table.render(full)
    lines = text.splitlines()
    outcome = lines[0].index("outcome")
    assert all(line[outcome - 2 : outcome].strip() == "" for line in lines[:8])
    assert lines[-1] == full.verdict_line
    assert not [line for line in lines if line != line.rstrip()]


def test_wide_characters_take_two_columns() -> None:
    lines = table.columns(("a", "b"), [("日本", "x"), ("abcd", "y")])
    assert lines[2] == "日本  x"
    assert lines[3] == "abcd  y"


def test_rows_say_what_was_found(full: Report) -> None:
    local, s24, s23, s22, pixel, tablet = rows(full)
    assert local.correctness.startswith("bit-equal, ppl ")
    assert re.fullmatch(r"\d+ ±[\d.]+ %", local.prefill), local.prefill
    assert local.peak_rss == "134 MiB"
    assert s24.correctness.startswith("KL 0.")
    assert "retried" in s24.trust
    assert s23.correctness.startswith("4 failed: KL 11, ")
    assert s22.trust.startswith("noisy")
    assert (pixel.correctness, pixel.decode, pixel.trust) == ("", "", "device_lost")
    assert tablet.outcome == "skipped"
    assert unreadable(full.results[1]) == ["clock_cap", "hidden_cap"]


def test_axes_are_named_only_where_they_differ(full: Report) -> None:
    assert {row.recipe for row in rows(full)} == {"xnnpack-8da4w"}
    first, *rest = full.results
    mixed = replace(full, results=(replace(first, threads=4), *rest))
    assert {row.recipe for row in rows(mixed)} == {"xnnpack-8da4w t4", "xnnpack-8da4w auto"}


def test_a_row_says_how_its_speed_stands_where_the_outcome_does_not(full: Report) -> None:
    local = full.results[0]
    assert "speed" not in rows(full)[0].trust
    ungated = replace(local, speed_decision="not gated")
    undecided = replace(local, speed_decision="undecided", outcome="inconclusive")
    slower = replace(local, baseline=BaselineReport("old", "SLOWER", 0.97, (0.96, 0.98)))
    found = rows(replace(full, results=(ungated, undecided, slower)))
    assert [row.trust for row in found] == ["ok, speed not gated", "ok, speed undecided",
                                            "ok, SLOWER"]  # fmt: skip
    for name in ("table", "markdown", "html", "junit"):
        text = renderers.render(replace(full, results=(ungated,)), name)
        assert "not gated" in text, name


def test_a_regression_has_a_body_in_junit(full: Report) -> None:
    metric = MetricComparison("tg32", "REGRESSED", 0.9, (0.88, 0.92), "0.9x the baseline")
    passing = MetricComparison("pp64", "PASS", 1.0, (0.98, 1.02))
    baseline = BaselineReport("old", "REGRESSED", 0.9, (0.88, 0.92), (metric, passing))
    slow = replace(full.results[0], outcome="failed", reason="REGRESSED", baseline=baseline)
    root = ET.fromstring(junit.render(replace(full, results=(slow,))))
    failure = root.find(".//failure")
    assert failure is not None
    assert failure.text == "regress 0.9 tg32 0.9x the baseline"


def test_what_cells_say_of_their_devices_is_an_alarm_once() -> None:
    cells = tuple(
        replace(cell, alarms=("device s24: OS build is b2, was b1",))
        for cell in report().results[:2]
    )
    assert report(cells).alarms.count("device s24: OS build is b2, was b1") == 1


def test_markdown_fits_a_job_summary_and_says_where_it_was_cut(full: Report) -> None:
    many = tuple(replace(r, cell_id=f"{r.cell_id}#{n}") for n in range(400) for r in full.results)
    text = markdown.render(replace(full, results=many))
    assert len(text.encode()) <= 1 << 20
    assert text.index("Needs a look") < text.index("## Cells") < text.index("Cut here")
    assert "Cut here" not in markdown.render(full)


def test_markdown_holds_a_cell_against_its_baseline(full: Report) -> None:
    metric = MetricComparison("tg32", "REGRESSED", 0.5, (0.45, 0.55), "half as fast")
    baseline = BaselineReport("old-run", "REGRESSED", 0.5, (0.45, 0.55), (metric,))
    first = replace(full.results[0], baseline=baseline)
    text = markdown.render(replace(full, results=(first,)))
    assert "| tg32 | REGRESSED | 0.500 | 0.450 to 0.550 | half as fast |" in text
    assert "- → -" not in text
    assert "&gt;" not in text.splitlines()[0]
