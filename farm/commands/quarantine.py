"""Quarantine over several hosts: each keeps a book in its FARM_HOME.

A person's quarantine of a site's device stands in the book of its own host, so that runs of every
host see it; that of a run stands in the book of the run's host.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from farm.commands.everywhere import at_each, device_of
from farm.core.errors import FarmError, UnknownName
from farm.core.rules.health import Health, Quarantine
from farm.paths import quarantine_file
from farm.planning.reach import reaching
from farm.state.health_book import HealthBook


@dataclass(frozen=True, slots=True)
class Book:
    """What one host keeps in quarantine."""

    host: str
    #: The file; a host and its own site have one.
    path: str
    quarantined: tuple[Health, ...]


def read_books(cluster: str, home: Path) -> tuple[list[Book], dict[str, FarmError]]:
    """Return the book of this host and those of a cluster's sites, and why some were not read."""
    found = at_each(cluster, home, read_book)
    books = [book for book in found.values() if isinstance(book, Book)]
    return list(dict.fromkeys(books)), _failed(found)


def read_book(home: Path) -> Book:
    """Read the book of one host."""
    path = quarantine_file(home)
    return Book(platform.node(), str(path), tuple(HealthBook(path).quarantined()))


def add(cluster: str, name: str, inventory: Path | None, home: Path, reason: str, by: str) -> None:
    """Put a device into quarantine, in the book of its own host.

    Raises:
        UnknownName: The cluster has no such device.
    """
    if cluster == "none":
        HealthBook(quarantine_file(home)).add(name, reason, by)
        return
    with reaching(cluster, home) as reach:
        device = device_of(reach, name, inventory)
        # Other hosts may know it by another name.
        identity = None if device.facts is None else device.facts.identity
        reach.at(device.entry.site, _add, name, reason, by, identity)


def _add(home: Path, name: str, reason: str, by: str, identity: str | None) -> None:
    HealthBook(quarantine_file(home)).add(name, reason, by, identity)


def release(cluster: str, name: str, home: Path) -> tuple[Quarantine, dict[str, FarmError]]:
    """Release a device in the book of this host and in those of a cluster's sites.

    Returns:
        What it was in for, and why some books could not be asked.

    Raises:
        UnknownName: It is in none of those that could be asked.
    """
    found = at_each(cluster, home, _release, name)
    was = [one for one in found.values() if isinstance(one, Quarantine)]
    if was:
        return was[0], _failed(found)
    known = tuple(sorted({n for one in found.values() if isinstance(one, tuple) for n in one}))
    text = f"{name!r} isn't in quarantine; these are: {', '.join(known) or 'none'}"
    lost = "".join(f"; site {site}: not asked: {e.message}" for site, e in _failed(found).items())
    raise UnknownName(text + lost, known=known)


def _release(home: Path, name: str) -> Quarantine | tuple[str, ...]:
    """Release a device in one book; returns the names that are in it where that one isn't."""
    try:
        return HealthBook(quarantine_file(home)).release(name)
    except UnknownName as error:
        return tuple(error.context["known"])


def _failed(found: Mapping[str, object]) -> dict[str, FarmError]:
    return {site: one for site, one in found.items() if isinstance(one, FarmError)}
