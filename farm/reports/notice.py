"""What a nightly tells people: a subject and a short text, of its run or of why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from farm.core.printable import one_line
from farm.core.result import CellResult, Report
from farm.reports import nights

#: Cells and alarms that are told in full.
MOST = 20


@dataclass(frozen=True, slots=True)
class Notice:
    """One message about one nightly."""

    subject: str
    body: str

    @property
    def mail(self) -> str:
        """Subject, an empty line, and the text; the subject is one line."""
        return f"{self.subject}\n\n{self.body}\n"

    @property
    def webhook(self) -> dict[str, str]:
        """The message as Slack and others that speak its format take it."""
        text = f"*{self.subject}*\n{self.body}"
        for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
            text = text.replace(character, entity)
        return {"text": text}


def of_run(report: Report, folder: Path) -> Notice:
    """Say how a run ended: its last line, what didn't pass, its alarms, where its reports are."""
    told = [
        r for r in report.results if r.outcome != "passed" or r.waived or "SLOWER" in _verdict(r)
    ]
    parts = [
        report.verdict_line,
        *_some("", [_line(result) for result in told]),
        *_some("Alarms:", [one_line(alarm, 400) for alarm in report.alarms]),
        *_some(
            "Over the nights:",
            [f"{one_line(r.cell_id)} {line}" for r in report.results for line in nights.changes(r)],
        ),
        *nights.self_check(report),
        f"Reports: {folder}",
    ]
    word = {0: "passed", 1: "FAILED", 3: "incomplete", 130: "interrupted"}.get(report.exit_code, "")
    subject = f"farm nightly {one_line(report.name)}: {word} (exit {report.exit_code})"
    return Notice(subject, "\n".join(parts))


def of_deployment(report: Report, folder: Path, code: int, line: str) -> Notice:
    """Say that a green night was not deployed as it should be, then how the night ended."""
    subject = f"farm nightly {one_line(report.name)}: passed, NOT DEPLOYED to all (exit {code})"
    return Notice(subject, f"Deployment: {one_line(line, 400)}\n{of_run(report, folder).body}")


def of_error(config: str, message: str, code: int) -> Notice:
    """Say that a nightly ended before there was a run."""
    subject = f"farm nightly {one_line(config)}: no report (exit {code})"
    return Notice(subject, f"{message.strip()}\nThis night has no report.")


def _line(result: CellResult) -> str:
    word: str = "waived" if result.waived else result.outcome
    if result.outcome == "passed":
        word = f"{word}, SLOWER"
    reason = f": {one_line(result.reason, 400)}" if result.reason else ""
    return f"{word} {one_line(result.cell_id)}{reason}"


def _verdict(result: CellResult) -> str:
    return "" if result.baseline is None else result.baseline.verdict


def _some(head: str, lines: list[str]) -> list[str]:
    more = [f"- and {len(lines) - MOST} more"] if len(lines) > MOST else []
    listed = [f"- {line}" for line in lines[:MOST]]
    return [*([head] if head and lines else []), *listed, *more]
