"""Rich tables for results, plans, exports and checks. Only words and colours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.text import Text

from farm.commands.compare import Compared
from farm.commands.doctor import Check
from farm.commands.history import Line
from farm.core.artifact import Recipe
from farm.core.plan import Cell, Decides, Plan, measuring_at_most_s
from farm.core.printable import one_line, printable
from farm.core.result import ExportReport, PerformanceReport, Report
from farm.core.rules.family import SECOND_BUDGET
from farm.core.rules.launches import measures
from farm.core.rules.tolerance import speed_tolerance
from farm.core.spec import RunSpec
from farm.reports.answers import answers_line, no_answer
from farm.reports.summary import HEADERS, artifact_size, export_notes, rows, unreadable
from farm.reports.words import number, seconds, size
from farm.ui import speed
from farm.ui.frame import new_table
from farm.ui.screen import MARKS, STYLES

#: Up to this many cells are shown with all of their metrics.
FEW = 2
#: A terminal of fewer columns breaks the words of the cells' table.
NARROW = 120
_CHECKS = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "error": ("✗", "bold red")}


class _Cells:
    """The cells of a run: a table, or some lines for each where the table would be too narrow."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if options.max_width < NARROW:
            for columns in self._columns():
                device, model, recipe, outcome, *numbers, trust = columns
                yield Text.assemble(outcome, "  ", f"{device} · {model} · {recipe}")
                named = zip(HEADERS[4:-1], numbers, strict=True)
                words = [f"{name} {value}" for name, value in named if value.plain]
                words += [trust.plain] if trust.plain else []
                yield Padding(Text(", ".join(words), "dim"), (0, 0, 0, 2))
            return
        table = new_table(*HEADERS, right=("prefill tok/s", "decode tok/s", "TTFT", "peak RSS"))
        for columns in self._columns():
            table.add_row(*columns)
        yield table

    def _columns(self) -> Iterator[list[Text]]:
        """The words of each cell in the order of HEADERS."""
        for result, row in zip(self._report.results, rows(self._report), strict=True):
            columns = [Text(column) for column in row.columns]
            mark = MARKS.get(result.outcome, "")
            columns[3] = Text(f"{mark} {row.outcome}", STYLES.get(result.outcome, ""))
            columns[-1].stylize(speed.TRUST.get(row.trust.split(",")[0], ""))
            yield columns


def report(report: Report) -> RenderableType:
    """Results of a run: the cells, why some didn't pass, alarms, and one generated text."""
    parts: list[RenderableType] = [_Cells(report)]
    if len(report.results) <= FEW:
        parts += [speed.speeds(r.performance) for r in report.results if r.performance]
    compared = [r for r in report.results if r.baseline is not None]
    for result in compared if len(compared) <= FEW else ():
        assert result.baseline is not None
        parts += speed.comparison(result.baseline)
    for result in report.results:
        if result.reason:
            style = STYLES.get(result.outcome, "")
            parts.append(Text.assemble((f"{result.outcome} ", style), one_line(result.cell_id)))
            parts.append(Text(f"  {one_line(result.reason)}"))
    missing = sorted({name for result in report.results for name in unreadable(result)})
    if missing:
        parts.append(Text(f"unverified: could not be read: {', '.join(missing)}", "dim"))
    parts += [Text(f"alarm: {one_line(alarm)}", "yellow") for alarm in report.alarms]
    parts += [Text(one_line(_export_line(e)), "dim") for e in report.exports if e.error is None]
    return Group(*parts, *_one_text(report), *_answers(report))


def _export_line(export: ExportReport) -> str:
    delegation = export.delegation
    notes = list(export.warnings)  # Linears left unquantised are an alarm already
    if delegation is not None:
        notes.insert(0, f"{delegation.delegated}/{delegation.total} operators delegated")
    about = [artifact_size(export.artifact)] if export.artifact.sha256 else []
    return f"export {export.model}/{export.recipe}: {'; '.join([*about, *notes])}"


def bench(
    device: str,
    performance: Sequence[PerformanceReport],
    peak_rss_bytes: int | None,
    stops: Sequence[str] = (),
) -> RenderableType:
    """Metrics of one artifact on one device."""
    head = Text.assemble((one_line(device), "bold"), f", peak RSS {size(peak_rss_bytes)}")
    return Group(head, speed.speeds(performance), *(Text(stop, "dim") for stop in stops))


def plan(spec: RunSpec, plan: Plan, left_out: Mapping[str, str]) -> RenderableType:
    """Cells that will run, cells that won't and why, what is measured, and what can't be."""
    table = new_table("cell", "runs on", "threads")
    for cell in plan.cells:
        place = (
            cell.place if len(cell.devices) == 1 else f"{cell.place}: one of {len(cell.devices)}"
        )
        threads = str(cell.threads) if cell.threads else "auto"
        table.add_row(Text(one_line(cell.cell_id)), Text(one_line(place)), threads)
    w, c = spec.workload, spec.correctness
    measured = " ".join(measure.name for measure in measures(w))
    longest = seconds(measuring_at_most_s(spec, plan))
    head = Text.assemble(
        (one_line(spec.name), "bold"),
        f": {len(plan.cells)} cells, {len(plan.artifacts)} exports; {c.tokens} tokens checked, "
        f"{measured}, {w.launches} to {w.max_launches} launches x {w.repetitions}, "
        f"at most {w.budget_s:g} s a cell, {longest} in all; once more,"
        f" {SECOND_BUDGET} times as long, for cells that a comparison with a baseline leaves open",
    )
    skips = [
        Text.assemble(("skipped ", "dim"), one_line(s.cell.cell_id), f": {one_line(s.reason)}")
        for s in plan.skips
    ]
    skips += [
        Text.assemble(("not measured ", "dim"), f"{name}: {one_line(why)}")
        for name, why in left_out.items()
    ]
    skips += [Text(one_line(unmet), "yellow") for unmet in plan.unmet]
    gates = [Text(f"gate {gate.metric} {gate.text or gate.op}", "dim") for gate in spec.gates]
    accepted = "auto" if spec.regress_auto else f"{spec.regress:.1%}"
    gates.append(Text(f"gate regress {accepted}, against a baseline", "dim"))
    return Group(head, table, *skips, *gates, *_decisions(spec, plan))


def _decisions(spec: RunSpec, plan: Plan) -> list[RenderableType]:
    """What the budget decides, cell by cell and metric by metric, where earlier nights tell it."""
    if not any(cell.decides for cell in plan.cells):
        return [Text("what the budget decides is known after a first night", "dim")]
    table = new_table("cell", "metric", f"{spec.workload.budget_s:g} s decide", "scatter", "pairs",
                      "nights", "regress")  # fmt: skip
    for cell in plan.cells:
        for one in cell.decides:
            decided = "nothing" if one.tolerance is None else f"{one.tolerance:.1%}"
            numbers = (f"{one.scatter:.1%}", str(one.pairs), str(one.nights))
            name = Text(one_line(cell.cell_id))
            table.add_row(name, one.metric, decided, *numbers, _is_enough(spec, cell, one))
    return [table]


def _is_enough(spec: RunSpec, cell: Cell, one: Decides) -> Text:
    if spec.regress_auto:
        return Text(f"auto: {speed_tolerance(spec, cell, one.metric):.1%}")
    if one.tolerance is not None and one.tolerance <= spec.regress:
        return Text(f"{spec.regress:.1%} is decided", "green")
    needs = "more than an hour" if one.needs_s is None else seconds(one.needs_s)
    return Text(f"{spec.regress:.1%} needs {needs}", "yellow")


def recipes(found: Sequence[Recipe]) -> RenderableType:
    """Recipes and what they do to a model."""
    headers = ("recipe", "engine", "backend", "linear", "embedding", "context", "kv cache")
    table = new_table(*headers, "weights")
    for r in found:
        group = f" g{r.group_size}" if r.group_size else ""
        bits = f"{r.embedding_bits} bit" if r.embedding_bits else "fp32"
        cache = "quantised" if r.quantised_kv_cache else "fp32"
        linear = "fp32" if r.linear == "none" else f"{r.linear}{group}"
        context = str(r.max_context)
        weights = ".ptd" if r.external_weights else "inside"
        columns = (r.engine, r.backend, linear, bits, context, cache, weights)
        table.add_row(Text(r.name, "bold"), *columns)
    return table


def exports(found: Sequence[ExportReport]) -> RenderableType:
    """Exports with their cost and what was left outside the delegate."""
    numbers = ("size", "time", "CPU", "peak RSS", "delegated")
    table = new_table("model", "recipe", "toolchain", "result", *numbers, right=numbers)
    for e in found:
        if e.error is not None:
            result = Text("failed", "red")
        else:
            result = Text("cached" if e.cache_hit else "exported", "green")
        share = "" if e.delegation is None else f"{e.delegation.delegated}/{e.delegation.total}"
        table.add_row(
            Text(one_line(e.model), "bold"),
            Text(one_line(e.recipe)),
            Text(one_line(e.toolchain)),
            result,
            artifact_size(e.artifact),
            seconds(e.seconds),
            seconds(e.cpu_s),
            size(e.peak_rss_bytes),
            share,
        )
    notes = [Text(f"{e.model}/{e.recipe}: {one_line(e.error.message)}") for e in found if e.error]
    notes += [
        Text(f"{e.model}/{e.recipe}: {one_line(note)}") for e in found for note in export_notes(e)
    ]
    return Group(table, *notes)


def doctor(found: Sequence[Check]) -> RenderableType:
    """Checks of this host, each with its remedy."""
    table = new_table("", "check", "found", "remedy")
    for check in found:
        mark, style = _CHECKS[check.status]
        table.add_row(Text(mark, style), check.name, Text(check.detail), Text(check.remedy))
    return table


def nights(lines: Sequence[Line]) -> RenderableType:
    """A line for each metric of each cell over the nights."""
    table = new_table(
        "cell", "metric", "nights", "latest", "against before", "", "moved", "failing since"
    )
    for line in lines:
        latest = "-"
        if line.latest is not None:
            is_time = line.unit == "s"
            latest = seconds(line.latest) if is_time else f"{number(line.latest)} {line.unit}"
        change = "" if line.change is None else f"{line.change:+.1%}"
        table.add_row(
            Text(one_line(line.cell_id)), line.metric, str(line.nights), latest, change, line.drawn,
            Text("\n".join(f"{share:+.1%} {run}" for share, run in line.moved)),
            Text(line.red_since, "red"),
        )  # fmt: skip
    return table


def compared(cells: Sequence[Compared]) -> RenderableType:
    """Cells of two runs, and the ratio of their numbers."""
    table = new_table("cell", "outcome", "metric", "before", "after", "ratio", "differs")
    for cell in cells:
        outcome = f"{cell.before or 'none'} -> {cell.after or 'none'}"
        first = (Text(one_line(cell.cell_id)), outcome)
        differs = Text(one_line("; ".join(cell.differs), 400))
        for place, pair in enumerate(cell.pairs or (None,)):
            head = first if place == 0 else ("", "")
            if pair is None:
                table.add_row(*head, "", "", "", "", differs)
                continue
            ratio = "-" if pair.ratio is None else f"{pair.ratio:.3f}"
            both = ("-" if one is None else number(one) for one in (pair.before, pair.after))
            table.add_row(*head, pair.metric, *both, ratio, differs if place == 0 else "")
    return table


def plain(header: Sequence[str], lines: Sequence[Sequence[str]]) -> RenderableType:
    """A table of ready words."""
    table = new_table(*header)
    for line in lines:
        table.add_row(*(Text(one_line(word)) for word in line))
    return table


def _one_text(report: Report) -> list[RenderableType]:
    """The first generated text: a glance tells whether the model speaks."""
    for result in report.results:
        text = result.correctness.generated_text if result.correctness else None
        if text:
            prompt = one_line(result.correctness.prompt, 80) if result.correctness else ""
            shown = printable(text).strip()
            return [Text.assemble((f"{prompt} ", "dim"), (shown[:400], "italic"))]
    return []


def _answers(report: Report) -> list[RenderableType]:
    """Answers to the config's prompts; of many cells those of the first that has any."""
    line = answers_line(report)
    if not line:
        return []
    asked = [result for result in report.results if result.answers]
    if len(asked) > FEW:
        asked = [r for r in asked if any(one.text for one in r.answers)][:1]
        line += "; report.html has all of them"
    parts: list[RenderableType] = [Text(one_line(line), "dim")]
    for result in asked:
        parts.append(Text(one_line(result.cell_id), "dim"))
        for one in result.answers:
            shown = printable(one.text).strip()[:400] if one.text else no_answer(one)
            prompt = one_line(one.prompt, 80)
            parts.append(Text.assemble((f"  {prompt} ", "dim"), (shown, "italic")))
    return parts
