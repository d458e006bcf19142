"""JUnit XML, for build servers: one test case per cell, one suite per model and recipe.

failed -> failure; errored -> error; skipped and inconclusive -> skipped, with the reason, since
neither is a wrong model. A waived failure is skipped too.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
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
    root = ET.Element("testsuites", {"name": _text(report.name), **_counts(report.results)})
    # The schema that Jenkins and pytest use has no such attribute at the top.
    del root.attrib["skipped"]
    for name, results in suites.items():
        root.append(_suite(name, results, report))
    ET.indent(root, " ")
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _suite(name: str, results: Sequence[CellResult], report: Report) -> ET.Element:
    suite = ET.Element(
        "testsuite",
        {
            "name": _text(name),
            **_counts(results),
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
    for result in results:
        suite.append(_case(result))
    ET.SubElement(suite, "system-out").text = ""
    ET.SubElement(suite, "system-err").text = ""
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


def _counts(results: Sequence[CellResult]) -> dict[str, str]:
    failed = sum(r.outcome == "failed" and not r.waived for r in results)
    errored = sum(r.outcome == "errored" for r in results)
    passed = sum(r.outcome == "passed" for r in results)
    return {
        "tests": str(len(results)),
        "failures": str(failed),
        "errors": str(errored),
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
