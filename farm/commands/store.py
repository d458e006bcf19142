"""The content store of this host for people: what is in it, is it intact, what can be removed.

farm.core.rules.retention decides what to keep; farm.store.fence knows what is in use.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from farm import paths
from farm.core.artifact import ExportResult
from farm.core.errors import StoreError
from farm.core.hostrun import HostRunResult
from farm.core.reference import ReferenceResult
from farm.core.rules.retention import EntryKind, Policy, Removal, StoreEntry, StoreObject, choose
from farm.core.runner import RunnerBuild
from farm.run import baselines
from farm.store.actions import ActionCache, object_refs
from farm.store.fence import StoreUser, last_used_s
from farm.store.objects import ContentStore

#: Remembered results by the beginning of their key.
_KINDS: dict[str, tuple[EntryKind, type]] = {
    "export": ("artifact", ExportResult),
    "reference": ("reference", ReferenceResult),
    "host-run": ("host_run", HostRunResult),
    "runner": ("runner", RunnerBuild),
}


@dataclass(frozen=True, slots=True)
class Contents:
    """What is in a store."""

    entries: tuple[StoreEntry, ...]
    objects: tuple[StoreObject, ...]
    users: tuple[StoreUser, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of all objects."""
        return sum(item.size_bytes for item in self.objects)

    @property
    def unnamed(self) -> tuple[StoreObject, ...]:
        """Objects that no entry names: logs, logits and runners of past jobs."""
        named = {sha256 for entry in self.entries for _, sha256 in entry.objects}
        return tuple(item for item in self.objects if item.sha256 not in named)


@dataclass(frozen=True, slots=True)
class Damage:
    """An object whose content isn't what its name says."""

    sha256: str
    size_bytes: int
    #: Entries that name it: `model.pte of tiny-llama/xnnpack-8da4w`.
    parts: tuple[str, ...]
    removed: bool


@dataclass(frozen=True, slots=True)
class Verified:
    """Every object of a store, hashed."""

    objects: int
    size_bytes: int
    damaged: tuple[Damage, ...]


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection removed, or would remove."""

    removal: Removal
    #: Temporary files of dead processes.
    temporaries: int
    temporary_bytes: int
    #: False: nothing was removed, this is what would be.
    applied: bool
    #: Bytes of the objects that stay.
    kept_bytes: int


def contents(home: Path) -> Contents:
    """Look at the store of a host.

    Raises:
        StoreError: It can't be read.
        ConfigError: A baseline can't be read.
    """
    store = ContentStore(paths.store_root(home))
    named = _named_by_baselines(home)
    with _translated(store), store.fence.held():
        return _survey(store, named)


def verify(home: Path, *, remove: bool) -> Verified:
    """Hash every object, whatever is remembered of it.

    Args:
        home: FARM_HOME.
        remove: Remove damaged objects: the next run makes them anew.

    Raises:
        StoreError, ConfigError: As `contents`.
    """
    store = ContentStore(paths.store_root(home))
    found = contents(home)
    damaged: list[Damage] = []
    with _translated(store):
        for item in found.objects:
            if store.intact(item.sha256) is not False:  # None: removed meanwhile
                continue
            if remove:
                store.remove(item.sha256)
            parts = _parts(found.entries, item.sha256)
            damaged.append(Damage(item.sha256, item.size_bytes, parts, remove))
    return Verified(len(found.objects), found.size_bytes, tuple(damaged))


def collect(home: Path, policy: Policy, *, apply: bool) -> Collected:
    """Remove what the policy, baselines and living processes leave over.

    Nobody can begin to use an object while this decides and removes; whoever comes later finds
    it gone and makes it anew.

    Args:
        home: FARM_HOME.
        policy: Which entries are too many.
        apply: False only says what would be removed.

    Raises:
        StoreError: The store can't be read or written.
        ConfigError: A baseline can't be read: what it names is not known.
    """
    store = ContentStore(paths.store_root(home))
    named = _named_by_baselines(home)
    with _translated(store), store.fence.held(alone=True):
        found = _survey(store, named)
        removal = choose(found.entries, found.objects, policy, time.time())
        abandoned = store.abandoned()
        temporary_bytes = sum(_size(path) for path in abandoned)
        if apply:
            # Entries first: an entry must not outlive its objects.
            for entry in removal.entries:
                ActionCache(store).forget(entry.key)
            for item in removal.objects:
                store.remove(item.sha256)
            store.remove_abandoned()
            if not found.users:
                ActionCache(store).drop_locks()
    return Collected(
        removal=removal,
        temporaries=len(abandoned),
        temporary_bytes=temporary_bytes,
        applied=apply,
        kept_bytes=found.size_bytes - removal.freed_bytes,
    )


def _survey(store: ContentStore, named: Mapping[str, tuple[str, ...]]) -> Contents:
    users = tuple(store.fence.users())
    objects = tuple(_objects(store, users, named))
    sizes = {item.sha256: item.size_bytes for item in objects}
    cache = ActionCache(store)
    entries = tuple(
        entry
        for key in cache.known()
        if (entry := _entry(cache, key, sizes, users, named)) is not None
    )
    return Contents(entries, objects, users)


def _objects(
    store: ContentStore, users: Iterable[StoreUser], named: Mapping[str, tuple[str, ...]]
) -> Iterator[StoreObject]:
    for ref in store.listing():
        with contextlib.suppress(FileNotFoundError):
            used_s = last_used_s(store.location(ref.sha256))
            protected = ref.sha256 in named or bool(_users_of(users, used_s))
            yield StoreObject(ref.sha256, ref.size_bytes, used_s, protected)


def _users_of(users: Iterable[StoreUser], used_s: float) -> tuple[str, ...]:
    """Uses that began before the last touch of an object: each may have caused it."""
    return tuple(
        f"pid {user.pid} ({user.purpose})" for user in users if user.since_s <= used_s + 0.1
    )


def _entry(
    cache: ActionCache,
    key: str,
    sizes: Mapping[str, int],
    users: Iterable[StoreUser],
    named: Mapping[str, tuple[str, ...]],
) -> StoreEntry | None:
    try:
        used_s = last_used_s(cache.path(key))
    except FileNotFoundError:
        return None
    used_by = _users_of(users, used_s)
    kind, value_type = next(
        (found for start, found in _KINDS.items() if key.startswith(f"{start}-")), (None, None)
    )
    value = None if value_type is None else cache.read(key, value_type)
    if kind is None or value is None:
        return StoreEntry(key, "unreadable", (), 0, used_s, used_by=used_by)
    parts = {ref.sha256: ref.name for ref in object_refs(value)}
    entry = StoreEntry(
        key=key,
        kind=kind,
        objects=tuple((name, sha256) for sha256, name in parts.items()),
        size_bytes=sum(sizes.get(sha256, 0) for sha256 in parts),
        last_used_s=used_s,
        used_by=used_by,
    )
    if isinstance(value, RunnerBuild):
        return dataclasses.replace(entry, baselines=named.get(value.sha256, ()))
    if not isinstance(value, ExportResult):
        return entry
    return dataclasses.replace(
        entry,
        model=value.bundle.model,
        recipe=value.bundle.recipe,
        toolchain=f"executorch {value.versions.executorch}",
        # By its program: weights that it shares with others don't make it theirs.
        baselines=named.get(value.bundle.pte.sha256, ()),
    )


def _named_by_baselines(home: Path) -> dict[str, tuple[str, ...]]:
    """Names of the baselines that name each artifact and runner.

    By sha256 of a program or of weights, and by the one that stands for all files of a runner.
    """
    named: dict[str, tuple[str, ...]] = {}
    for baseline in baselines.list_baselines(paths.baselines(home)):
        for result in baseline.report.results:
            artifact = result.artifact
            for sha256 in (artifact.sha256, artifact.data_sha256, result.runner.sha256):
                if sha256 is not None and baseline.name not in named.get(sha256, ()):
                    named[sha256] = (*named.get(sha256, ()), baseline.name)
    return named


def _parts(entries: Iterable[StoreEntry], sha256: str) -> tuple[str, ...]:
    return tuple(
        f"{name} of {f'{entry.model}/{entry.recipe}' if entry.model else entry.kind}"
        for entry in entries
        for name, found in entry.objects
        if found == sha256
    )


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    total = 0
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            total += file.stat().st_size if file.is_file() else 0
    return total


@contextlib.contextmanager
def _translated(store: ContentStore) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"can't use {error.filename or store.root}: {error.strerror}") from error
