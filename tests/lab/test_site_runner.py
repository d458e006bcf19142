"""farm-runner with a real model on local, adb and ssh at once: bit-equal, and right."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from farm.core.artifact import LogitsPass
from farm.core.device import DeviceEntry
from farm.core.events import JobFinished, JobProgress
from farm.core.runtime import DeployFile, DeviceJob, Generate, LaunchRequest, Measure
from farm.home import store_root
from farm.site.agent import SiteAgent
from farm.site.store import ContentStore
from tests.contract.site_bench import make_home
from tests.lab.test_site_jobs import Factory
from tests.lab.tiny_model import tiny_model

pytestmark = [pytest.mark.lab, pytest.mark.export]

#: As tests/integration/native/tiny_llama.py feeds them to the eager model.
TOKENS = tuple(int(x) for x in np.random.default_rng(11).integers(0, 96, 64))


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
    check = LaunchRequest(
        1,
        tokens=TOKENS[:24],
        passes=(LogitsPass("decode", (1,) * 24), LogitsPass("prefill", (8, 16))),
        generate=Generate(TOKENS[:4], 6, ()),
    )
    measure = LaunchRequest(
        1, measures=(Measure("pp16", 16, 0, 0, 2, 1), Measure("tg8@d4", 0, 8, 4, 2, 1))
    )

    async def scenario() -> dict[str, JobFinished]:
        agent = SiteAgent(home, discover=lambda _named, _site: [])
        devices = await agent.inventory(entries, adb_auto=False)
        assert [device.state for device in devices] == ["ready"] * 3, devices
        await agent.submit(
            [
                DeviceJob(
                    f"cell:{entry.name}", 1, 1, "run-1", "c", entry.name, "executorch",
                    (DeployFile(program, "model.pte"),), (check, measure),
                )
                for entry in entries
            ]
        )  # fmt: skip
        finished: dict[str, JobFinished] = {}
        rates: set[str] = set()
        seq = 0
        while len(finished) < len(entries):
            for item in await agent.poll(seq, 1.0):
                seq = item.seq
                if isinstance(item.event, JobFinished):
                    finished[item.event.device] = item.event
                if isinstance(item.event, JobProgress) and item.event.rate:
                    rates.add(item.event.rate[0])
        await agent.close()
        assert rates == {"pp16", "tg8@d4"}
        return finished

    finished = asyncio.run(scenario())
    hashes, texts = set(), set()
    reference = np.load(tiny / "reference.npy")
    for event in finished.values():
        assert event.error is None, event.error
        assert event.result is not None
        checked, measured = event.result.launches
        logits = dict(checked.logits)
        hashes.add((logits["decode"].object.sha256, logits["prefill"].object.sha256))
        texts.add(checked.generated)
        for name, positions in (("decode", range(24)), ("prefill", (7, 23))):
            ref = logits[name]
            found = np.fromfile(store.path(ref.object), np.float32).reshape(ref.rows, ref.cols)
            assert np.abs(found - reference[list(positions)]).max() <= 1e-4
        metrics = [sample.metric for sample in measured.samples if not sample.warmup]
        assert metrics == ["load", "pp16", "pp16", "tg8@d4", "tg8@d4"]
        assert measured.peak_rss_bytes is not None
        assert checked.backends == ("XnnpackBackend",)
    assert len(hashes) == 1
    assert len(texts) == 1
