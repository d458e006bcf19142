"""Templates of the pages: every value is printable text on one line, and escaped."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from farm.core.printable import one_line, printable
from farm.reports.page import scripts
from farm.reports.words import number, percent, seconds, size

_FOLDER = Path(__file__).parent


def render(name: str, values: Mapping[str, Any]) -> str:
    """Fill the template of that name."""
    return _environment().get_template(name).render(values)


def page(name: str, title: str, values: Mapping[str, Any], data: object = None) -> str:
    """Render a whole page; its policy permits its own scripts and nothing from outside.

    Args:
        name: Template of its body.
        title: Of the document, as plain text.
        values: Of that template.
        data: What the page's script reads, as JSON data; None: a page without a script.

    Raises:
        FarmError: The chart library is not installed.
    """
    shown = scripts.for_page(data) if data is not None else None
    frame = {
        "title": title,
        "policy": scripts.policy(shown),
        "style": Markup((_FOLDER / "page.css").read_text(encoding="utf-8")),
        "body": Markup(render(name, values)),
        "scripts": shown,
    }
    return render("frame.html.j2", frame)


def anchor(text: str) -> str:
    """Text as it may stand in a link to a place of the page."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)


@cache
def _environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    made.filters |= {
        "block": _block,
        "number": number,
        "percent": percent,
        "ident": id,
        "seconds": seconds,
        "size": size,
    }
    return made


def _block(text: str) -> Markup:
    """Printable text whose lines stay."""
    return Markup(escape(printable(text)))


def _shown(value: object) -> object:
    """Escapes and control characters leave every text that devices and models may have written."""
    if isinstance(value, Markup):
        return value
    return "" if value is None else one_line(str(value))
