"""How an export's process ends: well, by its deadline, a cancel, a crash, its caller's death."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from farm.core.artifact import ExportRequest, ModelSource, StageEvent, Toolchain
from farm.core.errors import ExportError, Interrupted
from farm.core.spec import Resources
from farm.core.tasks import ExportTask
from farm.tasks import kept_worker, worker_process
from models import recipes
from tests.command import SOURCES

pytestmark = pytest.mark.export


def task(**resources: float) -> ExportTask:
    request = ExportRequest(
        ModelSource("tiny-llama"), recipes.get("portable-fp32"), Toolchain("default")
    )
    return ExportTask("export:x", request, Resources(**resources))  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _no_idle_worker() -> Iterator[None]:
    yield
    kept_worker.end_idle()


def children() -> set[psutil.Process]:
    """Processes below this one; other tests' devices may be among them."""
    return set(psutil.Process().children(recursive=True))


def nothing_is_left(home: Path, before: set[psutil.Process]) -> None:
    assert children() <= before
    assert not list((home / "store").glob("objects/*/*"))
    assert not list((home / "store").glob("actions/*"))


def test_export_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    before = children()
    with pytest.raises(
        ExportError, match=r"export of tiny-llama did not end within 0\.5 s.*timeout_s"
    ):
        worker_process.export(
            task(cpus=1, timeout_s=0.5), tmp_path, lambda _event: None, threading.Event()
        )
    nothing_is_left(tmp_path, before)


def test_cancelled_export_is_gone_with_its_process(tmp_path: Path) -> None:
    stop = threading.Event()
    before = children()
    found: list[int] = []

    def on_stage(event: StageEvent) -> None:
        found.append(len(children() - before))
        stop.set()

    with pytest.raises(Interrupted, match="export of tiny-llama was cancelled"):
        worker_process.export(task(cpus=1), tmp_path, on_stage, stop)
    assert found == [2], "one process works, and it said so; another one started it"
    nothing_is_left(tmp_path, before)


def test_export_ends_with_its_caller_and_the_next_ones_share_a_worker(tmp_path: Path) -> None:
    before = children()
    program = (
        "import sys, threading; from pathlib import Path;"
        "from farm.tasks import worker_process as w; from tests.integration.models."
        "test_worker_process import task;"
        "w.export(task(cpus=1), Path(sys.argv[1]), lambda e: print(e.name, flush=True),"
        " threading.Event())"
    )
    caller = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=SOURCES,
        env={**os.environ, "PYTHONPATH": str(SOURCES)},
    )
    assert caller.stdout is not None
    with caller:
        assert caller.stdout.readline().strip() == "open"
        (worker,) = psutil.Process(caller.pid).children()
        caller.send_signal(signal.SIGKILL)
    worker.wait(timeout=30)
    again = worker_process.export(task(), tmp_path, lambda _event: None, threading.Event())
    assert not again.cache_hit, "what was killed left nothing behind"

    # The next ones have its worker and libraries, and come to the same; a crash is one's own.
    (kept,) = children() - before
    assert any("libtorch" in row.path for row in kept.memory_maps())
    other = tmp_path / "other"
    made = worker_process.export(task(), other, lambda _event: None, threading.Event())
    assert made.bundle.pte == again.bundle.pte
    assert children() - before == {kept}

    def crash(_event: StageEvent) -> None:
        for child in kept.children():
            child.kill()

    with pytest.raises(ExportError, match=r"ended with signal 9 \(was this machine out of memory"):
        worker_process.export(task(), tmp_path / "third", crash, threading.Event())
    nothing_is_left(tmp_path / "third", before)
