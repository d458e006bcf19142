"""A device whose C library doesn't serve gets a runner with its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from farm.core.artifact import Sdk
from farm.core.device import DeviceEntry, DeviceFacts
from farm.core.events import JobFinished
from farm.core.runner import OWN, PLAIN, BuildVariant, DeployFile, RunnerBuild
from farm.core.runtime import DeviceJob, LaunchRequest, Measure
from farm.paths import store_root
from farm.site.agent.agent import SiteAgent
from farm.store.objects import ContentStore
from runners.executorch import ExecutorchRunner

from .conftest import CACHE

pytestmark = pytest.mark.export


class NewerRunner(ExecutorchRunner):
    """farm-runner as a newer system would build it: it asks for a glibc that nobody has yet."""

    def __init__(self, folder: Path, *, bundles: bool) -> None:
        super().__init__()
        self._folder = folder
        self._bundles = bundles

    def build(
        self,
        abi: str,
        facts: DeviceFacts,
        home: Path,
        sdk: Sdk,
        progress: Callable[[str], None] | None = None,
        variant: BuildVariant = PLAIN,
    ) -> RunnerBuild:
        if variant.own_libc and self._bundles:
            return super().build(abi, facts, home, sdk, progress, variant)
        build = super().build(abi, facts, home, sdk, progress)
        program = next(file for file in build.files if file.path == "farm-runner")
        newer = self._folder / "newer"
        newer.write_bytes(
            self.files(build)[program.object.sha256]
            .read_bytes()
            .replace(b"\0GLIBC_2.34\0", b"\0GLIBC_9.34\0")
        )
        object_ref = ContentStore(store_root(home)).put_file(newer, "farm-runner")
        self._files[object_ref.sha256] = newer
        files = tuple(
            DeployFile(object_ref, file.path, file.executable) if file is program else file
            for file in build.files
        )
        return RunnerBuild(
            build.name, "newer", abi, object_ref.sha256, files, build.argv, build.env, build.libc
        )


def run_one(home: Path, runner: ExecutorchRunner, program: Path) -> JobFinished:
    entry = DeviceEntry("here", "local", root=str(home.parent / "device"))
    model = ContentStore(store_root(home)).put_file(program, "model.pte")

    async def scenario() -> JobFinished:
        agent = SiteAgent(home, find_runner=lambda _spec: runner, discover=lambda _named, _site: [])
        await agent.inventory([entry], adb_auto=False)
        launch = LaunchRequest(1, measures=(Measure("tg4", 0, 4, 0, 1, 0),))
        files = (DeployFile(model, "model.pte"),)
        await agent.submit([DeviceJob("cell:a", 1, 1, "run-1", "c", "here", OWN, files, (launch,))])
        seq = 0
        while True:
            for item in (await agent.poll("run-1", seq, 1.0)).events:
                seq = item.seq
                if isinstance(item.event, JobFinished):
                    await agent.close()
                    return item.event

    return asyncio.run(scenario())


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    CACHE.mkdir(parents=True, exist_ok=True)
    (folder / "native").symlink_to(CACHE)
    return folder


def test_too_old_a_glibc_gets_the_bundle(home: Path, tmp_path: Path, tiny: Path) -> None:
    finished = run_one(home, NewerRunner(tmp_path, bundles=True), tiny / "last.pte")
    assert finished.error is None, finished.error
    assert finished.result is not None
    build = finished.result.runner
    assert build.libc == "glibc-bundle"
    assert "didn't start with the device's own C library" in build.how
    assert finished.result.deployed.pushed_bytes > (tiny / "last.pte").stat().st_size
    assert not list((tmp_path / "device" / "work").iterdir())


def test_without_a_bundle_the_device_is_unfit(home: Path, tmp_path: Path, tiny: Path) -> None:
    finished = run_one(home, NewerRunner(tmp_path, bundles=False), tiny / "last.pte")
    assert type(finished.error).__name__ == "DeviceUnfit"
    assert finished.error is not None
    assert "GLIBC_9.34" in finished.error.message
    assert "older than the one the runner was built with" in finished.error.message
    assert not list((tmp_path / "device" / "work").iterdir())
