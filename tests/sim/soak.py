"""`make soak`: all histories of the simulation, seeded and resumable; writes docs/evidence.

Three parts: every write of a journal or an outbox and every acknowledgement, before and after it,
with controller, agent and raylet killed; random faults over a matrix of 60 cells on 4 hosts, two
controllers in every second one; and whole nights of small farms. Each result goes to
`docs/evidence/soak.json` with commit and command; `build/soak` has what is done, so that a soak
that was ended goes on. One seed alone, with its last steps where it fails:

    python -m tests.sim.soak --part matrix --seed 17
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import platform
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

from farm.clock import utc_now
from farm.host.source_tree import tree_sha256
from tests.command import SOURCES
from tests.sim.history import Kill, Shape, kills, play
from tests.sim.network import Weather
from tests.sim.world import Violation

EVIDENCE = SOURCES / "docs/evidence/soak.json"
_STATE = SOURCES / "build/soak"

KILLED = Shape(hosts=2, devices=2, recipes=1)
MATRIX = Shape(hosts=4, devices=3, recipes=5, faults=14, horizon_s=900.0)
NIGHT = Shape(hosts=2, devices=2, recipes=2, faults=4)
#: Seeds of a part that one process plays before it says how far it is.
_PIECE = 20
#: A history that takes so long hangs outside of virtual time, seconds.
_HANGS_S = 300


@dataclass
class Part:
    """What a part has come to."""

    #: Histories that the whole part has, and those that are done.
    asked: int = 0
    histories: int = 0
    violations: list[str] = field(default_factory=list)
    #: Of all histories' hashes, in their order.
    digest: str = ""
    outcomes: Counter[str] = field(default_factory=Counter)
    #: Histories in which each kind of fault happened.
    faults: Counter[str] = field(default_factory=Counter)
    resumed: int = 0
    dropped_events: int = 0
    simulated_hours: float = 0.0
    cpu_s: float = 0.0

    def add(self, other: Part) -> None:
        """Take in the next histories."""
        self.histories += other.histories
        self.violations += other.violations
        self.digest = hashlib.sha256((self.digest + other.digest).encode()).hexdigest()
        self.outcomes += other.outcomes
        self.faults += other.faults
        self.resumed += other.resumed
        self.dropped_events += other.dropped_events
        self.simulated_hours += other.simulated_hours
        self.cpu_s += other.cpu_s

    @property
    def data(self) -> dict[str, Any]:
        """As JSON holds it."""
        named = {item.name: getattr(self, item.name) for item in fields(self)}
        return {**named, "outcomes": dict(self.outcomes), "faults": dict(self.faults)}


def shape_of(part: str, seed: int) -> tuple[Shape, Weather | None]:
    """What a seed of a part is about. Every second one has two controllers at once."""
    shape = MATRIX if part == "matrix" else NIGHT
    runs = 1 + seed % 2
    return Shape(**{**asdict(shape), "runs": runs}), None


def _moments() -> list[Kill]:
    return list(kills(play(KILLED, 0, weather=Weather()).moments))


def _work(part: str, count: int) -> list[object]:
    """Everything that a part plays: kills, or seeds."""
    if part == "moments":
        every = _moments()
        return list(every[:count] if count else every)
    return list(range(1, count + 1))


def one(part: str, what: object) -> Part:
    """Play one history."""
    started, made = time.process_time(), Part(histories=1)
    signal.signal(signal.SIGALRM, _hangs)
    signal.alarm(_HANGS_S)
    try:
        if isinstance(what, Kill):
            outcome = play(KILLED, 0, weather=Weather(), kill=what)
        else:
            assert isinstance(what, int)
            shape, weather = shape_of(part, what)
            outcome = play(shape, what, weather=weather)
    except Violation as violation:
        made.violations.append(f"{part} {what}: {violation}")
        return made
    finally:
        signal.alarm(0)
    made.digest = outcome.digest
    made.outcomes.update(outcome.outcomes)
    made.faults.update(outcome.struck)
    made.resumed, made.dropped_events = outcome.resumed, outcome.dropped
    made.simulated_hours = outcome.virtual_s / 3600
    made.cpu_s = time.process_time() - started
    return made


def _hangs(_number: int, _frame: object) -> None:
    raise Violation(f"not ended after {_HANGS_S} real seconds")


def _piece(job: tuple[str, list[object]]) -> Part:
    part, items = job
    made = Part()
    for what in items:
        made.add(one(part, what))
    return made


def _pieces(part: str, count: int) -> list[list[object]]:
    items = _work(part, count)
    return [items[at : at + _PIECE] for at in range(0, len(items), _PIECE)]


def soak(part: str, count: int, jobs: int, tell: Callable[[Part], None]) -> Part:
    """Play a part, or what is left of it for this tree of sources; `tell` hears how far it is."""
    key = hashlib.sha256(f"{tree_sha256()} {_tests_sha256()} {part} {count}".encode()).hexdigest()
    state = _STATE / f"{part}-{key[:16]}.json"
    made, done = _load(state)
    pieces = _pieces(part, count)
    made.asked = sum(map(len, pieces))
    tell(made)
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        work = [(part, piece) for piece in pieces[done:]]
        for number, piece in enumerate(pool.imap(_piece, work), done + 1):
            made.add(piece)
            _save(state, made, number)
            tell(made)
    return made


def _load(state: Path) -> tuple[Part, int]:
    if not state.exists():
        return Part(), 0
    data = json.loads(state.read_text())
    part: dict[str, Any] = data["part"]
    part |= {name: Counter(part[name]) for name in ("outcomes", "faults")}
    return Part(**part), int(data["done"])


def _save(state: Path, made: Part, done: int) -> None:
    state.parent.mkdir(parents=True, exist_ok=True)
    new = state.with_suffix(".new")
    new.write_text(json.dumps({"part": made.data, "done": done}))
    new.replace(state)


def _tests_sha256() -> str:
    """Of the simulation itself: another one's histories are others."""
    files = sorted(path for path in Path(__file__).parent.glob("*.py") if "test_" not in path.name)
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=SOURCES, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _sources() -> dict[str, object]:
    """Which sources this is about."""
    changed = _git("status", "--porcelain", "farm", "tests/sim", "tests/unit/core")
    return {
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted": bool(changed),
        "farm_tree_sha256": tree_sha256(),
        "simulation_sha256": _tests_sha256(),
    }


def _evidence(
    parts: dict[str, Part], sources: dict[str, object], command: str, seconds: float
) -> dict[str, object]:
    return {
        "command": command,
        **sources,
        "at": utc_now(),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "seconds": round(seconds, 1),
        "peak_rss_mib": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024),
        "not_simulated": [
            "the program on a device and its helper (tests/lab)",
            "chunks of a transfer (tests/unit/store)",
            "Ray's own processes (tests/integration)",
        ],
        "parts": {
            name: {
                **part.data,
                "simulated_hours": round(part.simulated_hours, 1),
                "cpu_s": round(part.cpu_s, 1),
            }
            for name, part in parts.items()
        },
    }


def _counts(options: argparse.Namespace) -> Iterator[tuple[str, int]]:
    yield "moments", options.moments
    yield "matrix", options.matrix
    yield "nights", options.nights


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moments", type=int, default=0, help="so many only; 0: all of them")
    parser.add_argument("--matrix", type=int, default=200, help="histories of the large matrix")
    parser.add_argument("--nights", type=int, default=10_000, help="nights of small farms")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--part", choices=("moments", "matrix", "nights"), help="only this one")
    parser.add_argument("--seed", type=int, help="only this seed of --part, and its history")
    parser.add_argument("--out", type=Path, default=EVIDENCE, help="where the results go")
    options = parser.parse_args()
    if options.seed is not None:
        shape, weather = shape_of(options.part or "nights", options.seed)
        print(json.dumps(asdict(play(shape, options.seed, weather=weather)), indent=1))
        return 0
    started, sources = time.monotonic(), _sources()
    command = " ".join(["python", "-m", "tests.sim.soak", *sys.argv[1:]])
    parts: dict[str, Part] = {}

    def tell(name: str, part: Part) -> None:
        """Write down how far it is: whoever ends a soak has what it found."""
        parts[name] = part
        made = _evidence(parts, sources, command, time.monotonic() - started)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(made, indent=1) + "\n")
        done = f"{part.histories} of {part.asked} histories"
        print(f"{name}: {done}, {len(part.violations)} violations", flush=True)

    for name, count in _counts(options):
        if options.part in (None, name):
            soak(name, count, options.jobs, partial(tell, name))
    found = [violation for part in parts.values() for violation in part.violations]
    print("\n".join([*found, f"{options.out}: {len(found)} violations"]))
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
