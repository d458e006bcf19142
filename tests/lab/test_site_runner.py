"""farm-runner with a real model on local, adb and ssh at once: bit-equal, and right."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from farm.core.artifact import LogitsPass, ObjectRef
from farm.core.device import DeviceEntry
from farm.core.events import JobFinished, JobProgress
from farm.core.runner import DeployFile, RunnerSpec
from farm.core.runtime import DeviceJob, Generate, LaunchRequest, Measure
from farm.paths import store_root
from farm.site.agent.agent import SiteAgent
from farm.store.objects import ContentStore
from tests.contract.site_bench import make_home
from tests.lab.test_site_jobs import Factory
from tests.lab.tiny_model import tiny_model

pytestmark = [pytest.mark.lab, pytest.mark.export]

#: As tests/integration/native/tiny_llama.py feeds them to the eager model.
TOKENS = tuple(int(x) for x in np.random.default_rng(11).integers(0, 96, 64))
CHECK = LaunchRequest(
    1,
    tokens=TOKENS[:24],
    passes=(LogitsPass("decode", (1,) * 24), LogitsPass("prefill", (8, 16))),
    generate=Generate(TOKENS[:4], 6, ()),
)


async def ran(
    entries: Sequence[DeviceEntry],
    home: Path,
    program: ObjectRef,
    launches: tuple[LaunchRequest, ...],
) -> tuple[dict[str, JobFinished], set[str]]:
    """Run the same job on every device at once; return its ends, and metrics seen meanwhile."""
    agent = SiteAgent(home, discover=lambda _named, _site: [])
    devices = await agent.inventory(entries, adb_auto=False)
    assert [device.state for device in devices] == ["ready"] * len(entries), devices
    await agent.submit(
        [
            DeviceJob(
                f"cell:{entry.name}", 1, 1, "run-1", "c", entry.name, RunnerSpec("executorch"),
                (DeployFile(program, "model.pte"),), launches,
            )
            for entry in entries
        ]
    )  # fmt: skip
    finished: dict[str, JobFinished] = {}
    rates: set[str] = set()
    seq = 0
    while len(finished) < len(entries):
        for item in (await agent.poll("run-1", seq, 1.0)).events:
            seq = item.seq
            if isinstance(item.event, JobFinished):
                finished[item.event.device] = item.event
            if isinstance(item.event, JobProgress) and item.event.rate:
                rates.add(item.event.rate[0])
    await agent.close()
    return finished, rates


def check_logits(event: JobFinished, store: ContentStore) -> tuple[str, str]:
    """The first launch's logits are those of the eager model; return their hashes."""
    assert event.error is None, event.error
    assert event.result is not None
    reference = np.load(tiny_model() / "reference.npy")
    logits = dict(event.result.launches[0].logits)
    for name, positions in (("decode", range(24)), ("prefill", (7, 23))):
        ref = logits[name]
        found = np.fromfile(store.path(ref.object), np.float32).reshape(ref.rows, ref.cols)
        assert np.abs(found - reference[list(positions)]).max() <= 1e-4
    return logits["decode"].object.sha256, logits["prefill"].object.sha256


def test_one_model_on_three_kinds_of_devices(
    adb_device: Factory, ssh_device: Factory, tmp_path: Path
) -> None:
    tiny = tiny_model()
    home = make_home(tmp_path)
    phone, board = adb_device(), ssh_device()
    here = DeviceEntry("here", "local", root=str(tmp_path / "device"))
    entries = [here, phone.entry, board.entry]
    store = ContentStore(store_root(home))
    program = store.put_file(tiny / "last.pte", "model.pte")
    measure = LaunchRequest(
        1, measures=(Measure("pp16", 16, 0, 0, 2, 1), Measure("tg8@d4", 0, 8, 4, 2, 1))
    )

    finished, rates = asyncio.run(ran(entries, home, program, (CHECK, measure)))
    assert rates == {"pp16", "tg8@d4"}
    hashes, texts = set(), set()
    for event in finished.values():
        hashes.add(check_logits(event, store))
        assert event.result is not None
        checked, measured = event.result.launches
        texts.add(checked.generated)
        metrics = [sample.metric for sample in measured.samples if not sample.warmup]
        assert metrics == ["load", "pp16", "pp16", "tg8@d4", "tg8@d4"]
        assert measured.peak_rss_bytes is not None
        assert checked.backends == ("XnnpackBackend",)
    assert len(hashes) == 1
    assert len(texts) == 1


def test_arm64_devices_run_the_model_with_a_cross_built_runner(
    adb_device: Factory, ssh_device: Factory, tmp_path: Path
) -> None:
    """The phone has no loader and no glibc: what the runner needs is pushed along."""
    home = make_home(tmp_path)
    entries = [adb_device(arch="arm64").entry, ssh_device(arch="arm64").entry]
    store = ContentStore(store_root(home))
    program = store.put_file(tiny_model() / "last.pte", "model.pte")
    finished, _ = asyncio.run(ran(entries, home, program, (CHECK,)))
    assert len({check_logits(event, store) for event in finished.values()}) == 1
    for event in finished.values():
        assert event.result is not None
        assert event.result.runner.abi == "arm64-v8a"
        assert dict(event.result.conditions)["emulated"] == "true"
