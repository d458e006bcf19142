"""JUnit XML, for build servers: one test case per cell, one suite per model and recipe.

failed -> failure; errored -> error; skipped and inconclusive -> skipped, with the reason, since
neither is a wrong model. A waived failure is skipped too. Build servers take skipped ones for
green, so the run has a case of its own: an error where it didn't end with 0 and no cell shows it.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree as ET

from farm.core.printable import printable
from farm.core.result import CellResult, GateResult, Report
from farm.core.rules.waivers import failing_gates
from farm.reports.summary import row
from farm.reports.words import number

#: What XML 1.0 can't hold, beyond what printable() strips.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(report: Report) -> str:
    """Render the report; device text holds no control characters."""
    suites: dict[str, list[CellResult]] = {}
    for result in report.results:
        suites.setdefault(f"{result.model}/{result.recipe}", []).append(result)
    hidden = _hidden(report)
    counts = _counts(report.results, cases=1, errors=int(hidden))
    root = ET.Element("testsuites", {"name": _text(report.name), **counts})
    # The schema that Jenkins and pytest use has no such attribute at the top.
    del root.attrib["skipped"]
    for name, results in suites.items():
        root.append(_suite(name, results, report))
    root.append(_run(report, hidden=hidden))
    ET.indent(root, " ")
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _hidden(report: Report) -> bool:
    """Whether the run is no success although none of its cells reads as a failure or an error."""
    shown = any(r.outcome in ("failed", "errored") and not r.waived for r in report.results)
    return report.exit_code != 0 and not shown


def _run(report: Report, *, hidden: bool) -> ET.Element:
    suite = _new_suite("farm", _counts((), cases=1, errors=int(hidden)), report)
    case = ET.SubElement(suite, "testcase", {"name": "run", "classname": "farm", "time": "0.000"})
    line = _text(report.verdict_line)
    body = _text("\n".join([report.verdict_line, *report.alarms]))
    if hidden:
        ET.SubElement(case, "error", {"message": line, "type": "incomplete"}).text = body
    ET.SubElement(case, "system-out").text = body
    return _closed(suite)


def _suite(name: str, results: Sequence[CellResult], report: Report) -> ET.Element:
    suite = _new_suite(name, _counts(results), report)
    for result in results:
        suite.append(_case(result))
    return _closed(suite)


def _closed(suite: ET.Element) -> ET.Element:
    ET.SubElement(suite, "system-out").text = ""
    ET.SubElement(suite, "system-err").text = ""
    return suite


def _new_suite(name: str, counts: Mapping[str, str], report: Report) -> ET.Element:
    suite = ET.Element(
        "testsuite",
        {
            "name": _text(name),
            **counts,
            "timestamp": report.started_at.removesuffix("Z")[:19],
            "hostname": _text(str(report.host.get("name") or "localhost")),
        },
    )
    properties = ET.SubElement(suite, "properties")
    for key, value in (
        ("run_id", report.run_id),
        ("config_sha256", report.config_sha256),
        ("farm", report.farm.version),
    ):
        ET.SubElement(properties, "property", {"name": key, "value": _text(value)})
    return suite


def _case(result: CellResult) -> ET.Element:
    case = ET.Element(
        "testcase",
        {
            "name": _text(result.cell_id),
            "classname": _text(f"{result.model}.{result.recipe}.{result.device.name}"),
            "time": f"{_duration_s(result):.3f}",
        },
    )
    reason = _text(result.reason)
    if result.outcome == "errored":
        error = result.attempts[-1].error if result.attempts else None
        kind = "FarmError" if error is None else error.kind
        ET.SubElement(case, "error", {"message": reason, "type": kind}).text = reason
    elif result.outcome == "failed" and not result.waived:
        failure = ET.SubElement(case, "failure", {"message": reason, "type": "gate"})
        failure.text = "\n".join(_gate(gate) for gate in failing_gates(result)) or reason
    elif result.outcome != "passed":
        prefix = "waived" if result.waived else result.outcome
        ET.SubElement(case, "skipped", {"message": f"{prefix}: {reason}"})
    words = row(result)
    lines = [
        f"{name}: {value}".replace("\n", "; ")
        for name, value in (
            ("correctness", words.correctness),
            ("speed", result.speed_decision),
            ("prefill tok/s", words.prefill),
            ("decode tok/s", words.decode),
            ("TTFT", words.ttft),
            ("peak RSS", words.peak_rss),
            ("trust", words.trust),
        )
        if value
    ]
    ET.SubElement(case, "system-out").text = _text("\n".join(lines))
    return case


def _counts(results: Sequence[CellResult], *, cases: int = 0, errors: int = 0) -> dict[str, str]:
    """Count the cells, and so many cases and errors besides."""
    failed = sum(r.outcome == "failed" and not r.waived for r in results)
    errored = sum(r.outcome == "errored" for r in results)
    passed = sum(r.outcome == "passed" for r in results)
    return {
        "tests": str(len(results) + cases),
        "failures": str(failed),
        "errors": str(errored + errors),
        "skipped": str(len(results) - failed - errored - passed),
        "time": f"{sum(_duration_s(r) for r in results):.3f}",
    }


def _duration_s(result: CellResult) -> float:
    """Time on the device, all attempts."""
    total = 0.0
    for attempt in result.attempts:
        if attempt.started_at and attempt.ended_at:
            start = datetime.datetime.fromisoformat(attempt.started_at)
            total += (datetime.datetime.fromisoformat(attempt.ended_at) - start).total_seconds()
    return max(0.0, total)


def _gate(gate: GateResult) -> str:
    bound = "" if gate.threshold is None else f" wanted {gate.op} {number(gate.threshold)}"
    value = "" if gate.value is None else f" {number(gate.value)}"
    return _text(f"{gate.metric}{value}{bound} {gate.text} {gate.reason}".strip())


def _text(text: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", printable(text))
