"""One history: runs over hosts that fail, from the first process to a quiet farm, and its checks.

After it: one result a cell, none doubled, none false, nothing left running, no lease that nobody
has. A violation names the seed and the last steps.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from farm.core.artifact import ModelSource
from farm.core.spec import RunSpec
from tests.sim import checks, faults
from tests.sim.devices import SimDevice, Truth
from tests.sim.faults import Fault
from tests.sim.hosts import SimHost
from tests.sim.network import Network, Weather
from tests.sim.runs import LIMITS, SimRun
from tests.sim.stage import Stage, staged
from tests.sim.world import Killed, Process, Violation, World
from tests.unit.core import builders as b

#: Every history is over within so long; nights take minutes.
_LIMIT_S = 30 * 3600.0
#: How often a run is gone on with. What goes wrong ends before.
_MOST_TRIES = 40
#: After the last run: a lease and an orphan's grace, and what a slow message takes.
_QUIET_S = 200.0
#: Last steps that a violation names. `FARM_SIM_STEPS` changes it.
_SHOWN = int(os.environ.get("FARM_SIM_STEPS", "60"))


@dataclass(frozen=True)
class Shape:
    """What a history is about."""

    hosts: int = 2
    devices: int = 2
    recipes: int = 2
    #: Controllers at once, with the same cells.
    runs: int = 1
    #: Faults at most, within a time.
    faults: int = 0
    horizon_s: float = 300.0

    @property
    def cells(self) -> int:
        """Cells of each run."""
        return self.hosts * self.devices * self.recipes


@dataclass(frozen=True)
class Kill:
    """Somebody is killed at one moment."""

    moment: str
    number: int
    side: str
    victim: str


@dataclass
class Outcome:
    """What a history came to."""

    digest: str
    #: How often each moment came.
    moments: dict[str, int]
    outcomes: dict[str, int]
    #: Processes that it took, beyond one a run.
    resumed: int
    struck: tuple[str, ...]
    dropped: int
    virtual_s: float


class History:
    """A farm and its runs.

    Args:
        shape: How large.
        seed: What happens.
        folder: Where its files are.
        weather: The network; None: drawn.
        kill: Beside them.
        planned: Faults; None: drawn.
    """

    def __init__(
        self,
        shape: Shape,
        seed: int,
        folder: Path,
        weather: Weather | None = None,
        kill: Kill | None = None,
        planned: Sequence[Fault] | None = None,
    ) -> None:
        self.shape, self.seed = shape, seed
        self.world = World(seed)
        self.stage = Stage(self.world)
        drawn = faults.weather(self.world.chance)
        self.network = Network(self.world, drawn if weather is None else weather)
        self.truth: list[Truth] = []
        #: Kinds of faults that happened.
        self.struck: set[str] = set()
        self.hosts = [self._host(number, folder) for number in range(shape.hosts)]
        self.stage.hosts.update({host.home: host for host in self.hosts})
        self.devices = [device for host in self.hosts for device in host.devices.values()]
        self.runs = [
            SimRun(
                f"night{number + 1}",
                self._spec(),
                self.stage,
                self.network,
                folder / f"head{number + 1}",
                self.truth,
            )
            for number in range(shape.runs)
        ]
        if kill is not None:
            self.stage.cuts.plan(
                kill.moment, kill.number, kill.side, lambda process: self._kill(kill, process)
            )
        drawn_faults = faults.draw(self.world.chance, horizon_s=shape.horizon_s, most=shape.faults)
        for fault in drawn_faults if planned is None else planned:
            self.world.at(fault.at_s, self._striking(fault))

    def host(self, which: int) -> SimHost:
        return self.hosts[which % len(self.hosts)]

    def device(self, which: int) -> SimDevice:
        return self.devices[which % len(self.devices)]

    def run(self, which: int) -> SimRun:
        return self.runs[which % len(self.runs)]

    def play(self) -> Outcome:
        """Play it to its end.

        Raises:
            Violation: Something was not as it must be.
        """
        try:
            with staged(self.stage):
                try:
                    self._play()
                finally:
                    self.world.close()
                checks.check(self)
        except (Exception, Killed) as error:
            steps = "\n  ".join(self.world.lines[-_SHOWN:])
            text = f"{type(error).__name__}: {error}\n{self.shape}, seed {self.seed}:\n  {steps}"
            raise Violation(text) from error
        outcomes: dict[str, int] = {}
        for run in self.runs:
            for result in run.report.results:
                outcomes[result.outcome] = outcomes.get(result.outcome, 0) + 1
        return Outcome(
            self.world.digest,
            dict(self.stage.cuts.counted),
            outcomes,
            sum(run.tries - 1 for run in self.runs),
            tuple(sorted(self.struck)),
            sum(sum(checks.dropped(run).values()) for run in self.runs),
            self.world.now,
        )

    # -- what happens

    def _play(self) -> None:
        for host in self.hosts:
            host.boot()
        for number, run in enumerate(self.runs):
            self.world.at(self.world.chance.uniform(0.0, 20.0) * number, run.start)
        self.world.run(self._all_over, _LIMIT_S)
        # What a frozen agent was asked meanwhile counts for it as asked when it thaws.
        self.world.run(lambda: not any(one.frozen for one in self.world.processes), _LIMIT_S)
        quiet = self.world.now + _QUIET_S
        self.world.at(_QUIET_S, lambda: None)
        self.world.run(lambda: self.world.now >= quiet, _LIMIT_S)

    def _all_over(self) -> bool:
        """Go on with what was ended early; true when every run came to its own end."""
        over = True
        for run in self.runs:
            if not run.ended:
                over = False
            elif not run.is_complete:
                over = False
                if run.tries >= _MOST_TRIES:
                    raise Violation(f"{run.name} was gone on with {run.tries} times")
                run.process = None
                self.world.at(self.world.chance.choice((0.5, 5.0, 90.0)), run.start)
        return over

    def _kill(self, kill: Kill, process: Process) -> None:
        self.struck.add(kill.victim)
        host = next((h for h in self.hosts if h.process is process), self.hosts[0])
        match kill.victim:
            case "controller":
                victim = self.runs[0].process
                if victim is not None:
                    victim.kill()
            case "agent":
                host.kill_agent()
            case "raylet":
                host.power_cut(30.0)

    def _striking(self, fault: Fault) -> Callable[[], None]:
        return lambda: faults.strike(self, fault)

    # -- what there is

    def _host(self, number: int, folder: Path) -> SimHost:
        name = f"site{number + 1}"
        devices = [
            SimDevice(self.world, f"{name}-d{n + 1}", name, self.truth)
            for n in range(self.shape.devices)
        ]
        return SimHost(self.world, name, folder / name, devices, self.stage.cuts)

    def _spec(self) -> RunSpec:
        recipes = tuple(f"r{number + 1}" for number in range(self.shape.recipes))
        return replace(
            b.run_spec(recipes=recipes, canary=True), models=(ModelSource("m1"),), limits=LIMITS
        )


def play(
    shape: Shape,
    seed: int,
    *,
    weather: Weather | None = None,
    kill: Kill | None = None,
    planned: Sequence[Fault] | None = None,
) -> Outcome:
    """Play one history in a folder of its own, in memory where there is such a file system.

    Raises:
        Violation: Something was not as it must be.
    """
    memory = Path("/dev/shm")
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # what goes wrong on purpose
    try:
        with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
            return History(shape, seed, Path(folder), weather, kill, planned).play()
    finally:
        logging.disable(level)


def kills(moments: dict[str, int]) -> Iterator[Kill]:
    """Every moment of a history that came so often, before and after it, for every victim."""
    for moment in faults.MOMENTS:
        for number in range(1, moments.get(moment, 0) + 1):
            for side in faults.SIDES:
                for victim in faults.VICTIMS:
                    yield Kill(moment, number, side, victim)
