"""Logits over real links: whole rows over a fast one, the compact form over a slow one."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import numpy as np
import pytest

from farm.core.artifact import LogitsForm, LogitsPass, LogitsRef
from farm.core.runner import DeployFile
from farm.core.runtime import LaunchRequest
from farm.judge.compact import CompactLogits
from farm.judge.logits import Logits, every_position, open_some
from farm.judge.metrics import compare
from tests.contract.site_bench import SiteBench
from tests.lab.machine import Machine
from tests.lab.test_site_jobs import Factory
from tests.pace import slack

pytestmark = pytest.mark.lab

ROWS, COLS = 64, 32_768
#: The rows are a file of the artifact, behind a byte: the host's store doesn't know them as logits.
MODEL = f"""
tail -c +2 rows > "$out/decode.f32"
sha=$(sha256sum "$out/decode.f32"); sha=${{sha%% *}}
printf '{{"logits": ["decode", "decode.f32", "%s", {ROWS}, {COLS}]}}\\n' "$sha"
printf '{{"done": true}}\\n'
"""
#: The rows are 8.4 MB: 6 s of this link.
SLOW_BYTES_S = 1.4e6

Fetched = tuple[LogitsRef, Path]


@pytest.fixture(params=["adb", "ssh"])
def machine(request: pytest.FixtureRequest) -> Machine:
    factory: Factory = request.getfixturevalue(f"{request.param}_device")
    return factory()


def rows() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    random = np.random.default_rng(0)
    return random.normal(0, 3, (ROWS, COLS)).astype(np.float32)


def fetched(folder: Path, machine: Machine, content: bytes, form: LogitsForm) -> Fetched:
    """The logits of a job whose runner wrote these bytes."""

    async def scenario() -> Fetched:
        bench = SiteBench(folder, entries=(machine.entry,))
        model = bench.store.put_bytes(MODEL.encode(), "model.pte")
        file = bench.store.put_bytes(b"x" + content, "rows")
        request = LaunchRequest(
            1,
            tokens=tuple(range(ROWS)),
            passes=(LogitsPass("decode", (1,) * ROWS),),
            logits=form,
            timeout_s=60.0,
        )
        job = bench.job(
            MODEL,
            device=machine.name,
            launches=(request,),
            artifact=(DeployFile(model, "model.pte"), DeployFile(file, "rows")),
        )
        finished = await bench.run(job, limit_s=120 * slack())
        await bench.agent.close()
        assert finished.result is not None, finished.error
        ((name, ref),) = finished.result.launches[0].logits
        assert name == "decode"
        return ref, bench.store.path(ref.object)

    return asyncio.run(scenario())


def test_a_fast_link_brings_every_row(machine: Machine, tmp_path: Path) -> None:
    content = rows().tobytes()
    ref, path = fetched(tmp_path, machine, content, "auto")
    assert (ref.compact, ref.rows, ref.cols) == (False, ROWS, COLS)
    assert path.read_bytes() == content


def test_a_slow_link_brings_what_matters(machine: Machine, tmp_path: Path) -> None:
    device = rows()
    machine.network.limit(SLOW_BYTES_S)
    ref, path = fetched(tmp_path, machine, device.tobytes(), "auto")
    assert ref.compact
    assert ref.identity == hashlib.sha256(device.tobytes()).hexdigest()
    assert ref.object.size_bytes < device.nbytes / 3
    found = open_some(path, ref)
    assert isinstance(found, CompactLogits)
    assert len(found.whole) == 12
    assert np.array_equal(found.values, device[list(found.whole)])
    host = (device + np.random.default_rng(1).normal(0, 0.1, device.shape)).astype(np.float32)
    positions = tuple(range(ROWS))
    tokens = [*range(ROWS), 0]
    seen = compare(every_position(host), Logits(found, positions), tokens)
    real = compare(every_position(host), every_position(device), tokens)
    assert seen.top1_agreement == real.top1_agreement
    assert seen.perplexity_to == pytest.approx(real.perplexity_to, rel=1e-9)


def test_rows_with_a_nan_come_whole_however_slow(ssh_device: Factory, tmp_path: Path) -> None:
    device = rows()
    device[7, 5] = np.nan
    machine = ssh_device()
    machine.network.limit(SLOW_BYTES_S)
    ref, path = fetched(tmp_path, machine, device.tobytes(), "auto")
    assert not ref.compact
    assert path.read_bytes() == device.tobytes()


def test_whole_rows_are_had_where_they_are_asked_for(ssh_device: Factory, tmp_path: Path) -> None:
    machine = ssh_device()
    machine.network.limit(SLOW_BYTES_S)
    ref, _ = fetched(tmp_path, machine, rows().tobytes(), "whole")
    assert not ref.compact
