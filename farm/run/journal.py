"""The journal of a run: what happened, durably and in order. Reports and resume derive from it.

SQLite in WAL mode with synchronous=FULL; one transaction for each batch of events, committed
before they are acknowledged to the site. Every record carries a checksum. It decides nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from farm import codec
from farm.clock import utc_now
from farm.core.errors import ConfigError, StoreError
from farm.core.result import CellResult
from farm.run.measured import Measured
from farm.run.recorded import Recorded
from farm.run.run_lock import RunLock

T = TypeVar("T")

#: Version of the tables below. A journal of another one can't be read.
FORMAT = 2

_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS meta (
  key TEXT PRIMARY KEY, value TEXT NOT NULL, checksum TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (
  seq INTEGER PRIMARY KEY, at TEXT NOT NULL, kind TEXT NOT NULL, data TEXT NOT NULL,
  checksum TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS cells (
  key TEXT PRIMARY KEY, value TEXT NOT NULL, checksum TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS measured (
  key TEXT PRIMARY KEY, value TEXT NOT NULL, checksum TEXT NOT NULL) WITHOUT ROWID;
PRAGMA user_version = {FORMAT};
"""

#: The outcome of a result as codec.to_json writes it, keys sorted: found in a tenth of the time
#: that decoding takes. No text has such quotes within it, no attempt these neighbours, and its
#: second sitting comes after it.
_OUTCOME = re.compile(r'"outcome":"([a-z]+)","performance":\[')

#: File systems on which SQLite's locks or write-ahead log can't be relied on.
NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "afs", "ceph", "glusterfs"}
)

#: Outcomes that comparing gave.
JUDGED = ("passed", "failed", "inconclusive")

_Statement = tuple[str, tuple[Any, ...]]


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
        read_only: Only look: nothing is locked or written.

    Raises:
        StoreError: The folder is on a network file system, full, or can't be written; another
            process works on the run.
        ConfigError: `resume` is asked for and there is no journal, or one of another farm.
    """

    def __init__(self, path: Path, *, resume: bool = False, read_only: bool = False) -> None:
        self._path = path
        #: Records that could not be read, each named; never empty without a reason.
        self.damaged: list[str] = []
        self._reopened: set[str] = set()
        kind = file_system_type(path.parent)
        if kind in NETWORK_FILE_SYSTEMS:
            raise StoreError(
                f"{path.parent} is on a network file system ({kind}), where the journal can be"
                " lost; give a local folder with --out"
            )
        if (resume or read_only) and not path.exists():
            raise ConfigError(f"{path.parent}: is no run that can be resumed (no journal.db)")
        self._lock = None if read_only else RunLock(path.parent)
        try:
            if not (resume or read_only):
                # It holds the values of `runners.*.env`, which reports mask.
                os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
            # The report of a killed run is made from WAL and file: SQLite has to open both.
            self._db = sqlite3.connect(path, isolation_level=None)
            if resume or read_only:
                self._check_format()
            if not read_only:
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=FULL")
            if not (resume or read_only):  # its last word is the format, which was checked
                self._db.executescript(_SCHEMA)
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise StoreError(f"can't use the journal {path}: {error}") from error
        except BaseException:
            self.close()
            raise

    def _check_format(self) -> None:
        (found,) = self._db.execute("PRAGMA user_version").fetchone()
        if found != FORMAT:
            raise ConfigError(
                f"{self._path}: has format {found}, this farm reads {FORMAT}: use the farm that"
                " wrote it, or start a new run"
            )

    def close(self) -> None:
        """Close the file and release the run; all of it is already durable."""
        if hasattr(self, "_db"):
            self._db.close()
        if self._lock is not None:
            self._lock.release()

    # -- facts about the run

    def get(self, key: str) -> str | None:
        """Return a fact about the run, or None.

        Raises:
            StoreError: It is damaged: the run can't be gone on with.
        """
        for _, value in self._rows("meta", key):
            return value
        if (what := _damaged("meta", key)) in self.damaged:
            raise StoreError(f"{self._path}: {what}; start a new run")
        return None

    def set(self, key: str, value: str) -> None:
        """Store a fact about the run."""
        self._commit([_replace("meta", key, value)])

    # -- events

    def record(
        self, events: Sequence[tuple[str, Any]], measured: Sequence[tuple[str, Measured]] = ()
    ) -> None:
        """Store events, as kind and plain data, and results of devices, in one transaction.

        Raises:
            StoreError: The disk is full or can't be written.
        """
        at = utc_now()
        statements: list[_Statement] = []
        for kind, data in events:
            text = json.dumps(data, sort_keys=True)
            values = (at, kind, text, _checksum(at, kind, text))
            sql = "INSERT INTO events (at, kind, data, checksum) VALUES (?, ?, ?, ?)"
            statements.append((sql, values))
        for cell_id, value in measured:
            # Unlike a report it may hold a number that is none: judging says so, not this.
            text = json.dumps(codec.to_data(value), sort_keys=True)
            statements.append(_replace("measured", cell_id, text))
        self._commit(statements)

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield every event in order, as plain data; a damaged one has the kind `damaged`."""
        with self._translated():
            rows = self._db.execute("SELECT * FROM events ORDER BY seq").fetchall()
        expected = 1
        for seq, at, kind, data, checksum in rows:
            for missing in range(expected, seq):
                yield self._damage(f"event {missing} is missing", missing)
            expected = seq + 1
            if checksum != _checksum(at, kind, data):
                yield self._damage(f"event {seq} ({kind!s:.40}) is damaged", seq)
            else:
                yield {"seq": seq, "at": at, "kind": kind, **json.loads(data)}

    def _damage(self, what: str, seq: int) -> dict[str, Any]:
        self._note_damage(what)
        return {"seq": seq, "at": "", "kind": "damaged", "reason": what}

    # -- cells

    def finish_cell(self, result: CellResult) -> None:
        """Store the one result of a cell; a second one for the same cell is refused.

        Raises:
            StoreError: The cell has a result already, or the disk can't be written.
        """
        verb = "INSERT OR REPLACE" if result.cell_id in self._reopened else "INSERT"
        self._finish(verb, result)
        self._reopened.discard(result.cell_id)

    def reopen(self, cell_ids: Iterable[str]) -> None:
        """Let each of these cells get one more result; the old one stays until then."""
        self._reopened |= set(cell_ids)

    def _finish(self, verb: str, result: CellResult) -> None:
        _, values = _replace("cells", result.cell_id, codec.to_json(result))
        statements: list[_Statement] = [(f"{verb} INTO cells VALUES (?, ?, ?)", values)]
        if result.outcome in JUDGED:
            # What was judged is not judged again: a later run of the cell measures anew.
            statements.append(("DELETE FROM measured WHERE key = ?", (result.cell_id,)))
        self._commit(statements)

    def cells(self) -> Recorded:
        """Return the recorded results by cell id, without damaged ones.

        Each is decoded when it is asked for, which takes a hundred times as long as to check it.
        """
        outcomes: dict[str, str] = {}
        with self._translated():
            for key, value, checksum in self._db.execute("SELECT * FROM cells ORDER BY key"):
                if checksum == _checksum("cells", key, value):
                    found = _OUTCOME.search(value)
                    outcomes[key] = found[1] if found else str(json.loads(value)["outcome"])
                else:
                    self._note_damage(_damaged("cells", key))
        return Recorded(outcomes, self._cell)

    def _cell(self, cell_id: str) -> CellResult:
        for _, value in self._rows("cells", cell_id):
            return codec.from_json(CellResult, value)
        raise StoreError(f"{self._path}: {_damaged('cells', cell_id)} since the run began")

    def measured(self) -> dict[str, Measured]:
        """Return the last result of a device by cell id, without damaged ones."""
        return self._values("measured", Measured)

    def _values(self, table: str, kind: type[T]) -> dict[str, T]:
        return {key: codec.from_data(kind, json.loads(value)) for key, value in self._rows(table)}

    def _rows(self, table: str, key: str | None = None) -> Iterator[tuple[str, str]]:
        """Yield the keys and values of intact records; note the others."""
        with self._translated():
            rows = self._db.execute(
                f"SELECT key, value, checksum FROM {table} WHERE ?1 IS NULL OR key = ?1"
                " ORDER BY key",
                (key,),
            ).fetchall()
        for found, value, checksum in rows:
            if checksum == _checksum(table, found, value):
                yield found, value
            else:
                self._note_damage(_damaged(table, found))

    def _note_damage(self, what: str) -> None:
        if what not in self.damaged:
            self.damaged.append(what)

    def _commit(self, statements: Sequence[_Statement]) -> None:
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

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"can't read the journal {self._path}: {error}") from error


def _replace(table: str, key: str, value: str) -> _Statement:
    values = (key, value, _checksum(table, key, value))
    return f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?)", values


def _damaged(table: str, key: str) -> str:
    return f"record {key!r} of {table} is damaged"


def _checksum(*parts: Any) -> str:
    """Hash of a record with its place, so that a value under another key counts as damaged."""
    text = "\0".join(map(str, parts))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
