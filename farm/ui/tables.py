"""Rich tables for results, devices, plans, exports and checks. Only words and colours."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from farm.core.artifact import Recipe
from farm.core.device import Device
from farm.core.plan import Plan
from farm.core.printable import one_line, printable
from farm.core.result import ExportReport, PerformanceReport, Report
from farm.core.spec import RunSpec
from farm.doctor import Check
from farm.reports.summary import HEADERS, rows, unreadable
from farm.reports.words import number, plus_minus, seconds, size
from farm.ui.live import MARKS, STYLES

_TRUST = {"invalid": "red", "noisy": "yellow", "unverified": "dim", "ok": "green"}
_STATES = {"ready": "green", "leased": "blue", "held": "blue"}
_CHECKS = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "error": ("✗", "bold red")}


def report(report: Report) -> RenderableType:
    """Results of a run: the cells, why some didn't pass, alarms, and one generated text."""
    table = _table(*HEADERS, right=("prefill tok/s", "decode tok/s", "TTFT", "peak RSS"))
    for result, row in zip(report.results, rows(report), strict=True):
        columns = [Text(column) for column in row.columns]
        mark = MARKS.get(result.outcome, "")
        columns[3] = Text(f"{mark} {row.outcome}", STYLES.get(result.outcome, ""))
        columns[-1].stylize(_TRUST.get(row.trust.split(",")[0], ""))
        table.add_row(*columns)
    parts: list[RenderableType] = [table]
    for result in report.results:
        if result.reason:
            style = STYLES.get(result.outcome, "")
            parts.append(Text.assemble((f"{result.outcome} ", style), one_line(result.cell_id)))
            parts.append(Text(f"  {one_line(result.reason)}"))
    missing = sorted({name for result in report.results for name in unreadable(result)})
    if missing:
        parts.append(Text(f"unverified: could not be read: {', '.join(missing)}", "dim"))
    parts += [Text(f"alarm: {one_line(alarm)}", "yellow") for alarm in report.alarms]
    return Group(*parts, *_one_text(report))


def bench(
    device: str, performance: Sequence[PerformanceReport], peak_rss_bytes: int | None
) -> RenderableType:
    """Metrics of one artifact on one device."""
    table = _table("metric", "median", "95 %", "unit", "samples", "trust", right=("median",))
    for p in performance:
        regime = "" if p.regime == "warm" else f" ({p.regime.replace('_', ' ')})"
        table.add_row(
            f"{p.metric}{regime}",
            number(p.median),
            plus_minus(p.median, p.ci95),
            p.unit,
            str(len(p.samples)),
            Text(p.trust, _TRUST.get(p.trust, "")),
        )
    threads = f", {performance[0].threads} threads" if performance else ""
    head = Text.assemble((one_line(device), "bold"), f"{threads}, peak RSS {size(peak_rss_bytes)}")
    return Group(head, table)


def devices(found: Sequence[Device]) -> RenderableType:
    """Devices with state, facts, and what to do about those that aren't ready."""
    table = _table("device", "transport", "state", "model", "abi", "os", "cores", "RAM", "temp")
    for device in found:
        facts = device.facts
        style = _STATES.get(device.state, "red")
        state = f"{device.state} by {device.owner}" if device.owner else device.state
        model = (facts.model or facts.soc or "") if facts else ""
        table.add_row(
            Text(one_line(device.name), "bold"),
            device.entry.transport,
            Text(one_line(state), style),
            Text(one_line(model, 28)),
            facts.abi if facts else "",
            Text(one_line((facts.os or "") if facts else "", 28)),
            str(facts.cores or "-") if facts else "",
            size(facts.ram_bytes) if facts else "",
            f"{facts.battery_c:.0f} °C" if facts and facts.battery_c is not None else "",
        )
    reasons = [
        Text.assemble((f"{one_line(d.name)}: ", "bold"), one_line(d.reason))
        for d in found
        if d.reason
    ]
    return Group(table, *reasons)


def plan(spec: RunSpec, plan: Plan) -> RenderableType:
    """Cells that will run, cells that won't and why, and what is measured."""
    table = _table("cell", "runs on", "threads")
    for cell in plan.cells:
        place = (
            cell.place if len(cell.devices) == 1 else f"{cell.place}: one of {len(cell.devices)}"
        )
        threads = str(cell.threads) if cell.threads else "auto"
        table.add_row(Text(one_line(cell.cell_id)), Text(one_line(place)), threads)
    w, c = spec.workload, spec.correctness
    measured = " ".join([*(f"pp{n}" for n in w.prefill), *(f"tg{n}" for n in w.decode)])
    head = Text.assemble(
        (one_line(spec.name), "bold"),
        f": {len(plan.cells)} cells, {len(plan.artifacts)} exports; {c.tokens} tokens checked, "
        f"{measured}, {w.launches} launches x {w.repetitions}, at most {w.budget_s:g} s a cell",
    )
    skips = [
        Text.assemble(("skipped ", "dim"), one_line(s.cell.cell_id), f": {one_line(s.reason)}")
        for s in plan.skips
    ]
    gates = [Text(f"gate {gate.metric} {gate.text or gate.op}", "dim") for gate in spec.gates]
    return Group(head, table, *skips, *gates)


def recipes(found: Sequence[Recipe]) -> RenderableType:
    """Recipes and what they do to a model."""
    table = _table("recipe", "engine", "backend", "linear", "embedding", "context", "kv cache")
    for r in found:
        group = f" g{r.group_size}" if r.group_size else ""
        bits = f"{r.embedding_bits} bit" if r.embedding_bits else "fp32"
        cache = "quantised" if r.quantised_kv_cache else "fp32"
        linear = "fp32" if r.linear == "none" else f"{r.linear}{group}"
        context = str(r.max_context)
        table.add_row(Text(r.name, "bold"), r.engine, r.backend, linear, bits, context, cache)
    return table


def exports(found: Sequence[ExportReport]) -> RenderableType:
    """Exports with their cost and what was left outside the delegate."""
    numbers = ("size", "time", "CPU", "peak RSS", "delegated")
    table = _table("model", "recipe", "toolchain", "result", *numbers, right=numbers)
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
            size(e.artifact.size_bytes),
            seconds(e.seconds),
            seconds(e.cpu_s),
            size(e.peak_rss_bytes),
            share,
        )
    notes = [Text(f"{e.model}/{e.recipe}: {one_line(e.error.message)}") for e in found if e.error]
    notes += [Text(f"{e.model}/{e.recipe}: {one_line(w)}") for e in found for w in e.warnings]
    return Group(table, *notes)


def doctor(found: Sequence[Check]) -> RenderableType:
    """Checks of this host, each with its remedy."""
    table = _table("", "check", "found", "remedy")
    for check in found:
        mark, style = _CHECKS[check.status]
        table.add_row(Text(mark, style), check.name, Text(check.detail), Text(check.remedy))
    return table


def plain(header: Sequence[str], lines: Sequence[Sequence[str]]) -> RenderableType:
    """A table of ready words."""
    table = _table(*header)
    for line in lines:
        table.add_row(*(Text(one_line(word)) for word in line))
    return table


def _table(*headers: str, right: Sequence[str] = ()) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for header in headers:
        table.add_column(header, justify="right" if header in right else "left", overflow="fold")
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
