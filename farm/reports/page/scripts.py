"""The scripts of a page and its data: inlined, packed, and the only ones that its policy permits.

The charts are drawn by BokehJS, whose files come with the package `bokeh` of the index; nothing of
the package is imported, since its script is all that a page needs.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from markupsafe import Markup

from farm.core.errors import FarmError

_OWN = Path(__file__).with_name("page.js")
#: In the order in which they have to be run.
_LIBRARY = ("bokeh.min.js", "bokeh-api.min.js")


@dataclass(frozen=True, slots=True)
class Scripts:
    """What a page carries: its own script as text, the library and the data packed."""

    own: Markup
    #: gzip, base64: one block a file of the library.
    library: tuple[Markup, ...]
    data: Markup
    #: Of every script that may run, as a policy names them.
    hashes: tuple[str, ...]


def for_page(data: object) -> Scripts:
    """Pack what a page needs.

    Raises:
        FarmError: The chart library is not installed.
    """
    own = _OWN.read_text(encoding="utf-8")
    library = _library()
    return Scripts(
        own=Markup(own),
        library=tuple(packed for packed, _ in library),
        data=_packed(json.dumps(data, separators=(",", ":"), allow_nan=False).encode()),
        hashes=(_hash(own.encode()), *(found for _, found in library)),
    )


def policy(shown: Scripts | None) -> str:
    """The content security policy of a page: no request, no script but its own."""
    allowed = " ".join(f"'{found}'" for found in shown.hashes) if shown else "'none'"
    return (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
        f"style-src 'unsafe-inline'; script-src {allowed}"
    )


@cache
def _library() -> tuple[tuple[Markup, str], ...]:
    """Each file packed, and its hash."""
    spec = find_spec("bokeh")
    places = list(spec.submodule_search_locations or ()) if spec else []
    if not places:
        raise FarmError("report.html needs the package bokeh: run `make install` again")
    folder = Path(places[0], "server", "static", "js")
    found = []
    for name in _LIBRARY:
        try:
            content = (folder / name).read_bytes()
        except OSError as error:
            text = f"report.html: {name} of the package bokeh can't be read: {error}"
            raise FarmError(text) from error
        found.append((_packed(content), _hash(content)))
    return tuple(found)


def _packed(content: bytes) -> Markup:
    return Markup(base64.b64encode(gzip.compress(content, 9, mtime=0)).decode("ascii"))


def _hash(content: bytes) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content).digest()).decode("ascii")
