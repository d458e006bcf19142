"""The journal of a run: what happened, durably and in order. Reports and resume derive from it.

SQLite in WAL mode with synchronous=FULL; one transaction for each batch of events, committed
before the site hears that they arrived. It doesn't decide anything.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from farm import codec
from farm.clock import utc_now
from farm.core.errors import ConfigError, StoreError
from farm.core.result import CellResult

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (
  seq INTEGER PRIMARY KEY, at TEXT NOT NULL, kind TEXT NOT NULL, data TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS cells (cell_id TEXT PRIMARY KEY, result TEXT NOT NULL) WITHOUT ROWID;
"""

#: File systems on which SQLite's locks or write-ahead log can't be relied on.
NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "afs", "ceph", "glusterfs"}
)


def file_system_type(path: Path, mounts: Path = Path("/proc/self/mounts")) -> str | None:
    """Return the type of the file system that holds a path; None where the kernel doesn't tell."""
    try:
        lines = mounts.read_text("utf-8", "replace").splitlines()
    except OSError:
        return None
    resolved = str(path.resolve())
    best, found = -1, None
    for line in lines:
        parts = line.split()
        if len(parts) < 3:
            continue
        point = parts[1].replace("\\040", " ")
        inside = resolved == point or resolved.startswith(point.rstrip("/") + "/")
        if inside and len(point) > best:
            best, found = len(point), parts[2]
    return found


class Journal:
    """One run's journal file.

    Args:
        path: `journal.db` in the run folder.
        resume: Open one that exists; otherwise a new one is made.

    Raises:
        StoreError: The folder is on a network file system, full, or can't be written.
        ConfigError: `resume` is asked for and there is no journal.
    """

    def __init__(self, path: Path, *, resume: bool = False) -> None:
        self._path = path
        kind = file_system_type(path.parent)
        if kind in NETWORK_FILE_SYSTEMS:
            raise StoreError(
                f"{path.parent} is on a network file system ({kind}), where the journal can be"
                " lost; give a local folder with --out"
            )
        if resume and not path.exists():
            raise ConfigError(f"{path.parent}: is no run that can be resumed (no journal.db)")
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise StoreError(f"can't write the journal {path}: {error}") from error

    def close(self) -> None:
        """Close the file; all of it is already durable."""
        self._db.close()

    def get(self, key: str) -> str | None:
        """Return a fact about the run, or None."""
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def set(self, key: str, value: str) -> None:
        """Store a fact about the run."""
        self._commit([("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))])

    def record(self, events: Sequence[tuple[str, Any]]) -> None:
        """Store events, as kind and plain data, in one transaction.

        Raises:
            StoreError: The disk is full or can't be written.
        """
        at = utc_now()
        self._commit(
            [
                (
                    "INSERT INTO events (at, kind, data) VALUES (?, ?, ?)",
                    (at, kind, json.dumps(data, sort_keys=True)),
                )
                for kind, data in events
            ]
        )

    def finish_cell(self, result: CellResult) -> None:
        """Store the one result of a cell; a second one for the same cell is refused.

        Raises:
            StoreError: The cell has a result already, or the disk can't be written.
        """
        self._commit([("INSERT INTO cells VALUES (?, ?)", (result.cell_id, codec.to_json(result)))])

    def reopen_cell(self, cell_id: str) -> None:
        """Forget the result of a cell that a resumed run tries again."""
        self._commit([("DELETE FROM cells WHERE cell_id = ?", (cell_id,))])

    def cells(self) -> dict[str, CellResult]:
        """Return the recorded results by cell id."""
        rows = self._db.execute("SELECT cell_id, result FROM cells ORDER BY cell_id")
        return {cell_id: codec.from_json(CellResult, text) for cell_id, text in rows}

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield every event in order, as plain data."""
        for seq, at, kind, data in self._db.execute("SELECT * FROM events ORDER BY seq"):
            yield {"seq": seq, "at": at, "kind": kind, **json.loads(data)}

    def _commit(self, statements: Sequence[tuple[str, tuple[Any, ...]]]) -> None:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for sql, values in statements:
                self._db.execute(sql, values)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise StoreError(
                f"can't write the journal {self._path}: {error}; free some space, then continue"
                f" with `farm run --resume {self._path.parent}`"
            ) from error
