"""The host's run: its noise floor, and other code of XNNPACK where a device has another CPU."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from farm.core.artifact import LogitsPass, LogitsRef
from farm.core.errors import RunnerCrashed
from farm.core.runtime import DeviceRunResult, LaunchRequest
from farm.core.tasks import HostRunTask
from farm.paths import store_root
from farm.store.objects import ContentStore
from farm.tasks import perform
from tests.unit.core import builders as b
from tests.unit.judge.builders import bundle, disturbed, facts, launch

HERE = ("avx", "avx2")
TOKENS = tuple(range(40))


@pytest.mark.parametrize(
    ("theirs", "broken", "names", "words"),
    [
        (HERE, False, [], "no device of the run"),
        (("neon",), False, ["avx", "sse"], ""),
        (("neon",), True, [], "this build hides cpuinfo"),
    ],
)
def test_other_code_runs_where_a_device_has_another_cpu(
    theirs: tuple[str, ...],
    broken: bool,
    names: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = ContentStore(store_root(tmp_path))
    rows = 4 * np.random.default_rng(0).standard_normal((len(TOKENS), 50)).astype(np.float32)

    def run_here(
        _task: object, asked: tuple[LaunchRequest, ...], *_rest: object
    ) -> DeviceRunResult:
        launches = []
        for one in asked:
            if one.xnnpack_isa and broken:
                raise RunnerCrashed("xnnpack_isa: this build hides cpuinfo")
            size = 0.02 if one.xnnpack_isa else 0.01 * one.sdpa_order
            file = tmp_path / "rows.f32"
            disturbed(rows, size).astype("<f4").tofile(file)
            ref = LogitsRef(store.put_file(file, "decode.f32"), *rows.shape)
            launches.append(replace(launch(0), logits=(("decode", ref),)))
        return replace(b.run_result(), launches=tuple(launches))

    monkeypatch.setattr(perform, "_run_here", run_here)
    monkeypatch.setattr(perform, "_facts", lambda *_: facts(features=HERE))
    monkeypatch.setattr(perform, "_host_run_key", lambda *_: "host-run-test")
    passes = (LogitsPass("decode", (1,) * len(TOKENS)),)
    task = HostRunTask("host_run:x", bundle(), TOKENS, passes, features=(HERE, theirs))
    for hit in (False, True):
        found = perform.host_run(task, tmp_path, lambda _: None, threading.Event())
        assert found.cache_hit is hit
        assert [one.isa for one in found.controls] == names
        assert all(dict(one.kl_mean)["decode"] > 0 for one in found.controls)
        assert words in found.no_controls
        assert bool(found.no_controls) is bool(words)
        assert found.noise_floor is not None
        assert found.noise_floor.perturbations == 4
