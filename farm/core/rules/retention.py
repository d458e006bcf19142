"""What a collection of the content store keeps and what it removes. A pure function of values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

EntryKind = Literal["artifact", "reference", "host_run", "runner", "unreadable"]


@dataclass(frozen=True, slots=True)
class StoreEntry:
    """A remembered result of the store, and the objects it names."""

    key: str
    kind: EntryKind
    #: sha256 of each object, by file name for people; missing objects included.
    objects: tuple[tuple[str, str], ...]
    #: Bytes of its objects that are there; some may belong to other entries too.
    size_bytes: int
    #: Unix time, seconds.
    last_used_s: float
    model: str = ""
    recipe: str = ""
    #: Versions of what exported it, for people.
    toolchain: str = ""
    #: Baselines that name its program.
    baselines: tuple[str, ...] = ()
    #: Uses of living processes that may need it: `pid 1234 (run ...)`.
    used_by: tuple[str, ...] = ()

    @property
    def protected(self) -> bool:
        """Whether no collection may remove it."""
        return bool(self.baselines or self.used_by)


@dataclass(frozen=True, slots=True)
class StoreObject:
    """A file of the store."""

    sha256: str
    size_bytes: int
    last_used_s: float
    #: Named by a baseline, or in use.
    protected: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """Which entries are too many. With nothing set only what no entry names is removed."""

    #: Of each kind, the entries used last stay.
    keep_last: int | None = None
    #: Least recently used entries go until the objects are no more than this.
    max_bytes: int | None = None
    #: Entries that weren't used for longer than this go, seconds.
    older_than_s: float | None = None


@dataclass(frozen=True, slots=True)
class Removal:
    """What a collection removes."""

    entries: tuple[StoreEntry, ...]
    objects: tuple[StoreObject, ...]

    @property
    def freed_bytes(self) -> int:
        """Bytes of the objects."""
        return sum(item.size_bytes for item in self.objects)


def choose(
    entries: Sequence[StoreEntry],
    objects: Sequence[StoreObject],
    policy: Policy,
    now_s: float,
) -> Removal:
    """Decide what goes: entries by the policy, then every object that nothing names any more."""
    chosen = {entry.key for entry in entries if entry.kind == "unreadable"}
    if policy.older_than_s is not None:
        limit_s = now_s - policy.older_than_s
        chosen |= {entry.key for entry in entries if entry.last_used_s < limit_s}
    if policy.keep_last is not None:
        chosen |= _beyond(entries, policy.keep_last)
    chosen -= {entry.key for entry in entries if entry.protected}
    if policy.max_bytes is not None:
        chosen |= _too_large(entries, objects, chosen, policy.max_bytes)
    kept = [entry for entry in entries if entry.key not in chosen]
    return Removal(
        entries=tuple(entry for entry in entries if entry.key in chosen),
        objects=tuple(_unnamed(kept, objects)),
    )


def _beyond(entries: Sequence[StoreEntry], keep: int) -> set[str]:
    by_kind: dict[str, list[StoreEntry]] = {}
    for entry in sorted(entries, key=lambda item: item.last_used_s, reverse=True):
        by_kind.setdefault(entry.kind, []).append(entry)
    return {entry.key for found in by_kind.values() for entry in found[keep:]}


def _too_large(
    entries: Sequence[StoreEntry],
    objects: Sequence[StoreObject],
    chosen: set[str],
    max_bytes: int,
) -> set[str]:
    more: set[str] = set()
    kept = [entry for entry in entries if entry.key not in chosen]
    total = sum(item.size_bytes for item in objects) - sum(
        item.size_bytes for item in _unnamed(kept, objects)
    )
    sizes = {item.sha256: item.size_bytes for item in objects if not item.protected}
    naming = _naming(kept)
    for entry in sorted(kept, key=lambda item: item.last_used_s):
        if total <= max_bytes:
            break
        if entry.protected:
            continue
        more.add(entry.key)
        for sha256 in {sha256 for _, sha256 in entry.objects}:
            naming[sha256] -= 1
            if not naming[sha256]:
                total -= sizes.get(sha256, 0)
    return more


def _naming(entries: Sequence[StoreEntry]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for entry in entries:
        for sha256 in {sha256 for _, sha256 in entry.objects}:
            counts[sha256] = counts.get(sha256, 0) + 1
    return counts


def _unnamed(kept: Sequence[StoreEntry], objects: Sequence[StoreObject]) -> list[StoreObject]:
    named: Mapping[str, int] = _naming(kept)
    return [item for item in objects if item.sha256 not in named and not item.protected]
