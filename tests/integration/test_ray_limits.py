"""Hosts that are too tight for Ray: the start ends in time, names the limit, and leaves nothing."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.command import Farm, start
from tests.lab.bounds import Bounds
from tests.lab.fixtures import unique
from tests.pace import slack

pytestmark = [pytest.mark.ray, pytest.mark.lab]

_LIMIT_S = 25.0
#: The start of every `farm run`, with less patience. It begins when it may: see `limited`.
_START = f"""
import asyncio, sys
from farm.cluster import start
from farm.core.errors import FarmError
from farm.paths import farm_home

async def begin():
    await (await start.start("local", farm_home(), {_LIMIT_S})).close()

sys.stdin.readline()
try:
    start.launch("local", {_LIMIT_S})
    asyncio.run(begin())
except FarmError as error:
    print("farm:", error.message, file=sys.stderr)
    sys.exit(error.exit_code)
"""


#: Ray's own limit of 30 s passes at once, the first time.
_SLOW = """
import time, types
from farm.cluster import start

left, ahead, prepared = 1, 0, start.set_local_environment

def prepare():
    prepared()
    from ray._private import node, services
    get_node = services.get_node

    def slow(*words):
        global left, ahead
        if left == 0:
            return get_node(*words)
        left, ahead = left - 1, ahead + 31
        raise RuntimeError("the raylet isn't there yet")

    services.get_node = slow
    node.time = types.SimpleNamespace(**vars(time) | {"monotonic": lambda: time.time() + ahead})

start.set_local_environment = prepare
"""


@pytest.fixture
def bounds(lab: None) -> Iterator[Bounds]:
    made = Bounds(unique("start"))
    yield made
    made.remove()


def _memory(bounds: Bounds, pid: int) -> None:
    bounds.memory(350 << 20, [pid])


def _tasks(bounds: Bounds, pid: int) -> None:
    bounds.processes(120, [pid])


def _nothing(bounds: Bounds, pid: int) -> None:
    pass


def _require_none_left(farm: Farm) -> None:
    """Fail where a process is left, also of Ray's agents: they write over their environment."""

    def left() -> list[str]:
        found = farm.processes()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.cwd() == str(farm.cwd):
                    found.append(" ".join(process.cmdline()).strip())
        return found

    end = time.monotonic() + 20 * slack()
    while left() and time.monotonic() < end:
        time.sleep(0.2)
    assert left() == []


@pytest.mark.parametrize(
    ("limit", "prefix", "cause"),
    [
        (_memory, "", "the control group allows 350 MiB of memory"),
        (_tasks, "", "the control group allows 120 tasks"),
        (_nothing, "mount -t tmpfs -o ro t /dev/shm && ", "/dev/shm can't be written: Read-only"),
    ],
    ids=["memory", "tasks", "shm"],
)
def test_a_start_that_cannot_be_says_why_and_ends(
    tmp_path: Path,
    bounds: Bounds,
    limit: Callable[[Bounds, int], None],
    prefix: str,
    cause: str,
) -> None:
    farm = Farm(tmp_path / "home", tmp_path)
    process = start(
        [
            "unshare",
            "--mount",
            "sh",
            "-c",
            f'{prefix}exec "$@"',
            "sh",
            sys.executable,
            "-c",
            _START,
        ],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=farm.environment,
        cwd=tmp_path,
    )
    limit(bounds, process.pid)
    began = time.monotonic()
    _, told = process.communicate("\n", timeout=4 * _LIMIT_S * slack())
    assert process.returncode == 3, told
    assert time.monotonic() - began < 3 * _LIMIT_S * slack()
    first, last = told.splitlines()[0], told.splitlines()[-1]
    assert "Ray may not start here" in first, "nothing was said before it was waited for"
    assert cause in first
    assert "Ray can't start on this machine" in last
    assert cause in last
    assert "`--cluster none` runs the same work without Ray" in last
    assert "Traceback" not in told
    _require_none_left(farm)


def test_a_start_that_ray_gives_up_for_being_slow_is_tried_once_more(tmp_path: Path) -> None:
    farm = Farm(tmp_path / "home", tmp_path)
    process = start(
        [sys.executable, "-c", _SLOW + _START.replace(str(_LIMIT_S), "90")],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=farm.environment,
        cwd=tmp_path,
    )
    _, told = process.communicate("\n", timeout=120 * slack())
    assert process.returncode == 0, told
    assert "Ray gives up a start after 30 s, and this host was busy" in told
    assert "Traceback" not in told
    _require_none_left(farm)
