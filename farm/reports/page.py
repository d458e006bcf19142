"""Style sheet of report.html. Colours are variables, so that dark is one block."""

from __future__ import annotations

STYLE = """
:root{--bg:#f6f7f9;--card:#fff;--text:#1b2330;--quiet:#5d6878;--line:#dfe3ea;--accent:#2f5fd0;
--green:#1a7f4b;--red:#c0362c;--amber:#9a6700;--grey:#6b7480;--green-bg:#e2f4ea;--red-bg:#fbe7e5;
--amber-bg:#fdf3d8;--grey-bg:#eceff3;--l0:#2f5fd0;--l1:#c2691b;--l2:#7a3fb0}
@media (prefers-color-scheme:dark){:root{--bg:#12161d;--card:#1a202a;--text:#e4e8ef;
--quiet:#9aa5b5;--line:#2c3543;--accent:#86aaff;--green:#5fd39a;--red:#ff8f84;--amber:#f0c04f;
--grey:#9aa5b5;--green-bg:#143726;--red-bg:#43201d;--amber-bg:#3a2f10;--grey-bg:#262e3a;
--l0:#86aaff;--l1:#f2a65a;--l2:#c79bf2}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--text);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1360px;margin:0 auto;padding:28px 24px 64px}
h1{font-size:28px;line-height:1.2;margin:2px 0 10px}
h2{font-size:18px;margin:34px 0 10px}
h3{font-size:15px;margin:22px 0 8px}
code,pre{font:13px/1.45 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
a{color:var(--accent);text-decoration:none}a:hover{text-decoration:underline}
.eyebrow{margin:0;color:var(--quiet);text-transform:uppercase;letter-spacing:.08em;font-size:12px}
.quiet{color:var(--quiet);font-size:13px}
.verdict{display:inline-block;margin:0 0 8px;padding:7px 12px;border-radius:8px;font-weight:600}
.tiles{display:flex;flex-wrap:wrap;gap:10px;margin-top:14px}
.tile{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:8px 18px;
min-width:96px}
.tile b{display:block;font-size:24px;line-height:1.2}
.tile span{font-size:13px;color:var(--quiet)}
.tile.passed b{color:var(--green)}.tile.failed b,.tile.errored b{color:var(--red)}
.tile.inconclusive b,.tile.waived b{color:var(--amber)}
.verdict.passed{background:var(--green-bg);color:var(--green)}
.verdict.failed{background:var(--red-bg);color:var(--red)}
.verdict.inconclusive{background:var(--amber-bg);color:var(--amber)}
.alarms{background:var(--amber-bg);border-radius:10px;padding:4px 18px 10px;margin-top:22px}
.alarms h2{margin:10px 0 4px;color:var(--amber);font-size:16px}
.alarms ul{margin:0;padding-left:18px}
.scroll{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:10px}
table{border-collapse:collapse;width:100%;font-size:14px}
th{font-weight:600;color:var(--quiet);font-size:12.5px}
th,td{text-align:left;padding:8px 11px;border-bottom:1px solid var(--line);vertical-align:top;
white-space:nowrap}
tbody tr:last-child td{border-bottom:0}
td.w,td:last-child{white-space:normal;min-width:7em}
.n{text-align:right;font-variant-numeric:tabular-nums}
.badge{display:inline-block;border-radius:999px;padding:1px 10px;font-size:13px;font-weight:600;
white-space:nowrap;background:var(--grey-bg);color:var(--grey)}
.badge.passed{background:var(--green-bg);color:var(--green)}
.badge.failed,.badge.errored{background:var(--red-bg);color:var(--red)}
.badge.inconclusive,.badge.waived{background:var(--amber-bg);color:var(--amber)}
.trust-ok{color:var(--green)}.trust-unverified,.trust-none{color:var(--quiet)}
.trust-noisy{color:var(--amber)}.trust-invalid{color:var(--red)}
details.cell{background:var(--card);border:1px solid var(--line);border-radius:10px;
padding:10px 18px;margin-top:12px}
details.cell[open]{padding-bottom:18px}
details.cell .scroll{border-radius:8px}
summary{cursor:pointer}
details details{margin-top:12px}details details>summary{color:var(--quiet);font-size:13px}
summary code{color:var(--quiet);margin-left:12px}
.reason{border-left:3px solid var(--grey);padding:4px 12px;margin:14px 0 4px;
overflow-wrap:anywhere}
.reason.failed,.reason.errored{border-color:var(--red)}
.reason.inconclusive,.reason.waived{border-color:var(--amber)}
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(190px,1fr));gap:10px 18px;
margin:14px 0 0}
.facts dt{color:var(--quiet);font-size:12px}
.facts dd{margin:0;overflow-wrap:anywhere}
.gates{list-style:none;padding:0;margin:10px 0 0;font-size:14px}
.gates li{padding:2px 0 2px 22px;position:relative;overflow-wrap:anywhere}
.gates li::before{position:absolute;left:2px;font-weight:700}
.gates .passed::before{content:"✓";color:var(--green)}
.gates .failed::before{content:"✗";color:var(--red)}
.gates .inconclusive::before{content:"?";color:var(--amber)}
.metrics{display:grid;grid-template-columns:repeat(auto-fill,minmax(360px,1fr));gap:14px}
figure{margin:0;border:1px solid var(--line);border-radius:8px;padding:10px 14px}
figure p{margin:2px 0 0}
figcaption .value{font-size:18px;font-weight:600;margin-left:6px}
.strip{width:100%;height:auto;display:block;margin-top:4px}
.strip text{fill:var(--quiet);font:10px system-ui,sans-serif}
.axis{stroke:var(--line)}.median{stroke:var(--text);stroke-width:1.5}
.interval{fill:var(--accent);opacity:.14}
.dot{opacity:.85}.dot.l0{fill:var(--l0)}.dot.l1{fill:var(--l1)}.dot.l2{fill:var(--l2)}
.dot.other{fill:none;stroke:var(--grey)}
pre{background:var(--bg);border:1px solid var(--line);border-radius:8px;padding:10px 14px;
white-space:pre-wrap;overflow-wrap:anywhere;margin:6px 0 0;max-height:420px;overflow-y:auto}
.prompt{margin:16px 0 0;color:var(--quiet)}
@media print{details{break-inside:avoid}body{background:#fff}}
"""
