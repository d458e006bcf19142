"""The report as Markdown, for pull requests and job summaries.

What needs a look comes first, and a page that would be too large for a job summary is cut with a
line that says so.
"""

from __future__ import annotations

from collections.abc import Sequence

from farm.core.printable import one_line, printable
from farm.core.result import CellResult, ExportReport, Report, StageComparison
from farm.reports import attention, nights
from farm.reports.answers import answers_line, no_answer
from farm.reports.summary import HEADERS, artifact_size, export_notes, rows, unreadable
from farm.reports.words import number, percent, seconds, size

#: A job summary of GitHub takes 1 MiB; a byte more and none of it is shown.
MAX_BYTES = 1 << 20
#: Rows of what needs a look, and characters of one of their fields.
_MOST_ROWS, _MOST_TEXT = 200, 400
_CUT = (
    "**Cut here**: a job summary takes no more. The whole report is in report.html and report.json "
    "of this run.\n"
)
_MARKS = {
    "passed": "✅",
    "failed": "❌",
    "inconclusive": "❔",
    "errored": "⚠️",
    "skipped": "⏭️",
    "waived": "🟡",
}


def render(report: Report) -> str:
    """Render the verdict, the cells, what went wrong, exports and devices."""
    parts = [
        f"# {escape(report.name)}: {escape(report.verdict_line)}",
        f"Run `{code(report.run_id)}`, {report.started_at} to {report.ended_at}, "
        f"farm {escape(report.farm.version)}.",
    ]
    parts += [f"> ⚠️ {escape(alarm)}" for alarm in report.alarms]
    entries = attention.findings(report)
    if entries:
        parts += ["## Needs a look", _findings(report, entries)]
    table = [
        (*row.columns[:3], f"{_MARKS.get(row.outcome, '')} {row.outcome}", *row.columns[4:])
        for row in rows(report)
    ]
    parts += ["## Cells", _table(HEADERS, table)]
    noted = [r for r in report.results if (r.reason and r.outcome == "passed") or unreadable(r)]
    if noted:
        parts.append("## Notes\n\n" + "\n".join(_note(result) for result in noted))
    compared = [r for r in report.results if r.baseline is not None]
    if compared:
        parts += ["## Against the baseline", _compared(compared)]
    parts += _nights(report)
    judged = [r for r in report.results if r.correctness is not None and r.correctness.stages]
    if judged:
        parts.append("## Correctness")
        parts += [_stages(result) for result in judged]
    texts = [r for r in report.results if r.correctness and r.correctness.generated_text]
    if texts:
        parts.append("## Generated text")
        parts += [_generated(result) for result in texts]
    asked = [r for r in report.results if r.answers]
    if asked:
        parts.append("## Answers\n\n" + escape(answers_line(report)))
        parts += [_answers(result) for result in asked]
    if report.exports:
        parts.append("## Exports\n\n" + _exports(report.exports))
    if report.toolchains:
        lines = (
            f"- {escape(name)}: executorch {v.executorch}, torch {v.torch}, torchao {v.torchao}, "
            f"Python {v.python}"
            for name, v in sorted(report.toolchains.items())
        )
        parts.append("## Toolchains\n\n" + "\n".join(lines))
    return _fitting(parts)


def _fitting(parts: Sequence[str]) -> str:
    """Join parts up to what a job summary takes."""
    whole = "\n\n".join(parts) + "\n"
    if len(whole.encode()) <= MAX_BYTES:
        return whole
    kept, left = [], MAX_BYTES - len(_CUT.encode())
    for part in parts:
        if len(part.encode()) + 2 > left:
            kept += [_rows_within(part, left - 2)] if part.startswith("| ") else []
            break
        left -= len(part.encode()) + 2
        kept.append(part)
    return "\n\n".join([*kept, _CUT])


def _rows_within(table: str, most: int) -> str:
    """The first rows of a table, in so many bytes."""
    return table.encode()[: max(0, most)].decode(errors="ignore").rpartition("\n")[0]


def _nights(report: Report) -> list[str]:
    """What several nights show, and decoding without a pause."""
    shown = {
        "Over the nights": [
            f"`{code(r.cell_id)}` {escape(line)}"
            for r in report.results
            for line in nights.changes(r)
        ],
        "Without a pause": [
            f"`{code(r.cell_id)}` {escape(nights.sustained(r.sustained))}"
            for r in report.results
            if r.sustained is not None
        ],
        "Self-check": [escape(line) for line in nights.self_check(report)],
    }
    return [
        f"## {head}\n\n" + "\n".join(f"- {line}" for line in lines)
        for head, lines in shown.items()
        if lines
    ]


def escape(text: str) -> str:
    """One line of text without meaning as Markdown or HTML."""
    line = one_line(text)
    for character in "\\`*_[]|~#":
        line = line.replace(character, f"\\{character}")
    line = line.replace("&", "&amp;").replace("<", "&lt;")
    # Within a line this means nothing, and a table shows the arrow that it is.
    return f"&gt;{line[1:]}" if line.startswith(">") else line


def code(text: str) -> str:
    """Text inside backticks."""
    return one_line(text).replace("`", "'")


def _table(headers: Sequence[str], table: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(headers) + " |", "|" + "---|" * len(headers)]
    for row in table:
        cells = ("<br>".join(escape(line) for line in cell.split("\n")) for cell in row)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _findings(report: Report, entries: Sequence[attention.Finding]) -> str:
    headers = ("", "cell", "number", "was", "is", "ratio", "why")
    table = [
        (
            attention.TITLES[entry.group],
            one_line(entry.result.cell_id, _MOST_TEXT),
            one_line(f"{entry.metric} {entry.where}", _MOST_TEXT),
            entry.was,
            entry.now,
            entry.ratio,
            one_line(entry.why, _MOST_TEXT),
        )
        for entry in entries[:_MOST_ROWS]
    ]
    first = code(attention.rerun_command(report, entries[0].result))
    more = len(entries) - _MOST_ROWS
    notes = [f"and {more} more in report.html"] if more > 0 else []
    notes.append(f"Run one of them again: `{first}`")
    return "\n\n".join([_table(headers, table), *notes])


def _note(result: CellResult) -> str:
    line = f"- `{code(result.cell_id)}`"
    if result.reason:
        line += f" {escape(one_line(result.reason, _MOST_TEXT))}"
    missing = unreadable(result)
    if missing:
        line += f" (could not be read: {escape(', '.join(missing))})"
    return line


def _compared(results: Sequence[CellResult]) -> str:
    headers = ("cell", "metric", "verdict", "ratio", "95 %", "why")
    table = []
    for result in results:
        found = result.baseline
        assert found is not None
        if not found.metrics:
            table.append((result.cell_id, "", found.verdict, "-", "-", found.reason))
        for m in found.metrics:
            interval = "-" if m.ci95 is None else f"{m.ci95[0]:.3f} to {m.ci95[1]:.3f}"
            ratio = "-" if m.ratio is None else f"{m.ratio:.3f}"
            table.append((result.cell_id, m.metric, m.verdict, ratio, interval, m.reason))
    return _table(headers, table)


def _stages(result: CellResult) -> str:
    headers = (
        "from",
        "to",
        "path",
        "rows",
        "bit-equal",
        "KL mean",
        "KL max",
        "top-1",
        "perplexity",
    )
    assert result.correctness is not None
    table = [_stage(stage) for stage in result.correctness.stages]
    return f"`{code(result.cell_id)}`\n\n{_table(headers, table)}"


def _stage(stage: StageComparison) -> tuple[str, ...]:
    return (
        stage.from_,
        stage.to,
        stage.path,
        str(stage.tokens),
        "yes" if stage.bit_equal else "no",
        number(stage.kl_mean),
        number(stage.kl_max),
        percent(stage.top1_agreement),
        _perplexities(stage),
    )


def _perplexities(stage: StageComparison) -> str:
    found = [stage.perplexity_from, stage.perplexity_to]
    return " → ".join(number(value) for value in found if value is not None) or "-"


def _generated(result: CellResult) -> str:
    assert result.correctness is not None
    text = _fenced(result.correctness.generated_text or "")
    prompt = escape(result.correctness.prompt)
    return f"`{code(result.cell_id)}`, asked: {prompt}\n\n{text}"


def _answers(result: CellResult) -> str:
    parts = [f"`{code(result.cell_id)}`"]
    for one in result.answers:
        parts.append(f"Asked: {escape(one.prompt)}")
        parts.append(_fenced(one.text) if one.text else escape(no_answer(one)))
    return "\n\n".join(parts)


def _fenced(text: str) -> str:
    text = printable(text)
    # A fence longer than any run of backticks inside can't be closed by the text.
    fence = "`" * max(3, max((len(run) for run in _backticks(text)), default=0) + 1)
    return f"{fence}text\n{text}\n{fence}"


def _backticks(text: str) -> list[str]:
    runs, current = [], ""
    for character in text + " ":
        if character == "`":
            current += character
        elif current:
            runs.append(current)
            current = ""
    return runs


def _exports(exports: Sequence[ExportReport]) -> str:
    headers = ("model", "recipe", "toolchain", "size", "time", "CPU", "peak RSS", "delegated", "")
    table = []
    for e in exports:
        delegation = e.delegation
        table.append(
            (
                e.model,
                e.recipe,
                e.toolchain,
                artifact_size(e.artifact),
                seconds(e.seconds),
                seconds(e.cpu_s),
                size(e.peak_rss_bytes),
                "-" if delegation is None else f"{delegation.delegated}/{delegation.total}",
                _export_note(e),
            )
        )
    return _table(headers, table)


def _export_note(export: ExportReport) -> str:
    if export.error is not None:
        return f"failed: {export.error.message}"
    notes = ["cached"] if export.cache_hit else []
    return "; ".join([*notes, *export_notes(export)])
