"""What goes wrong in a history: drawn by its seed, or one kill at one moment."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from tests.sim.network import Weather
from tests.sim.world import Violation

if TYPE_CHECKING:
    from tests.sim.history import History

#: An interrupted run is over after so long, whatever its sites do.
CTRL_C_S = 4.0
#: Who is killed at a moment.
VICTIMS = ("controller", "agent", "raylet")
#: Moments, and what a process may have done just before or after them.
MOMENTS = ("journal", "outbox", "ack")
SIDES = ("before", "after")


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong at one time."""

    at_s: float
    kind: str
    #: Which host, device or run, by its place in their list.
    which: int
    seconds: float


def weather(chance: Random) -> Weather:
    """How the network is in a history: fine in one of three."""
    if chance.random() < 1 / 3:
        return Weather()
    lost, doubled, late = (chance.choice((0.0, 0.01, 0.05)) for _ in range(3))
    return Weather(lost, doubled, late)


def draw(chance: Random, *, horizon_s: float, most: int) -> list[Fault]:
    """Draw what goes wrong, within a time."""
    faults = []
    for _ in range(chance.randrange(most + 1)):
        kind = chance.choice(sorted(KINDS))
        seconds = chance.choice((0.5, 3.0, 10.0, 25.0, 50.0, 70.0, 200.0))
        faults.append(Fault(chance.uniform(0.0, horizon_s), kind, chance.randrange(1000), seconds))
    return faults


def strike(history: History, fault: Fault) -> None:
    """Let a fault happen now."""
    history.struck.add(fault.kind)
    history.world.note(f"fault: {fault.kind} {fault.which} {fault.seconds}")
    KINDS[fault.kind](history, fault)


def _agent(history: History, fault: Fault) -> None:
    history.host(fault.which).kill_agent()


def _raylet(history: History, fault: Fault) -> None:
    history.host(fault.which).power_cut(fault.seconds)


def _controller(history: History, fault: Fault) -> None:
    process = history.run(fault.which).process
    if process is not None:
        process.kill()


def _ctrl_c(history: History, fault: Fault) -> None:
    process = history.run(fault.which).process
    if process is None or process.frozen or not history.stage.interrupts.press(process):
        return
    freezes = process.freezes

    def ended() -> None:
        if not process.dead and process.freezes == freezes:
            raise Violation(f"{process.name} goes on {CTRL_C_S} s after Ctrl-C")

    history.world.at(CTRL_C_S, ended)


def _freeze_agent(history: History, fault: Fault) -> None:
    process = history.host(fault.which).process
    if process is not None:
        process.freeze(fault.seconds)


def _freeze_controller(history: History, fault: Fault) -> None:
    process = history.run(fault.which).process
    if process is not None:
        process.freeze(fault.seconds)


def _partition(history: History, fault: Fault) -> None:
    history.host(fault.which).cut_off(fault.seconds)


def _device_power(history: History, fault: Fault) -> None:
    device = history.device(fault.which)
    if device.on:
        device.power(on=False)
        history.world.at(fault.seconds, lambda: device.power(on=True))


def _device_full(history: History, fault: Fault) -> None:
    history.device(fault.which).full_until = history.world.now + fault.seconds


def _store_full(history: History, fault: Fault) -> None:
    history.host(fault.which).full_until = history.world.now + fault.seconds


def _chunk(history: History, fault: Fault) -> None:
    history.host(fault.which).damages_until = history.world.now + fault.seconds


def _journal_full(history: History, fault: Fault) -> None:
    process = history.run(fault.which).process
    if process is not None:
        history.stage.full_until[process] = history.world.now + fault.seconds


def _flip_journal(history: History, fault: Fault) -> None:
    """Kill a controller, and change one character of what it wrote."""
    run = history.run(fault.which)
    if run.process is None or run.process.dead or not run.planned:
        return
    run.process.kill()
    table = ("cells", "measured", "events")[fault.which % 3]
    column = "data" if table == "events" else "value"
    # Once the process is wound up: it has the file until then.
    history.world.at(0.0, lambda: _flip(history, run.folder / "journal.db", table, column))


def _flip_outbox(history: History, fault: Fault) -> None:
    """Kill an agent, and change one byte of what it kept."""
    host = history.host(fault.which)
    if host.process is None or host.process.dead:
        return
    host.kill_agent()
    files = sorted((host.home / "outboxes").glob("*.db"))
    if files:
        path = files[fault.which % len(files)]
        history.world.at(0.0, lambda: _flip(history, path, "events", "data"))


def _flip(history: History, path: object, table: str, column: str) -> None:
    with contextlib.closing(sqlite3.connect(str(path))) as db:
        place = "seq" if table == "events" else "key"
        sql = f"SELECT {place}, {column} FROM {table} ORDER BY {place}"
        rows = db.execute(sql).fetchall() if _has(db) else []
        if not rows:
            return
        key, value = rows[history.world.chance.randrange(len(rows))]
        at = history.world.chance.randrange(len(value))
        if isinstance(value, bytes):
            changed: str | bytes = value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]
        else:
            changed = value[:at] + chr(ord(value[at]) ^ 1) + value[at + 1 :]
        db.execute(f"UPDATE {table} SET {column} = ? WHERE {place} = ?", (changed, key))
        db.commit()
    history.world.note(f"a bit of {table} is flipped")


def _has(db: sqlite3.Connection) -> bool:
    return bool(db.execute("SELECT 1 FROM sqlite_master").fetchone())


KINDS: dict[str, Callable[[History, Fault], None]] = {
    "agent": _agent,
    "raylet": _raylet,
    "controller": _controller,
    "ctrl_c": _ctrl_c,
    "freeze_agent": _freeze_agent,
    "freeze_controller": _freeze_controller,
    "partition": _partition,
    "device_power": _device_power,
    "device_full": _device_full,
    "store_full": _store_full,
    "chunk": _chunk,
    "journal_full": _journal_full,
    "flip_journal": _flip_journal,
    "flip_outbox": _flip_outbox,
}
#: After these a cell may end without a verdict. After all others each has one.
MAY_COST_A_VERDICT = {
    "agent", "raylet", "controller", "ctrl_c", "freeze_agent", "freeze_controller", "partition",
    "device_power", "device_full", "store_full", "flip_outbox",
}  # fmt: skip
