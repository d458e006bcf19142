"""What every session of a site shares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from farm.protocols import Runner
from farm.site.connection import OpenTransport
from farm.site.store import ContentStore


@dataclass(frozen=True, slots=True)
class SiteContext:
    """Folders and factories of one host."""

    #: FARM_HOME of this host.
    home: Path
    store: ContentStore
    open_transport: OpenTransport
    #: Runner by name; raises UnknownName.
    find_runner: Callable[[str], Runner]
