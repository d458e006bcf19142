"""The table of report formats. A new one is a module with `render(report) -> str` and a line."""

from __future__ import annotations

from collections.abc import Callable

from farm.core.result import Report
from farm.registry import Registry

Renderer = Callable[[Report], str]

REGISTRY: Registry[Renderer] = Registry(
    "report format",
    {
        "json": "farm.reports.json:render",
        "junit": "farm.reports.junit:render",
        "markdown": "farm.reports.markdown:render",
        "html": "farm.reports.html:render",
        "table": "farm.reports.table:render",
        "pytorch": "farm.reports.pytorch:render",
        "openmetrics": "farm.reports.openmetrics:render",
        "csv": "farm.reports.csv:render",
        "llama-bench": "farm.reports.llama_bench:render",
        "llama-bench-sql": "farm.reports.llama_bench:render_sql",
    },
)


def render(report: Report, name: str) -> str:
    """Render a report in the format of that name.

    Raises:
        UnknownName: There is no such format; the message lists them.
    """
    return REGISTRY.get(name)(report)
