"""How the suite is spread over worker processes, and the report of where its time went.

A worker takes one piece at a time, mostly a file, so fixtures of a module are made once. What uses
the same devices is one piece. The lab's tests mostly wait for deadlines: two workers wait side by
side while the others compute; the shortest files come last, so that all end together.
"""

from __future__ import annotations

import gc
import os
from collections import defaultdict
from collections.abc import Generator
from dataclasses import dataclass

import pytest
from _pytest.terminal import TerminalReporter
from xdist.scheduler import LoadScopeScheduling

#: Pieces that share devices: more than a file, and those of the lab that have their own.
_PIECES = (
    "tests/lab/test_faults.py", "tests/lab/test_transport_faults.py", "tests/lab/test_run_",
    "tests/lab/", "tests/contract/",
)  # fmt: skip
#: The order by the longest of these that a test's path begins with, then the rest: two workers
#: begin with what waits, and the longest computations aren't left for the end.
_FIRST = (
    "tests/lab/test_run_", "tests/lab/", "tests/integration/test_matrix.py",
    "tests/integration/models/", "tests/lab/test_faults.py",
    "tests/integration/test_dockerfile.py", "tests/lab/test_transport_faults.py",
    "tests/contract/", "tests/integration/", "tests/unit/native/",
)  # fmt: skip
#: Files of the report.
_FILES = 25
_CPU = "cpu_s"


class Sharing(LoadScopeScheduling):  # type: ignore[misc]
    """A worker that has little left gets the next piece, in the order of collection."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return next((piece for piece in _PIECES if path.startswith(piece)), path)

    def at_work(self) -> dict[str, str]:
        """The test that each worker has not finished, by the worker's name."""
        found = {}
        for node, pieces in self.assigned_work.items():
            left = [test for piece in pieces.values() for test, done in piece.items() if not done]
            if left:
                found[node.gateway.id] = left[0]
        return found


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def turn(item: pytest.Item) -> int:
        found = [begin for begin in _FIRST if item.nodeid.startswith(begin)]
        return _FIRST.index(max(found, key=len)) if found else len(_FIRST)

    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=turn)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Sharing:
    config.option.loadscopereorder = False
    return Sharing(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(crashitem: str, sched: Sharing) -> None:
    """A test that ended its process has failed; it is not tried on the next one."""
    for piece in sched.workqueue.values():
        piece.pop(crashitem, None)


def _cpu_s() -> float:
    """CPU seconds of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


_counted_s = 0.0


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect without looking for garbage: a million objects come, and stay to the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_finish() -> None:
    global _counted_s
    _counted_s = _cpu_s()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note the CPU time of each phase of a test, its fixtures' children included."""
    global _counted_s
    report = yield
    now = _cpu_s()
    report.user_properties.append((_CPU, now - _counted_s))
    _counted_s = now
    return report


@dataclass
class _Cost:
    tests: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0

    def add(self, report: pytest.TestReport) -> None:
        self.tests += report.when == "call"
        self.wall_s += report.duration
        self.cpu_s += sum(float(str(v)) for k, v in report.user_properties if k == _CPU)


def pytest_terminal_summary(terminalreporter: TerminalReporter, config: pytest.Config) -> None:
    """Where the time went; asked for together with the slowest tests, by --durations."""
    dist = config.pluginmanager.get_plugin("dsession")
    if dist is not None and isinstance(dist.sched, Sharing):
        for worker, test in dist.sched.at_work().items():
            terminalreporter.write_line(f"{worker} did not finish {test}", red=True)
    if config.getoption("durations") is None:
        return
    costs: dict[str, dict[str, _Cost]] = {
        kind: defaultdict(_Cost) for kind in ("process", "folder", "file")
    }
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                path = report.nodeid.partition("::")[0]
                node = getattr(report, "node", None)
                costs["process"][node.gateway.id if node else "this one"].add(report)
                costs["folder"]["/".join(path.split("/")[:2])].add(report)
                costs["file"][path].add(report)
    terminalreporter.section("where the time went")
    terminalreporter.write_line("   wall s     CPU s  tests")
    for kind, found in costs.items():
        ranked = sorted(found.items(), key=lambda item: -item[1].wall_s)
        for name, cost in ranked[:_FILES]:
            numbers = f"{cost.wall_s:9.1f} {cost.cpu_s:9.1f} {cost.tests:6}"
            terminalreporter.write_line(f"{numbers}  {kind} {name}")
