"""What the controller costs: matcher, flow and journal, without hosts and devices.

The matcher gets 100,000 jobs for 1,000 devices; each call after a device's end is timed. Matcher
and flow compute only: CPU time counts, so that a busy machine changes little. The flow runs two
nights of 1,000 devices in virtual time, one with ten times the cells of the other: what an event
costs must not grow with them. The journal is written on disk, synchronous=FULL, in the order of a
real run (leased; started; finished with what was measured; the cell's result), and opened again.
Nothing here has a peer, so bounds are absolute and depend on the machine, on its disk above all.

    python benchmarks/controller.py [--devices N] [--cells N] [--recorded N] [--folder DIR]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from collections import deque
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from farm.core.artifact import ModelSource, Recipe, Toolchain  # noqa: E402
from farm.core.device import Device, DeviceEntry, DeviceFacts  # noqa: E402
from farm.core.flow import outcomes  # noqa: E402
from farm.core.flow.flow import RunFlow  # noqa: E402
from farm.core.flow.matcher import Matcher  # noqa: E402
from farm.core.flow.simulate import Hosts, simulate  # noqa: E402
from farm.core.flow.stimuli import Instruction, Stimulus  # noqa: E402
from farm.core.plan import Catalog, Plan, make_plan  # noqa: E402
from farm.core.runner import RunnerBuild, RunnerSpec  # noqa: E402
from farm.core.runtime import Deployed, DeviceRunResult  # noqa: E402
from farm.core.spec import DeviceRequest, Matrix, RunSpec  # noqa: E402
from farm.run.journal import Journal  # noqa: E402
from farm.run.measured import Measured  # noqa: E402

ASSIGNMENTS_PER_S, ASSIGNMENT_P99_MS, EVENT_US = 20_000, 1.0, 50.0
RESUME_S_PER_100K, CONTROLLER_MIB = 1.0, 250.0


class TimedFlow(RunFlow):
    """A flow that counts its stimuli and the CPU time that they take."""

    spent_s = 0.0
    stimuli = 0

    def handle(self, stimulus: Stimulus) -> list[Instruction]:
        """Time a stimulus."""
        started = time.thread_time()
        out = super().handle(stimulus)
        self.spent_s += time.thread_time() - started
        self.stimuli += 1
        return out


def devices(count: int) -> list[Device]:
    facts = DeviceFacts(identity="id", abi="arm64-v8a", os="Android 15", cores=8, ram_bytes=8 << 30)
    return [Device(DeviceEntry(f"phone{n}", "adb"), facts) for n in range(count)]


def planned(device_count: int, cells: int) -> tuple[RunSpec, Plan, Catalog]:
    """A run of so many cells over so many devices, each cell on one of them."""
    recipes = tuple(f"r{n}" for n in range(10))
    threads = tuple(range(1, max(1, cells // device_count // len(recipes)) + 1))
    spec = RunSpec(
        name="night",
        models=(ModelSource("m"),),
        toolchains=(Toolchain("default"),),
        matrix=Matrix(recipe=recipes, threads=threads),
        devices=(DeviceRequest(""),),
    )
    catalog = Catalog(
        models={"m": spec.models[0]},
        recipes={name: Recipe(name) for name in recipes},
        toolchains={"default": spec.toolchains[0]},
        runners={name: RunnerSpec(name) for name in spec.matrix.runner},
    )
    return spec, make_plan(spec, devices(device_count), catalog), catalog


def match(device_count: int, jobs: int) -> tuple[float, float, float]:
    """Give every job to a device, each of which ends in its turn.

    Returns:
        Assignments a second; the 99th percentile of one `assign` after one device's end, as the
        flow calls it, milliseconds; the first one, to all devices at once, milliseconds.
    """
    matcher = Matcher()
    names = [f"phone{n}" for n in range(device_count)]
    pools = [frozenset(names[n::10]) for n in range(10)] + [frozenset(names)]
    for job in range(jobs):
        matcher.add(f"job{job}", pools[job % len(pools)])
    for name in names:
        matcher.idle(name)
    took: list[float] = []
    given = 0
    busy: deque[str] = deque()
    while busy or not took:
        if busy:
            matcher.idle(busy.popleft())
        started = time.thread_time()
        pairs = matcher.assign()
        took.append(time.thread_time() - started)
        given += len(pairs)
        busy.extend(name for _, name in pairs)
    assert given == jobs, f"{given} of {jobs} jobs were given"
    first, *others = took
    return jobs / sum(took), 1000 * statistics.quantiles(others, n=100)[98], 1000 * first


def flow_event_us(device_count: int, cells: int) -> float:
    """What a stimulus costs, microseconds."""
    spec, plan, catalog = planned(device_count, cells)
    flow = TimedFlow(spec, plan, catalog, run_id="run")
    ran = simulate(flow, lambda work: 1.0, Hosts(8, 8, 2))
    assert ran.outcomes == {"passed": len(plan.cells)}
    return 1e6 * flow.spent_s / flow.stimuli


def waited_for_cpu_s() -> float:
    """Seconds that this thread was ready and had no CPU; 0 where the kernel doesn't count them."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0


def record(folder: Path, device_count: int, cells: int) -> tuple[float, float, float]:
    """Write a run's journal and open it again.

    Returns:
        Jobs a second that it takes; seconds until it is known what a resume has left; the same
        without the wait for a CPU that others have: disk and locks count, a busy machine does not.
    """
    _, plan, _ = planned(device_count, cells)
    build = RunnerBuild("executorch", "1.5.1", "arm64-v8a", "0" * 64, (), ())
    result = DeviceRunResult(build, (), Deployed(0, 0, 0.0))
    journal = Journal(folder / "journal.db")
    device = plan.devices[0]
    started = time.perf_counter()
    for cell in plan.cells:
        at = "2026-01-01T00:00:00.000Z"
        event = {"job": cell.cell_id, "attempt": 1, "device": cell.devices[0]}
        journal.record([("leased", event)])
        journal.record([("JobStarted", event)])
        measured = Measured(cell.cell_id, 1, device, at, at, "0" * 64, result)
        journal.record([("JobFinished", event)], [(cell.cell_id, measured)])
        journal.finish_cell(outcomes.skipped(cell, device, "unfit", "benchmark"))
    rate = len(plan.cells) / (time.perf_counter() - started)
    journal.close()
    started, waited = time.perf_counter(), waited_for_cpu_s()
    journal = Journal(folder / "journal.db", resume=True)
    recorded = journal.cells()
    assert len(recorded) == len(recorded.with_outcome("skipped")) == len(plan.cells)
    opened, waited = time.perf_counter() - started, waited_for_cpu_s() - waited
    journal.close()
    return rate, opened, opened - waited


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--recorded", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, default=Path(), help="Where the journal is written.")
    options = parser.parse_args()
    rate, p99_ms, burst_ms = match(options.devices, options.cells)
    print(
        f"matcher: {rate:,.0f} assignments/s, p99 {p99_ms:.3f} ms;"
        f" {burst_ms:.1f} ms for all devices at once"
    )
    small, large = (flow_event_us(options.devices, n) for n in (options.cells // 10, options.cells))
    few = f"{options.cells // 10:,} cells"
    print(f"flow: {small:.1f} us an event at {few}, {large:.1f} us at ten times as many")
    mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        jobs, opened, own = record(Path(folder), options.devices, options.recorded)
    print(
        f"journal: {jobs:,.0f} jobs/s, four commits each; {opened:.2f} s to open it again"
        f" ({own:.2f} s without the wait for a CPU)"
    )
    resume = own * 100_000 / options.recorded
    checks = {
        "assignments_per_s": rate >= ASSIGNMENTS_PER_S,
        "assignment_p99_ms": p99_ms <= ASSIGNMENT_P99_MS,
        "event_us": large <= EVENT_US,
        "event_growth": large <= 1.5 * small,
        "resume_s": resume <= RESUME_S_PER_100K,
        "controller_mib": mib <= CONTROLLER_MIB,
    }
    figures = {
        "assignments_per_s": rate,
        "assignment_p99_ms": p99_ms,
        "burst_ms": burst_ms,
        "event_us": {"tenth": small, "all": large},
        "journal_jobs_per_s": jobs,
        "resume_s_per_100k": resume,
        "resume_wall_s_per_100k": opened * 100_000 / options.recorded,
        "controller_mib": mib,
    }
    targets = {
        "assignments_per_s": f">= {ASSIGNMENTS_PER_S}",
        "assignment_p99_ms": f"<= {ASSIGNMENT_P99_MS}",
        "event_us": f"<= {EVENT_US}, and <= 1.5x of a tenth of the cells",
        "resume_s_per_100k": f"<= {RESUME_S_PER_100K}",
        "controller_mib": f"<= {CONTROLLER_MIB} with flow and simulation of all cells",
    }
    print(
        json.dumps(
            {
                "benchmark": "controller",
                "figures": figures,
                "targets": targets,
                "missed": [name for name, met in checks.items() if not met],
                "met": all(checks.values()),
            }
        )
    )


if __name__ == "__main__":
    main()
