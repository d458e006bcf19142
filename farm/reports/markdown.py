"""The report as Markdown, for pull requests and job summaries."""

from __future__ import annotations

from collections.abc import Sequence

from farm.core.printable import one_line, printable
from farm.core.result import CellResult, ExportReport, Report, StageComparison
from farm.reports.summary import HEADERS, artifact_size, export_notes, rows, unreadable
from farm.reports.words import number, percent, seconds, size

_MARKS = {
    "passed": "✅",
    "failed": "❌",
    "inconclusive": "❔",
    "errored": "⚠️",
    "skipped": "⏭️",
    "waived": "☑️",
}


def render(report: Report) -> str:
    """Render the verdict, the cells, what went wrong, exports and devices."""
    parts = [
        f"# {escape(report.name)}: {escape(report.verdict_line)}",
        f"Run `{code(report.run_id)}`, {report.started_at} to {report.ended_at}, "
        f"farm {escape(report.farm.version)}.",
    ]
    parts += [f"> ⚠️ {escape(alarm)}" for alarm in report.alarms]
    table = [
        (*row.columns[:3], f"{_MARKS.get(row.outcome, '')} {row.outcome}", *row.columns[4:])
        for row in rows(report)
    ]
    parts.append(_table(HEADERS, table))
    troubled = [r for r in report.results if r.reason or unreadable(r)]
    if troubled:
        parts.append("## Reasons\n\n" + "\n".join(_reason(result) for result in troubled))
    judged = [r for r in report.results if r.correctness is not None and r.correctness.stages]
    if judged:
        parts.append("## Correctness")
        parts += [_stages(result) for result in judged]
    texts = [r for r in report.results if r.correctness and r.correctness.generated_text]
    if texts:
        parts.append("## Generated text")
        parts += [_generated(result) for result in texts]
    if report.exports:
        parts.append("## Exports\n\n" + _exports(report.exports))
    if report.toolchains:
        lines = [
            f"- {escape(name)}: executorch {v.executorch}, torch {v.torch}, torchao {v.torchao}, "
            f"Python {v.python}"
            for name, v in sorted(report.toolchains.items())
        ]
        parts.append("## Toolchains\n\n" + "\n".join(lines))
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """One line of text without meaning as Markdown or HTML."""
    line = one_line(text)
    for character in "\\`*_[]|~#":
        line = line.replace(character, f"\\{character}")
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def code(text: str) -> str:
    """Text inside backticks."""
    return one_line(text).replace("`", "'")


def _table(headers: Sequence[str], table: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(headers) + " |", "|" + "---|" * len(headers)]
    for row in table:
        cells = ("<br>".join(escape(line) for line in cell.split("\n")) for cell in row)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _reason(result: CellResult) -> str:
    line = f"- `{code(result.cell_id)}` {result.outcome}"
    if result.reason:
        line += f": {escape(result.reason)}"
    missing = unreadable(result)
    if missing:
        line += f" (could not be read: {escape(', '.join(missing))})"
    return line


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
        f"{number(stage.perplexity_from)} → {number(stage.perplexity_to)}",
    )


def _generated(result: CellResult) -> str:
    assert result.correctness is not None
    text = printable(result.correctness.generated_text or "")
    # A fence longer than any run of backticks inside can't be closed by the text.
    fence = "`" * max(3, max((len(run) for run in _backticks(text)), default=0) + 1)
    prompt = escape(result.correctness.prompt)
    return f"`{code(result.cell_id)}`, asked: {prompt}\n\n{fence}text\n{text}\n{fence}"


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
