"""Each format as its receiver reads it: no cell is greener there than it is, no text is active."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from farm.core.comparison import BaselineReport, MetricComparison
from farm.core.plan import Cell
from farm.core.result import CellResult, GateResult, Report
from farm.reports import renderers
from farm.reports.summary import rows
from tests.unit.reports.builders import ARTIFACT, EVIL, report, results

OLD = "20260101-old"
FORMATS = ("junit", "markdown", "html", "table", "pytorch", "openmetrics", "csv", "llama-bench")


def named(name: str, result: CellResult, **changes: object) -> CellResult:
    """A cell of its own, on a device of that name."""
    planned = Cell(f"{ARTIFACT}:executorch:auto:{name}", ARTIFACT, "executorch", 0, (name,), name)
    device = replace(result.device, name=name)
    return replace(result, cell_id=planned.cell_id, device=device, **changes)  # type: ignore[arg-type]


def against(verdict: str, *metrics: MetricComparison, reason: str = "") -> BaselineReport:
    return BaselineReport(OLD, verdict, None, None, metrics, reason)  # type: ignore[arg-type]


def cells() -> tuple[CellResult, ...]:
    """Every way in which a cell can end."""
    passed, unread, failed, noisy, errored, skipped = results()
    slow = MetricComparison("tg32", "REGRESSED", 0.9, (0.88, 0.92), "0.9x the baseline")
    less = replace(slow, verdict="SLOWER", ratio=0.985, ci95=(0.98, 0.99))
    other = MetricComparison("tg32", "INCOMPARABLE", None, None, "threads: 4, was 2")
    return (
        named("passed", passed),
        named("unread", unread),
        named("slower", passed, baseline=against("SLOWER", less)),
        named("unanchored", passed, flags=("unanchored",), conditions={"source": "none: no torch"}),
        named("failed", failed),
        named("regressed", passed, outcome="failed", reason="REGRESSED: tg32 0.9x the baseline",
              baseline=against("REGRESSED", slow), speed_decision="failed"),
        named("waived", failed, waived=True),
        named("noisy", noisy),
        named("incomparable", passed, outcome="inconclusive", reason="INCOMPARABLE: other threads",
              flags=("incomparable",), baseline=against("INCOMPARABLE", other)),
        named("alien", passed, outcome="inconclusive", reason="INCOMPARABLE: other workload",
              flags=("incomparable",),
              baseline=against("INCOMPARABLE", reason="other workload")),
        named("insufficient", passed, outcome="inconclusive", reason="too few pairs",
              flags=("insufficient",), speed_decision="undecided"),
        named("errored", errored),
        named("missing", skipped),
        named("interrupted", skipped, flags=("interrupted",), reason="interrupted"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def all_ways() -> Report:
    return report(cells())


def greens_of_junit(text: str) -> set[str]:
    found = set()
    for case in ET.fromstring(text).iter("testcase"):
        if not {"failure", "error", "skipped"} & {child.tag for child in case}:
            found.add((case.get("name") or "").rpartition(":")[2])
    return found - {"run"}


def greens_of_csv(text: str) -> set[str]:
    lines = csv.DictReader(io.StringIO(text))
    return {line["device"] for line in lines if line["outcome"] == "passed"}


def greens_of_openmetrics(text: str) -> set[str]:
    families = text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
    gauge = next(f for f in families if f.name == "farm_cell_passed")
    return {sample.labels["device"] for sample in gauge.samples if sample.value == 1}


def greens_of_pytorch(text: str) -> set[str]:
    return {
        record["runners"][0]["name"]
        for record in json.loads(text)
        if record["benchmark"]["extra_info"]["outcome"] == "passed"
    }


def greens_of_llama_bench(text: str) -> set[str]:
    lines = map(json.loads, text.splitlines())
    return {line["farm_device"] for line in lines if line["farm_outcome"] == "passed"}


def greens_of_markdown(text: str) -> set[str]:
    table = text.split("## Cells")[1].split("\n## ")[0]
    return {line.split("|")[1].strip() for line in table.splitlines() if "✅" in line}


def greens_of_html(text: str) -> set[str]:
    shown = re.findall(r'<tr data-n="(\d+)" data-outcome="passed">', text)
    return {cells()[int(n)].device.name for n in shown}


READERS: dict[str, Callable[[str], set[str]]] = {
    "junit": greens_of_junit,
    "csv": greens_of_csv,
    "openmetrics": greens_of_openmetrics,
    "pytorch": greens_of_pytorch,
    "llama-bench": greens_of_llama_bench,
    "markdown": greens_of_markdown,
    "html": greens_of_html,
}


@pytest.mark.parametrize("name", READERS)
def test_only_what_passed_reads_as_passed(all_ways: Report, name: str) -> None:
    found = READERS[name](renderers.render(all_ways, name))
    assert found == {"passed", "unread", "slower", "unanchored"}


@pytest.mark.parametrize("name", ["junit", "markdown", "html", "pytorch", "csv"])
def test_every_cell_is_named(all_ways: Report, name: str) -> None:
    """A cell that gave no number is no smaller night."""
    text = renderers.render(all_ways, name)
    assert [r.device.name for r in all_ways.results if r.cell_id not in text] == []


@pytest.mark.parametrize("name", ["junit", "markdown", "html", "table"])
def test_what_a_green_lacks_is_said(all_ways: Report, name: str) -> None:
    text = renderers.render(all_ways, name)
    for words in ("unverified", "SLOWER", "unanchored", "no torch"):
        assert words in text, words


def test_the_line_of_the_run_counts_what_the_formats_show(all_ways: Report) -> None:
    assert all_ways.exit_code == 1
    line = all_ways.verdict_line
    assert line.startswith("7/14 judged: 4 passed, 2 failed, 1 waived, 1 retried; 7 not judged (")
    assert "1 interrupted" in line
    junit = ET.fromstring(renderers.render(all_ways, "junit"))
    totals = {key: int(junit.get(key) or 0) for key in ("tests", "failures", "errors")}
    assert totals == {"tests": 15, "failures": 2, "errors": 1}
    shown = [row.outcome for row in rows(all_ways)]
    assert (shown.count("passed"), shown.count("failed"), shown.count("waived")) == (4, 2, 1)


def test_an_interrupted_run_is_green_nowhere() -> None:
    first = report(cells()[:1])
    ended = replace(first, exit_code=130, verdict_line="1/1 judged: 1 passed -> exit 130")
    assert "<error" in renderers.render(ended, "junit")
    assert " 130.0" in renderers.render(ended, "openmetrics")
    assert '<p class="verdict inconclusive">' in renderers.render(ended, "html")


def test_csv_names_the_verdict_of_a_baseline_that_compared_no_metric(all_ways: Report) -> None:
    lines = list(csv.DictReader(io.StringIO(renderers.render(all_ways, "csv"))))
    verdicts = {
        line["device"]: line["baseline_verdict"]
        for line in lines
        if (line["metric"], line["regime"]) == ("tg32", "warm")
    }
    assert verdicts["alien"] == verdicts["incomparable"] == "INCOMPARABLE"
    assert verdicts["passed"] == ""


def test_the_ratio_to_a_baseline_is_a_gauge(all_ways: Report) -> None:
    families = text_string_to_metric_families(renderers.render(all_ways, "openmetrics"))  # type: ignore[no-untyped-call]
    gauge = next(f for f in families if f.name == "farm_baseline_ratio")
    found = {(s.labels["device"], s.labels["verdict"]): s.value for s in gauge.samples}
    assert found == {("slower", "SLOWER"): 0.985, ("regressed", "REGRESSED"): 0.9}


def test_alarms_of_a_green_run_are_in_junit() -> None:
    green = replace(report(cells()[:1]), alarms=("device s24: OS build is b2, was b1",))
    assert green.exit_code == 0
    root = ET.fromstring(renderers.render(green, "junit"))
    said = [case.findtext("system-out") for case in root.iter("testcase")]
    assert any("OS build is b2" in (text or "") for text in said)


#: What a device, a model or a person may write: markup of every receiver, and much of it.
HOSTILE = (
    f"=1+1|</td><img src=x onerror=alert(1)>&lt; ]]>\n# EOF\n`{EVIL}` "
    '\u202e\u05e9\u05dc\u05d5\u05dd\ud800"\\'
)


def hostile() -> Report:
    """All ways once more, with hostile names and messages wherever there is text."""
    changed = []
    for n, r in enumerate(cells()):
        text = f"{HOSTILE}{n}"
        correct = r.correctness and replace(
            r.correctness,
            prompt=text,
            generated_text=text,
            gates=(GateResult(text, ">=", 1.0, 0.5, r.outcome == "passed", text, text),),
        )
        changed.append(
            replace(
                r,
                cell_id=text,
                model=text,
                recipe=text,
                reason=text if r.reason else "",
                flags=(*r.flags, text),
                correctness=correct,
                device=replace(r.device, name=text, os=text, soc=text),
                baseline=r.baseline and replace(r.baseline, run_id=text, reason=text),
            )
        )
    made = replace(report(), results=tuple(changed), name=HOSTILE, run_id=HOSTILE)
    return replace(made, alarms=(HOSTILE,), verdict_line=f"{HOSTILE} -> exit 1")


#: What acts on a terminal, as JSON escapes it.
_ACTIVE = re.compile(r"\\u(00[01][0-9a-f]|00[89][0-9a-f]|202e|d800)")


@pytest.mark.parametrize("name", FORMATS)
def test_hostile_text_is_only_text(name: str) -> None:
    made = hostile()
    text = renderers.render(made, name)
    text.encode()  # no lone surrogate
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)
    match name:
        case "junit":
            tags = {element.tag for element in ET.fromstring(text).iter()}
            assert "img" not in tags
        case "csv":
            lines = list(csv.reader(io.StringIO(text)))
            assert {len(line) for line in lines} == {len(lines[0])}
            # A spreadsheet takes such a field for a formula.
            assert not [f for line in lines for f in line if f.startswith(("=", "+", "@"))]
        case "openmetrics":
            families = list(text_string_to_metric_families(text))  # type: ignore[no-untyped-call]
            assert len(families) > 5
        case "markdown":
            outside = re.sub(r"(?ms)^(`{3,})text\n.*?^\1$", "", text)
            assert not re.search(r"<(?!br>)[a-z/]", re.sub(r"`[^`\n]*`", "", outside))
            cells_table = text.split("## Cells")[1].split("\n## ")[0].strip().splitlines()
            assert {len(re.findall(r"(?<!\\)\|", line)) for line in cells_table} == {11}
        case "html":
            assert "<img src=x" not in text
        case "pytorch":
            assert not _ACTIVE.search(json.dumps(json.loads(text)))
        case "llama-bench":
            assert not _ACTIVE.search(json.dumps([json.loads(line) for line in text.splitlines()]))


def test_markdown_names_what_failed_however_long_its_messages_are() -> None:
    first = report().results[2]
    gate = GateResult("perplexity", "<=", 1.0, 2.0, False, "<= 1.01x host", "w" * 30_000)
    assert first.correctness is not None
    wrong = replace(first, correctness=replace(first.correctness, gates=(gate,)))
    many = tuple(replace(wrong, cell_id=f"cell-{n}") for n in range(300))
    text = renderers.render(replace(report(), results=many), "markdown")
    assert len(text.encode()) <= 1 << 20
    look = text.split("## Needs a look")[1]
    assert look.count("perplexity") >= 100
