"""What the store commands print."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from farm.commands.store import Collected, Contents, Verified
from farm.core.printable import one_line
from farm.core.rules.retention import StoreEntry
from farm.reports.words import size
from farm.ui.tables import plain

_KINDS = {
    "artifact": "artifact",
    "reference": "reference",
    "host_run": "host run",
    "unreadable": "of another version",
}


def contents(found: Contents, *, everything: bool) -> RenderableType:
    """Artifacts one a line, the rest in sums."""
    shown = [e for e in found.entries if everything or e.kind == "artifact"]
    parts: list[RenderableType] = [_entries(shown)] if shown else []
    counts = Counter(entry.kind for entry in found.entries)
    kinds = ", ".join(f"{count} {_KINDS[kind]}" for kind, count in sorted(counts.items()))
    loose = sum(item.size_bytes for item in found.unnamed)
    parts.append(
        Text(
            f"{len(found.objects)} objects, {size(found.size_bytes)}: {kinds or 'no entries'};"
            f" {len(found.unnamed)} objects ({size(loose)}) that none of them names"
        )
    )
    parts += [
        Text(f"in use by pid {user.pid}: {one_line(user.purpose)}", "blue") for user in found.users
    ]
    return Group(*parts)


def verified(found: Verified) -> RenderableType:
    """Each damaged object, and a last line."""
    lines = [
        Text(
            f"damaged: {item.sha256[:12]} {size(item.size_bytes)}"
            f" ({'; '.join(map(one_line, item.parts)) or 'named by no entry'})"
            f"{', removed' if item.removed else ''}",
            "red",
        )
        for item in found.damaged
    ]
    hint = ""
    if found.damaged and not found.damaged[0].removed:
        hint = "; `farm store verify --remove` removes them, the next run makes them anew"
    total = f"{found.objects} objects, {size(found.size_bytes)}: {len(found.damaged)} damaged"
    return Group(*lines, Text(total + hint))


def collected(found: Collected) -> RenderableType:
    """Entries that go, and a last line with what it frees."""
    removal = found.removal
    parts: list[RenderableType] = [_entries(removal.entries)] if removal.entries else []
    verb = "removed" if found.applied else "would remove"
    freed = size(removal.freed_bytes + found.temporary_bytes)
    hint = "" if found.applied else "; --yes removes it"
    parts.append(
        Text(
            f"{verb} {len(removal.entries)} entries, {len(removal.objects)} objects and"
            f" {found.temporaries} temporary files: {freed}; {size(found.kept_bytes)} stay{hint}"
        )
    )
    return Group(*parts)


def _entries(found: Sequence[StoreEntry]) -> RenderableType:
    header = ("what", "model", "recipe", "toolchain", "size", "last used", "kept by")
    ordered = sorted(found, key=lambda entry: entry.last_used_s, reverse=True)
    return plain(header, [_line(entry) for entry in ordered])


def _line(entry: StoreEntry) -> tuple[str, ...]:
    used = datetime.datetime.fromtimestamp(entry.last_used_s, datetime.UTC)
    kept = [*(f"baseline {name}" for name in entry.baselines), *entry.used_by]
    return (
        _KINDS[entry.kind],
        entry.model or entry.key[-12:],
        entry.recipe,
        entry.toolchain,
        size(entry.size_bytes),
        f"{used:%Y-%m-%d %H:%M} UTC",
        ", ".join(kept),
    )
