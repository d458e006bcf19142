"""history.db: an index over finished runs on this host. Estimates and trends come from it.

It can be rebuilt from run folders; losing it loses no result.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farm.core.errors import ConfigError, StoreError
from farm.core.nights import SelfChecked
from farm.core.result import CellResult, Report
from farm.core.rules.gates import is_gated
from farm.core.rules.scatter import Scatter, scatters
from farm.paths import unwritable

_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
  run_id TEXT PRIMARY KEY, name TEXT NOT NULL, folder TEXT NOT NULL, started_at TEXT NOT NULL,
  ended_at TEXT NOT NULL, exit_code INTEGER NOT NULL, verdict TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS metrics (
  run_id TEXT NOT NULL, cell_id TEXT NOT NULL, metric TEXT NOT NULL, regime TEXT NOT NULL,
  unit TEXT NOT NULL, median REAL, low REAL, high REAL, trust TEXT NOT NULL,
  PRIMARY KEY (run_id, cell_id, metric, regime)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS bytes (
  run_id TEXT NOT NULL, cell_id TEXT NOT NULL, artifact TEXT NOT NULL, runner TEXT NOT NULL,
  device TEXT NOT NULL, os_build TEXT NOT NULL, PRIMARY KEY (run_id, cell_id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outcomes (
  run_id TEXT NOT NULL, cell_id TEXT NOT NULL, outcome TEXT NOT NULL, toolchain TEXT NOT NULL,
  PRIMARY KEY (run_id, cell_id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS scatter (
  run_id TEXT NOT NULL, cell_id TEXT NOT NULL, metric TEXT NOT NULL, sigma REAL NOT NULL,
  launch_s REAL NOT NULL, PRIMARY KEY (run_id, cell_id, metric)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS self_checks (
  night TEXT NOT NULL, name TEXT NOT NULL, started_at TEXT NOT NULL, kind TEXT NOT NULL,
  run_id TEXT NOT NULL, cell_id TEXT NOT NULL, verdict TEXT NOT NULL, is_right INTEGER,
  reason TEXT NOT NULL, PRIMARY KEY (night, kind)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS durations (
  task TEXT PRIMARY KEY, seconds REAL NOT NULL) WITHOUT ROWID;
"""


#: What a dump holds; its version.
TABLES = ("runs", "metrics", "bytes", "outcomes", "scatter", "self_checks", "durations")
FORMAT = 1
#: More runs than an index ever has.
EVERY = 1_000_000


@dataclass(frozen=True, slots=True)
class PastRun:
    """One line of the history."""

    run_id: str
    name: str
    folder: str
    started_at: str
    exit_code: int
    verdict: str


@dataclass(frozen=True, slots=True)
class Night:
    """One metric of one cell in one run; numbers of different nights are drawn, never judged."""

    run_id: str
    started_at: str
    name: str
    cell_id: str
    outcome: str
    metric: str
    regime: str
    unit: str
    median: float | None
    low: float | None
    high: float | None
    trust: str
    device: str
    os_build: str
    toolchain: str
    artifact: str
    runner: str


class History:
    """The index.

    Args:
        path: history.db; made when it doesn't exist.

    Raises:
        StoreError: It can't be opened; says that it may be removed and rebuilt.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._translated():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=10)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def add(self, report: Report, folder: Path, durations_s: Mapping[str, float]) -> None:
        """Index a finished run; one that is there already is replaced.

        Raises:
            StoreError: The disk is full or can't be written.
        """
        with self._translated(), self._db:
            self._db.execute(
                "INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    report.run_id,
                    report.name,
                    str(folder),
                    report.started_at,
                    report.ended_at,
                    report.exit_code,
                    report.verdict_line,
                ),
            )
            self._db.execute("DELETE FROM metrics WHERE run_id = ?", (report.run_id,))
            self._db.executemany(
                "INSERT INTO metrics VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        report.run_id,
                        cell.cell_id,
                        measured.metric,
                        measured.regime,
                        measured.unit,
                        measured.median,
                        None if measured.ci95 is None else measured.ci95[0],
                        None if measured.ci95 is None else measured.ci95[1],
                        measured.trust,
                    )
                    for cell in report.results
                    for measured in cell.performance
                ],
            )
            self._db.execute("DELETE FROM bytes WHERE run_id = ?", (report.run_id,))
            self._db.executemany(
                "INSERT INTO bytes VALUES (?, ?, ?, ?, ?, ?)",
                [(report.run_id, cell.cell_id, *_ran(cell)) for cell in report.results],
            )
            self._db.execute("DELETE FROM outcomes WHERE run_id = ?", (report.run_id,))
            self._db.executemany(
                "INSERT INTO outcomes VALUES (?, ?, ?, ?)",
                [(report.run_id, c.cell_id, c.outcome, c.toolchain) for c in report.results],
            )
            self._db.execute("DELETE FROM scatter WHERE run_id = ?", (report.run_id,))
            self._db.executemany(
                "INSERT INTO scatter VALUES (?, ?, ?, ?, ?)",
                [(report.run_id, *row) for cell in report.results for row in _scatter(cell)],
            )
            took = {**durations_s, **_jobs_s(report)}
            self._db.executemany(
                "INSERT OR REPLACE INTO durations VALUES (?, ?)", list(took.items())
            )

    def dump(self) -> dict[str, Any]:
        """Return every table as plain data, for `load` elsewhere."""
        tables = {}
        with self._translated():
            for table in TABLES:
                cursor = self._db.execute(f"SELECT * FROM {table}")
                columns = [column[0] for column in cursor.description]
                tables[table] = [dict(zip(columns, row, strict=True)) for row in cursor]
        return {"farm_history": FORMAT, "tables": tables}

    def load(self, path: Path) -> int:
        """Add what another index dumped; runs that are here already are replaced. All or nothing.

        Returns:
            The number of runs.

        Raises:
            ConfigError: The file is no dump, or one of another farm.
        """
        try:
            data = json.loads(path.read_text("utf-8"))
            if data["farm_history"] != FORMAT:
                raise ConfigError(
                    f"{path}: has format {data['farm_history']}, this farm reads {FORMAT}"
                )
            # Tables that came later aren't in older dumps.
            data["tables"].setdefault("self_checks", [])
            rows = [(table, row) for table in TABLES for row in data["tables"][table]]
            with self._translated(), self._db:
                # What a run has no longer must not stay: a cell, a metric.
                for table in ("metrics", "bytes", "outcomes", "scatter"):
                    self._db.executemany(
                        f"DELETE FROM {table} WHERE run_id = ?",
                        [(run["run_id"],) for run in data["tables"]["runs"]],
                    )
                for table, row in rows:
                    names = ", ".join(self._columns(table))
                    values = [row[name] for name in self._columns(table)]
                    marks = ", ".join("?" * len(values))
                    self._db.execute(
                        f"INSERT OR REPLACE INTO {table} ({names}) VALUES ({marks})", values
                    )
            return len(data["tables"]["runs"])
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ConfigError(
                f"{path}: is no file of `farm history export` ({type(error).__name__}: {error})"
            ) from error

    def _columns(self, table: str) -> list[str]:
        return [row[1] for row in self._db.execute(f"PRAGMA table_info({table})")]

    def durations_s(self) -> dict[str, float]:
        """Return how long each host task took when it last did work, by task id.

        Jobs too, lease to clean-up, as `job:CELL@DEVICE`.
        """
        with self._translated():
            return dict(self._db.execute("SELECT task, seconds FROM durations"))

    def scatter(self, cell_id: str, *, nights: int = 10) -> dict[str, list[Scatter]]:
        """Return how much the launches of a cell's gated speeds scattered, by metric."""
        found: dict[str, list[Scatter]] = {}
        with self._translated():
            rows = self._db.execute(
                "SELECT s.metric, s.sigma, s.launch_s FROM scatter s JOIN runs r"
                " ON r.run_id = s.run_id WHERE s.cell_id = ? AND s.launch_s > 0"
                " ORDER BY r.started_at DESC",
                (cell_id,),
            )
            for metric, sigma, launch_s in rows:
                if len(values := found.setdefault(metric, [])) < nights:
                    values.append(Scatter(sigma, launch_s))
        return found

    def runs(self, *, name: str | None = None, limit: int = 30) -> list[PastRun]:
        """Return the newest runs first, of one config or of all."""
        with self._translated():
            rows = self._db.execute(
                "SELECT run_id, name, folder, started_at, exit_code, verdict FROM runs"
                " WHERE ?1 IS NULL OR name = ?1 ORDER BY started_at DESC LIMIT ?2",
                (name, limit),
            )
            return [PastRun(*row) for row in rows]

    def add_self_checks(self, night: Report, checks: Iterable[SelfChecked]) -> None:
        """Keep what the gate was tried on in a night.

        Raises:
            StoreError: As `add`.
        """
        with self._translated(), self._db:
            self._db.executemany(
                "INSERT OR REPLACE INTO self_checks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        night.run_id,
                        night.name,
                        night.started_at,
                        one.kind,
                        one.run_id,
                        one.cell_id,
                        one.verdict,
                        one.right,
                        one.reason,
                    )
                    for one in checks
                ],
            )

    def self_checks(self, name: str, *, limit: int) -> list[list[SelfChecked]]:
        """Return the checks of the newest nights of a config that had some, newest first."""
        found: dict[str, list[SelfChecked]] = {}
        with self._translated():
            rows = self._db.execute(
                "SELECT night, kind, run_id, cell_id, verdict, is_right, reason FROM self_checks"
                " WHERE name = ? ORDER BY started_at DESC, night, kind",
                (name,),
            )
            for night, kind, run_id, cell_id, verdict, is_right, reason in rows:
                right = None if is_right is None else bool(is_right)
                one = SelfChecked(kind, run_id, cell_id, verdict, right, reason)
                if night in found or len(found) < limit:
                    found.setdefault(night, []).append(one)
        return list(found.values())

    def nights(self, *, name: str | None = None, limit: int = 30) -> list[Night]:
        """Return every metric of the newest runs, of one config or of all, oldest first."""
        with self._translated():
            rows = self._db.execute(
                "SELECT r.run_id, r.started_at, r.name, m.cell_id, coalesce(o.outcome, ''),"
                " m.metric, m.regime, m.unit, m.median, m.low, m.high, m.trust,"
                " coalesce(b.device, ''), coalesce(b.os_build, ''), coalesce(o.toolchain, ''),"
                " coalesce(b.artifact, ''), coalesce(b.runner, '')"
                " FROM (SELECT * FROM runs WHERE ?1 IS NULL OR name = ?1"
                " ORDER BY started_at DESC LIMIT ?2) r JOIN metrics m ON m.run_id = r.run_id"
                " LEFT JOIN bytes b ON b.run_id = r.run_id AND b.cell_id = m.cell_id"
                " LEFT JOIN outcomes o ON o.run_id = r.run_id AND o.cell_id = m.cell_id"
                " ORDER BY r.started_at, r.run_id, m.cell_id, m.metric, m.regime",
                (name, limit),
            )
            return [Night(*row) for row in rows]

    def outcomes(self, run_id: str) -> dict[str, str]:
        """Return the outcome of every cell of a run; a run of an old index has none."""
        with self._translated():
            rows = self._db.execute(
                "SELECT cell_id, outcome FROM outcomes WHERE run_id = ? ORDER BY cell_id", (run_id,)
            )
            return dict(rows.fetchall())

    def same_bytes(
        self, results: Mapping[str, CellResult], *, limit: int = 30
    ) -> dict[str, dict[str, list[float]]]:
        """Return trusted warm medians that a cell's own bytes gave before on its own device.

        Returns:
            By cell id and metric, newest first; only cells whose bytes and OS build are known.
        """
        found: dict[str, dict[str, list[float]]] = {}
        with self._translated():
            for cell_id, cell in results.items():
                ran = _ran(cell)
                if "" in ran[:3]:
                    continue
                rows = self._db.execute(
                    "SELECT m.metric, m.median FROM bytes b JOIN runs r ON r.run_id = b.run_id"
                    " JOIN metrics m ON m.run_id = b.run_id AND m.cell_id = b.cell_id"
                    " WHERE b.cell_id = ? AND b.artifact = ? AND b.runner = ? AND b.device = ?"
                    " AND b.os_build = ? AND m.regime = 'warm' AND m.median IS NOT NULL"
                    " AND m.trust IN ('ok', 'unverified') ORDER BY r.started_at DESC",
                    (cell_id, *ran),
                )
                metrics = found.setdefault(cell_id, {})
                for metric, median in rows:
                    if len(values := metrics.setdefault(metric, [])) < limit:
                        values.append(median)
        return found

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            remedy = unwritable(self._path) or (
                "It is only an index: remove it and rebuild it with `farm history import RUN...`"
            )
            raise StoreError(f"can't use {self._path}: {error}. {remedy}") from error


def _jobs_s(report: Report) -> dict[str, float]:
    """How long the job of each cell took that ran to its end."""
    found = {}
    for cell in report.results:
        last = cell.attempts[-1] if cell.attempts else None
        if last is not None and last.outcome == "ran" and last.started_at and last.ended_at:
            begin, end = map(datetime.datetime.fromisoformat, (last.started_at, last.ended_at))
            found[f"job:{cell.cell_id}@{last.device}"] = (end - begin).total_seconds()
    return found


def _scatter(cell: CellResult) -> Iterator[tuple[str, str, float, float]]:
    """Scatter of each speed of a cell that is held against a baseline."""
    gated = (row for row in cell.performance if is_gated(row.metric) and not cell.device.emulated)
    for metric, one in scatters(gated).items():
        yield cell.cell_id, metric, one.sigma, one.launch_s


def _ran(cell: CellResult) -> tuple[str, str, str, str]:
    """What ran where: artifact, runner, device and OS build; empty where it isn't known."""
    parts = (cell.artifact.sha256, cell.runner.sha256, cell.device.identity, cell.device.os_build)
    artifact, runner, device, os_build = (part or "" for part in parts)
    return artifact, runner, device, os_build
