"""The file of an outbox: what a controller has not acknowledged outlives the agent.

SQLite with synchronous=FULL; a checksum each record. A record that can't be read is named and left
out: its job then counts as lost and runs again. One agent at a time has the file.
"""

from __future__ import annotations

import hashlib
import logging
import pickle
import sqlite3
from pathlib import Path

from farm.core.errors import StoreError
from farm.core.events import Numbered, SiteEvent
from farm.host.source_tree import tree_sha256

log = logging.getLogger(__name__)

#: An agent that is being ended may have the file for so long yet, seconds.
_LOCK_S = 10.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (
  seq INTEGER PRIMARY KEY, data BLOB NOT NULL, work TEXT NOT NULL, checksum TEXT NOT NULL);
"""


class OutboxFile:
    """Events of one run on the disk of its agent.

    Args:
        path: The file; made when there is none.
        run_id: Whose events they are.

    Raises:
        StoreError: Another agent has it, it is of another run, or the disk can't be written.
    """

    def __init__(self, path: Path, run_id: str) -> None:
        self.path = path
        self._run_id = run_id
        #: Records that could not be read or kept, each named.
        self.damaged: list[str] = []
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            # Sessions append from their threads; the outbox has a lock around every call.
            self._db = sqlite3.connect(
                path, isolation_level=None, timeout=_LOCK_S, check_same_thread=False
            )
            self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("BEGIN EXCLUSIVE")
            for statement in _SCHEMA.split(";"):
                self._db.execute(statement)
            owner = self._meta("run", run_id)
            self._made_by = self._meta("farm", tree_sha256())
            self._db.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"can't use the outbox {path}: {error}") from error
        if owner != run_id:
            self.close()
            raise StoreError(f"the outbox {path} is of run {owner}, not of {run_id}")

    def load(self) -> list[tuple[Numbered, str]]:
        """Return what was kept, in order, with the digest of the work that each came of."""
        try:
            rows = self._db.execute("SELECT * FROM events ORDER BY seq").fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"can't read the outbox {self.path}: {error}") from error
        found = []
        for seq, data, work, checksum in rows:
            if self._made_by != tree_sha256():
                self._note(f"event {seq} is of another version of farm")
            elif checksum != self._checksum(seq, data, work):
                self._note(f"event {seq} is damaged")
            else:
                event: SiteEvent = pickle.loads(data)
                found.append((Numbered(seq, event), work))
        if self._made_by != tree_sha256():
            self._execute("DELETE FROM events")
            self._execute("UPDATE meta SET value = ? WHERE key = 'farm'", tree_sha256())
            self._made_by = tree_sha256()
        return found

    def last(self) -> int:
        """Return the highest number that is kept, readable or not."""
        (seq,) = self._db.execute("SELECT COALESCE(MAX(seq), 0) FROM events").fetchone()
        return int(seq)

    def add(self, item: Numbered, work: str) -> None:
        """Keep an event. On a full disk it lives as long as the agent, and that is named."""
        data = pickle.dumps(item.event)
        checksum = self._checksum(item.seq, data, work)
        self._execute(
            "INSERT OR REPLACE INTO events VALUES (?, ?, ?, ?)", item.seq, data, work, checksum
        )

    def remove(self, seqs: list[int]) -> None:
        """Forget events."""
        if seqs:
            marks = ",".join("?" * len(seqs))
            self._execute(f"DELETE FROM events WHERE seq IN ({marks})", *seqs)

    def close(self) -> None:
        """Leave the file to the next agent."""
        self._db.close()

    def delete(self) -> None:
        """Close, and remove the file: nothing in it is needed any more."""
        self.close()
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)

    def _meta(self, key: str, value: str) -> str:
        self._db.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (key, value))
        (found,) = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return str(found)

    def _execute(self, sql: str, *values: object) -> None:
        try:
            self._db.execute(sql, values)
        except sqlite3.Error as error:
            self._note(f"the outbox can't be written ({error}): events end with the agent")

    def _note(self, what: str) -> None:
        if what not in self.damaged:
            log.error("outbox of run %s: %s", self._run_id, what)
            self.damaged.append(what)

    def _checksum(self, seq: int, data: bytes, work: str) -> str:
        place = f"{self._run_id}\0{seq}\0{work}\0".encode()
        return hashlib.sha256(place + data).hexdigest()
