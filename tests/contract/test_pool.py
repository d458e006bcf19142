"""What every pool of export hosts has to do, on the one of this process and real host tasks."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from farm.cluster.local_pool import LocalPool
from farm.core.artifact import ExportRequest, ModelSource, Recipe, Toolchain
from farm.core.errors import FarmError, Interrupted
from farm.core.reference import ReferenceRequest, Tokenized
from farm.core.tasks import ExportTask, TokensTask
from farm.protocols import TaskPool
from farm.tasks import perform
from tests.pace import slack
from tests.unit.core.builders import bundle

_RECIPE, _FARM = Recipe("xnnpack-8da4w"), Toolchain("default")


def tokens(model: str) -> TokensTask:
    request = ReferenceRequest(ModelSource(model), _RECIPE, _FARM, bundle(), "builtin", 16, "Hi")
    return TokensTask(f"tokens:{model}", request)


#: Its worker does nothing before it has loaded PyTorch, which takes seconds.
EXPORT = ExportTask("export:tiny", ExportRequest(ModelSource("tiny-llama"), _RECIPE, _FARM))


@pytest.fixture
def pool_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """FARM_HOME of this process; those of the pool's hosts are beside it."""
    monkeypatch.setenv("FARM_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def pool(pool_home: Path) -> Iterator[TaskPool]:
    made = LocalPool(pool_home, 2, cpus_per_export=1, memory_bytes=1 << 40)
    yield made
    asyncio.run(made.close())


def workers(home: Path) -> list[psutil.Process]:
    """Processes that export on the hosts of a pool."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if "models.worker" in process.cmdline():
                place = Path(process.environ().get("FARM_HOME", "/"))
                found += [process] if place.parent == home.parent else []
    return found


async def until(holds: Callable[[], bool], limit_s: float) -> None:
    async with asyncio.timeout(limit_s * slack()):
        while not holds():
            await asyncio.sleep(0.05)


def test_a_task_gives_its_result(pool: TaskPool, pool_home: Path) -> None:
    given = asyncio.run(pool.run(tokens("tiny-llama"), lambda event: None))
    assert isinstance(given, Tokenized)
    assert len(given.tokens) == 16


def test_an_error_of_a_task_arrives_unchanged(pool: TaskPool, pool_home: Path) -> None:
    task = tokens("nowhere/nothing")
    with pytest.raises(FarmError) as here:
        perform.run_task(task, pool_home, lambda event: None, threading.Event())
    with pytest.raises(FarmError) as there:
        asyncio.run(pool.run(task, lambda event: None))
    assert type(there.value) is type(here.value)
    assert there.value.message == here.value.message


def test_cancelling_ends_the_processes_of_a_task(pool: TaskPool, pool_home: Path) -> None:
    async def scenario() -> None:
        running = asyncio.create_task(pool.run(EXPORT, lambda event: None))
        await until(lambda: bool(workers(pool_home)), 60)
        running.cancel()
        with pytest.raises((asyncio.CancelledError, Interrupted)):
            await running
        await until(lambda: not workers(pool_home), 5)
        assert await pool.run(tokens("tiny-llama"), lambda event: None), "it takes other tasks"

    asyncio.run(scenario())


def test_a_pool_that_closes_ends_what_runs(pool: TaskPool, pool_home: Path) -> None:
    async def scenario() -> None:
        running = asyncio.create_task(pool.run(EXPORT, lambda event: None))
        await until(lambda: bool(workers(pool_home)), 60)
        started = time.monotonic()
        await pool.close()
        assert time.monotonic() - started < 2 * slack()
        with pytest.raises((asyncio.CancelledError, Interrupted)):
            await running
        await until(lambda: not workers(pool_home), 5)

    asyncio.run(scenario())
