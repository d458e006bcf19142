"""Names to things: lazy, strict, an ordinary value.

A table line holds either the thing itself or `module:attribute`, which is imported at the
first use, so that a heavy or optional package costs nothing until somebody asks for it.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar, cast

from farm.core.errors import ConfigError, UnknownName
from farm.core.names import meant

T = TypeVar("T")


class Registry(Generic[T]):
    """A table of one kind of thing, for example transports.

    Args:
        kind: What the names stand for, in the singular; used in messages.
        table: Name to thing, or to `module:attribute` where a thing is imported late.
        install: Name to what a user has to install for it, where that isn't part of farm.
    """

    def __init__(
        self,
        kind: str,
        table: Mapping[str, T | str] | None = None,
        *,
        install: Mapping[str, str] | None = None,
    ) -> None:
        self.kind = kind
        self._table: dict[str, T | str] = {}
        self._loaded: dict[str, T] = {}
        self._install = dict(install or {})
        for name, target in (table or {}).items():
            self.add(name, target)

    def add(self, name: str, target: T | str) -> None:
        """Register one more thing.

        Raises:
            ConfigError: The name is taken, or the target is text but not `module:attribute`.
        """
        if name in self._table:
            raise ConfigError(f"{self.kind} '{name}' is registered twice")
        if isinstance(target, str) and not _is_import_path(target):
            raise ConfigError(
                f"{self.kind} '{name}': '{target}' is not an import path like module:attribute"
            )
        self._table[name] = target

    def get(self, name: str) -> T:
        """Return the thing behind a name, importing it at the first call.

        Raises:
            UnknownName: Nobody registered that name, or a package that it needs is missing.
            ConfigError: The module was imported but lacks the attribute.
        """
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def names(self) -> tuple[str, ...]:
        """All names, sorted."""
        return tuple(sorted(self._table))

    def __contains__(self, name: object) -> bool:
        return name in self._table

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self._table)

    def _load(self, name: str) -> T:
        if name not in self._table:
            raise self._unknown(name)
        target = self._table[name]
        if not isinstance(target, str):
            return target
        module_name, _, attribute = target.partition(":")
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or _is_installed(error.name):
                raise
            remedy = self._install.get(name, f"pip install {error.name.partition('.')[0]}")
            raise UnknownName(
                f"{self.kind} '{name}' needs the package '{error.name}', which is not "
                f"installed: {remedy}",
                known=self.names(),
                install=remedy,
            ) from error
        if not hasattr(module, attribute):
            raise ConfigError(f"{self.kind} '{name}': {module_name} has no '{attribute}'")
        return cast("T", getattr(module, attribute))

    def _unknown(self, name: str) -> UnknownName:
        known = self.names()
        parts = [f"unknown {self.kind} '{name}'{meant(name, known)}"]
        parts.append(f"known: {', '.join(known) or 'none'}")
        remedy = self._install.get(name)
        if remedy:
            parts.append(remedy)
        return UnknownName("; ".join(parts), known=known, install=remedy)


def _is_import_path(text: str) -> bool:
    module, _, attribute = text.partition(":")
    return all(part.isidentifier() for part in (*module.split("."), attribute))


def _is_installed(module: str) -> bool:
    """A module missing inside a package that is there is a defect, nothing to install."""
    return importlib.util.find_spec(module.partition(".")[0]) is not None
