"""report.html: one file without any outside request, for people.

Text of devices and models is stripped of control characters and escaped; the page has a policy
that forbids scripts, so a mistake there would still run nothing.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence

from farm.core.comparison import BaselineReport, MetricComparison
from farm.core.printable import one_line, printable
from farm.core.result import (
    CellResult,
    DeviceReport,
    ExportReport,
    GateResult,
    PerformanceReport,
    Report,
    SecondSitting,
    StageComparison,
)
from farm.reports.page import STYLE
from farm.reports.strip import strip
from farm.reports.summary import HEADERS, Row, artifact_size, export_notes, rows, unreadable
from farm.reports.words import (
    METHODS,
    number,
    percent,
    plus_minus,
    seconds,
    size,
    visible_change,
)

_MARKS = {
    "passed": "✓",
    "failed": "✗",
    "inconclusive": "?",
    "errored": "!",
    "skipped": "-",
    "waived": "✓",
}
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def render(report: Report) -> str:
    """Render the page."""
    found = rows(report)
    body = [
        _header(report),
        _alarms(report.alarms),
        _cells(report, found),
        *(
            _cell(result, row, n)
            for n, (result, row) in enumerate(zip(report.results, found, strict=True))
        ),
        _devices(report.devices),
        _exports(report.exports),
        _about(report),
    ]
    return document(f"{report.name}: {report.verdict_line}", body)


def document(title: str, body: Sequence[str]) -> str:
    """A whole page of HTML parts; empty ones are left out."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{text(title)}</title><style>{STYLE}</style></head><body><main>"
        + "\n".join(part for part in body if part)
        + "</main></body></html>\n"
    )


def text(value: object) -> str:
    """One line of text as HTML."""
    return html.escape(one_line(str(value)), quote=True)


def _header(report: Report) -> str:
    s = report.summary
    tone = {0: "passed", 1: "failed"}.get(report.exit_code, "inconclusive")
    counts = [
        ("passed", s.passed),
        ("failed", s.failed),
        ("waived", s.waived),
        ("inconclusive", s.inconclusive),
        ("errored", s.errored),
        ("skipped", s.skipped),
    ]
    if s.speed_gated:
        counts.append((f"of {s.speed_gated} speeds decided", s.speed_decided))
    tiles = "".join(
        f'<div class="tile {name}"><b>{count}</b><span>{name}</span></div>'
        for name, count in counts
        if count or name in ("passed", "failed")
    )
    when = f"{text(report.started_at)} to {text(report.ended_at)}"
    return (
        f'<header><p class="eyebrow">farm report</p><h1>{text(report.name)}</h1>'
        f'<p class="verdict {tone}">{text(report.verdict_line)}</p>'
        f'<p class="quiet">run <code>{text(report.run_id)}</code> · {when}</p>'
        f'<div class="tiles">{tiles}</div></header>'
    )


def _alarms(alarms: Sequence[str]) -> str:
    if not alarms:
        return ""
    items = "".join(f"<li>{text(alarm)}</li>" for alarm in alarms)
    return f'<section class="alarms"><h2>Alarms</h2><ul>{items}</ul></section>'


def _cells(report: Report, found: Sequence[Row]) -> str:
    body = []
    for n, row in enumerate(found):
        columns = [_lines(column) for column in row.columns]
        columns[0] = f'<a href="#cell{n}">{columns[0]}</a>'
        columns[3] = _badge(row.outcome)
        columns[-1] = _trust(row.trust)
        body.append(columns)
    table = _table(HEADERS, body, numbers=(5, 6, 7, 8), wraps=(4, 9))
    return f"<section><h2>Cells</h2>{table}</section>"


def _cell(result: CellResult, row: Row, n: int) -> str:
    # What needs a look is open; the rest folds away.
    is_open = " open" if result.outcome in ("failed", "inconclusive") or n == 0 else ""
    parts = []
    if result.reason:
        parts.append(f'<p class="reason {text(row.outcome)}">{text(result.reason)}</p>')
    parts += [_facts(result), _correctness(result), _performance(result), _attempts(result)]
    if result.baseline is not None:
        parts.append(_baseline(result.baseline, result.second))
    return (
        f'<details class="cell" id="cell{n}"{is_open}><summary>{_badge(row.outcome)} '
        f"<strong>{text(result.device.name)}</strong> {text(result.model)} · "
        f"{text(row.recipe)}<code>{text(result.cell_id)}</code></summary>"
        + "".join(part for part in parts if part)
        + "</details>"
    )


def _facts(result: CellResult) -> str:
    d, r, a = result.device, result.runner, result.artifact
    backend = r.backend_effective or r.backend_requested
    facts = [
        ("device", f"{d.soc or ''} {d.abi or ''}".strip()),
        ("system", d.os),
        ("cores, RAM", f"{d.cores or '?'}, {size(d.ram_bytes)}" if d.abi else None),
        ("runner", f"{r.name} {r.version or ''} {r.isa or ''}".strip()),
        ("backend", backend),
        ("artifact", f"{a.sha256[:12]} {artifact_size(a)}" if a.sha256 else None),
        ("pushed", size(result.pushed_bytes) if result.pushed_bytes is not None else None),
        ("flags", ", ".join(result.flags)),
        ("not readable", ", ".join(unreadable(result))),
    ]
    conditions = _definitions(
        (name.replace("_bytes", "").replace("_", " "), _condition(name, value))
        for name, value in sorted(result.conditions.items())
    )
    folded = f"<details><summary>Conditions</summary>{conditions}</details>" if conditions else ""
    return _definitions((name, value) for name, value in facts if value) + folded


def _condition(name: str, value: str) -> str:
    return size(int(value)) if "_bytes" in name and value.isdigit() else value


def _definitions(pairs: Iterable[tuple[str, object]]) -> str:
    items = "".join(f"<div><dt>{text(k)}</dt><dd>{text(v)}</dd></div>" for k, v in pairs)
    return f'<dl class="facts">{items}</dl>' if items else ""


def _correctness(result: CellResult) -> str:
    report = result.correctness
    if report is None:
        return ""
    headers = ("from", "to", "path", "rows", "bit-equal", "KL mean", "KL max", "noise floor",
               "top-1", "cosine min", "max error", "perplexity")  # fmt: skip
    parts = ["<h3>Correctness</h3>"]
    if report.stages:
        parts.append(_table(headers, [_stage(s) for s in report.stages], numbers=range(3, 12)))
    parts.append(_gates(report.gates))
    if report.generated_text is not None:
        shown = html.escape(printable(report.generated_text), quote=False)
        parts.append(
            f'<p class="prompt">{text(report.prompt)}</p><pre class="generated">{shown}</pre>'
        )
    return "".join(parts)


def _stage(s: StageComparison) -> list[str]:
    equal = '<span class="trust-ok">yes</span>' if s.bit_equal else "no"
    cosine = "-" if s.cosine_min is None else f"{s.cosine_min:.5f}"
    perplexity = f"{number(s.perplexity_from)} → {number(s.perplexity_to)}"
    return [
        f"<code>{text(s.from_)}</code>",
        f"<code>{text(s.to)}</code>",
        text(s.path),
        str(s.tokens),
        equal,
        number(s.kl_mean),
        number(s.kl_max),
        number(s.noise_floor_kl),
        percent(s.top1_agreement),
        cosine,
        number(s.max_abs_error),
        perplexity if s.perplexity_to is not None else "-",
    ]


def _gates(gates: Sequence[GateResult]) -> str:
    if not gates:
        return ""
    words = {True: "passed", False: "failed", None: "inconclusive"}
    items = []
    for gate in gates:
        value = "" if gate.value is None else number(gate.value)
        bound = "" if gate.threshold is None else f"{gate.op} {number(gate.threshold)}"
        source = f"({gate.text})" if gate.text and gate.text != bound else ""
        note = f'<span class="quiet">{text(gate.reason)}</span>' if gate.reason else ""
        items.append(
            f'<li class="{words[gate.passed]}"><b>{text(gate.metric)}</b> {text(value)} '
            f'<span class="quiet">{text(bound)} {text(source)}</span> {note}</li>'
        )
    return f'<ul class="gates">{"".join(items)}</ul>'


def _performance(result: CellResult) -> str:
    reports = result.performance
    if not reports:
        return ""
    cards = "".join(_metric(p) for p in reports)
    memory = f'<p class="quiet">Peak RSS {size(result.memory.peak_rss_bytes)}</p>'
    gates = _gates([*(g for p in reports for g in p.gates), *result.memory.gates])
    return f'<h3>Speed</h3><div class="metrics">{cards}</div>{memory}{gates}'


def _metric(p: PerformanceReport) -> str:
    value = seconds(p.median) if p.unit == "s" else f"{number(p.median)} {p.unit}"
    regime = p.regime.replace("_", " ")
    notes = [p.definition, f"{p.threads} thread{'' if p.threads == 1 else 's'}"]
    launches = len({sample.launch for sample in p.samples if sample.arm == "candidate"})
    notes.append(f"{launches} launch{'' if launches == 1 else 'es'}")
    if p.min_detectable_change is not None:
        notes.append(f"could show a change of {visible_change(p.min_detectable_change)}")
    if p.reason:
        notes.append(p.reason)
    fired = [name for name, state in p.guards.items() if state == "flagged"]
    if fired:
        notes.append(f"flagged: {', '.join(fired)}")
    interval = plus_minus(p.median, p.ci95)
    return (
        f'<figure><figcaption><b>{text(p.metric)}</b> <span class="quiet">{text(regime)}</span> '
        f'<span class="value">'
        f'{text(value)}</span> <span class="quiet">{text(interval)}</span>{_trust(p.trust)}'
        f"</figcaption>{strip(p)}"
        f'<p class="quiet">{text(" · ".join(notes))}</p></figure>'
    )


def _attempts(result: CellResult) -> str:
    if len(result.attempts) < 2 and not any(a.error for a in result.attempts):
        return ""
    body = [
        [
            str(a.n),
            text(a.device),
            text(a.outcome),
            text(a.started_at or ""),
            text(f"{a.error.kind}: {a.error.message}" if a.error else ""),
        ]
        for a in result.attempts
    ]
    return "<h3>Attempts</h3>" + _table(("n", "device", "outcome", "started", "error"), body)


def _baseline(b: BaselineReport, second: SecondSitting | None) -> str:
    how = f"{METHODS[b.method]}: {text(b.verdict)}"
    parts = [f"<h3>Against baseline <code>{text(b.run_id)}</code>, {how}</h3>"]
    parts.append(_compared(b.metrics) or f'<p class="quiet">{text(b.reason)}</p>')
    if second is not None:
        parts.append(f"<h3>The second sitting alone: {text(second.outcome)}</h3>")
        parts.append(_compared(second.metrics) or f'<p class="quiet">{text(second.reason)}</p>')
    return "".join(parts)


def _compared(metrics: Sequence[MetricComparison]) -> str:
    body = [
        [
            text(m.metric),
            text(m.verdict),
            "-" if m.ratio is None else f"{m.ratio:.3f}",
            "-" if m.ci95 is None else f"{m.ci95[0]:.3f} to {m.ci95[1]:.3f}",
            text(m.reason),
        ]
        for m in metrics
    ]
    return _table(("metric", "verdict", "ratio", "95 %", ""), body, numbers=(2, 3)) if body else ""


def _devices(devices: Sequence[DeviceReport]) -> str:
    if not devices:
        return ""
    headers = ("device", "state", "model", "abi", "os", "cores", "RAM", "features", "idle")
    body = []
    for d in devices:
        f = d.facts
        state = f"{d.state}: {d.reason}" if d.reason else d.state
        facts = (
            [f.model or f.soc or "", f.abi, f.os or "", f.cores or "", size(f.ram_bytes),
             " ".join(f.features[:8])]
            if f is not None
            else [""] * 6
        )  # fmt: skip
        idle = "" if d.idle_share is None else percent(d.idle_share)
        body.append([text(value) for value in (d.name, state, *facts, idle)])
    return f"<section><h2>Devices</h2>{_table(headers, body, numbers=(5, 6, 8))}</section>"


def _exports(exports: Sequence[ExportReport]) -> str:
    if not exports:
        return ""
    headers = ("model", "recipe", "toolchain", "size", "time", "CPU", "peak RSS", "delegated", "")
    body = []
    for e in exports:
        share = "-" if e.delegation is None else f"{e.delegation.delegated}/{e.delegation.total}"
        notes = ["from the cache"] if e.cache_hit else []
        if e.error is not None:
            notes.append(f"failed: {e.error.message}")
        columns = (e.model, e.recipe, e.toolchain, artifact_size(e.artifact), seconds(e.seconds),
                   seconds(e.cpu_s), size(e.peak_rss_bytes), share,
                   "; ".join([*notes, *export_notes(e)]))  # fmt: skip
        body.append([text(column) for column in columns])
    return f"<section><h2>Exports</h2>{_table(headers, body, numbers=range(3, 8))}</section>"


def _about(report: Report) -> str:
    versions = [
        (
            name,
            f"executorch {v.executorch}, torch {v.torch}, torchao {v.torchao}, Python {v.python}",
        )
        for name, v in sorted(report.toolchains.items())
    ]
    host = [(str(key), value) for key, value in sorted(report.host.items())]
    farm = [("farm", f"{report.farm.version} {report.farm.tree_sha256[:12]}"),
            ("config", report.config_sha256[:12])]  # fmt: skip
    config = html.escape(printable(json.dumps(report.config, indent=1, ensure_ascii=False)))
    return (
        f"<section><h2>About this run</h2>{_definitions([*farm, *versions, *host])}"
        f"<details><summary>Config, after overrides</summary><pre>{config}</pre></details>"
        "</section>"
    )


def _table(
    headers: Sequence[str],
    body: Sequence[Sequence[str]],
    *,
    numbers: Iterable[int] = (),
    wraps: Iterable[int] = (),
) -> str:
    """A table of ready HTML: columns of `numbers` stand to the right, `wraps` may break."""
    kinds = {**dict.fromkeys(numbers, ' class="n"'), **dict.fromkeys(wraps, ' class="w"')}
    classes = [kinds.get(column, "") for column in range(len(headers))]
    head = "".join(f"<th{c}>{text(h)}</th>" for h, c in zip(headers, classes, strict=True))
    lines = "".join(
        "<tr>"
        + "".join(f"<td{c}>{cell}</td>" for cell, c in zip(row, classes, strict=True))
        + "</tr>"
        for row in body
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"
    return f'<div class="scroll">{table}</div>'


def _badge(outcome: str) -> str:
    return f'<span class="badge {text(outcome)}">{_MARKS.get(outcome, "")} {text(outcome)}</span>'


def _trust(trust: str) -> str:
    first = trust.split(",")[0]
    known = first if first in ("ok", "unverified", "noisy", "invalid") else "none"
    return f' <span class="trust-{known}">{text(trust)}</span>'


def _lines(value: str) -> str:
    return "<br>".join(text(line) for line in value.split("\n"))
