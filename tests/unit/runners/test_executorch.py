from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

import runners
from farm.core.artifact import LogitsPass, Sdk
from farm.core.device import DeviceFacts
from farm.core.errors import BadOutput, DeviceUnfit, RunnerCrashed, RunnerError
from farm.core.runner import RunnerBuild, RunnerKind, WorkFiles
from farm.core.runtime import Chosen, Generate, LaunchRequest, Measure
from runners.executorch import ExecutorchRunner, request_json

HELLO = {
    "type": "hello", "protocol": 1, "version": "0.1.0+abc", "abi": "x86_64", "isa": "avx2",
    "features": ["avx2", "fma"], "backends": ["XnnpackBackend"],
    "kernels": ["llama::custom_sdpa.out=farm"],
}  # fmt: skip
LOADED = {
    "type": "loaded", "load_ns": 250_000_000, "threads": 4, "affinity": [4, 5, 6, 7],
    "vocab_size": 512, "max_context": 128, "max_seq": 128, "backends": ["XnnpackBackend"],
    "metadata": {}, "peak_rss_bytes": 1000,
}  # fmt: skip
PROGRESS = {"type": "progress", "phase": "measure-pp128", "done": 1, "total": 4}
PREFILL = {
    "type": "sample", "metric": "pp128", "rep": 0, "warmup": True, "tokens": 128, "passes": 1,
    "prefill": 128, "decode": 0, "depth": 0, "start_ns": 5_000_000_000, "end_ns": 5_500_000_000,
    "ttft_ns": 490_000_000, "token_ns": [],
}  # fmt: skip
DECODE = {
    **PREFILL, "metric": "tg2@d8", "warmup": False, "tokens": 2, "prefill": 0, "decode": 2,
    "depth": 8, "start_ns": 6_000_000_000, "end_ns": 6_040_000_000, "ttft_ns": None,
    "token_ns": [15_000_000, 25_000_000], "from": 3, "ids": [11, 12], "odd": None,
}  # fmt: skip
LOGITS = {
    "type": "logits", "name": "decode", "file": "logits-decode.f32", "rows": 3, "cols": 512,
    "dtype": "f32", "sha256": "ab" * 32,
}  # fmt: skip
GENERATED = {"type": "generated", "ids": [7, 8, 9], "stopped_by": "length"}
DONE = {"type": "done", "peak_rss_bytes": 4096, "wall_ns": 1}
ALL = (HELLO, LOADED, LOGITS, GENERATED, PREFILL, PROGRESS, DECODE, DONE)


def text(*lines: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def test_complete_launch() -> None:
    result = ExecutorchRunner().parse(text(*ALL), 2, LaunchRequest(0))
    assert result.hello.isa == "avx2"
    assert result.hello.features == ("avx2", "fma")
    assert (result.threads, result.affinity, result.load_s) == (4, "4,5,6,7", 0.25)
    assert result.backends == ("XnnpackBackend",)
    assert (result.generated, result.stopped_by) == ((7, 8, 9), "length")
    assert result.peak_rss_bytes == 4096
    load, prefill, decode = result.samples
    assert (load.metric, load.tokens, load.duration_s, load.launch) == ("load", 0, 0.25, 2)
    assert (prefill.warmup, prefill.duration_s, prefill.ttft_s) == (True, 0.5, 0.49)
    assert (decode.tokens, decode.ttft_s, decode.token_s) == (2, None, (0.015, 0.025))
    assert decode.t_s - prefill.t_s == 1.0
    assert prefill.chosen is None, "a runner of before doesn't tell"
    assert decode.chosen == Chosen(3, (11, 12))
    ((name, ref),) = result.logits
    assert (name, ref.rows, ref.cols, ref.object.size_bytes) == ("decode", 3, 512, 6144)
    assert ref.object.name == "logits-decode.f32"


def test_launch_without_extras() -> None:
    result = ExecutorchRunner().parse(
        text(HELLO, {**LOADED, "affinity": "none"}, DONE), 0, LaunchRequest(0)
    )
    assert (result.logits, result.generated, result.stopped_by) == ((), None, None)
    assert result.affinity == "none"
    assert [sample.metric for sample in result.samples] == ["load"]


def test_lines_between_ours_are_ignored() -> None:
    noisy = b"linker: a warning\n" + text(*ALL[:3]) + b'{"half": \n[1]\n"x"\n' + text(*ALL[3:])
    assert ExecutorchRunner().parse(noisy, 0, LaunchRequest(0)) == ExecutorchRunner().parse(
        text(*ALL), 0, LaunchRequest(0)
    )


@pytest.mark.parametrize("missing", [HELLO, LOADED, DONE])
def test_incomplete_launch(missing: dict[str, Any]) -> None:
    lines = [line for line in ALL if line is not missing]
    with pytest.raises(BadOutput, match=f"0 lines of type '{missing['type']}'"):
        ExecutorchRunner().parse(text(*lines), 0, LaunchRequest(0))


@pytest.mark.parametrize(
    "broken",
    [
        {**HELLO, "protocol": 2},
        {key: value for key, value in HELLO.items() if key != "isa"},
        {**LOADED, "load_ns": None},
        {**LOADED, "affinity": ["x"]},
        {**PREFILL, "end_ns": 5_000_000_000},
        {**PREFILL, "start_ns": "soon"},
        {**DECODE, "token_ns": 3},
        {**DECODE, "ids": [None]},
        {**DECODE, "odd": -1},
        {**LOGITS, "dtype": "f16"},
        {**LOGITS, "sha256": "../../x"},
        {**LOGITS, "rows": 0},
        {**GENERATED, "ids": None},
        {**DONE, "peak_rss_bytes": []},
    ],
)
def test_garbled_line_is_bad_output(broken: dict[str, Any]) -> None:
    lines = [broken if line["type"] == broken["type"] else line for line in ALL]
    with pytest.raises(BadOutput) as caught:
        ExecutorchRunner().parse(text(*lines), 0, LaunchRequest(0))
    assert caught.value.context["raw"].startswith('{"type": "hello"')


def test_error_line_is_the_message() -> None:
    line = {
        "type": "error", "code": "missing_operator", "message": "the model needs operators",
        "where": "model", "executorch_error": 20,
    }  # fmt: skip
    with pytest.raises(RunnerCrashed, match="the model needs operators") as caught:
        ExecutorchRunner().parse(text(HELLO, line), 0, LaunchRequest(0))
    assert caught.value.context == {"reason": "missing_operator", "where": "model"}


def test_progress_and_rate() -> None:
    runner = ExecutorchRunner()
    lines = [json.dumps(line).encode() for line in ALL]
    assert [p for p in map(runner.progress, lines) if p] == [("measure-pp128", 1, 4)]
    assert [r for r in map(runner.rate, lines) if r] == [("pp128", 256.0), ("tg2@d8", 50.0)]
    assert runner.rate(b"[" * 100_000) is None


@given(st.binary(max_size=200))
def test_no_output_makes_the_parser_fail_otherwise(noise: bytes) -> None:
    for stdout in (noise, text(*ALL[:4]) + noise, noise + text(*ALL)[:700]):
        with pytest.raises(RunnerError):
            ExecutorchRunner().parse(stdout, 0, LaunchRequest(0))
    ExecutorchRunner().progress(noise)
    ExecutorchRunner().rate(noise)


def test_request() -> None:
    request = LaunchRequest(
        threads=0,
        tokens=(1, 2, 3),
        passes=(LogitsPass("decode", (1, 1, 1)),),
        generate=Generate((5, 6), 4, (2,)),
        measures=(Measure("tg64@d512", 0, 64, 512, 3, 1, 125),),
        affinity="0,2",
        sdpa_order=1,
    )
    document = json.loads(request_json(request))
    assert document == {
        "protocol": 1,
        "threads": 0,
        "affinity": [0, 2],
        "sdpa_order": 1,
        "tokens": [1, 2, 3],
        "logits": [{"name": "decode", "chunks": [1, 1, 1]}],
        "generate": {"prompt": [5, 6], "max_new_tokens": 4, "stop": [2]},
        "measure": [
            {
                "name": "tg64@d512",
                "prefill": 0,
                "decode": 64,
                "depth": 512,
                "repetitions": 3,
                "warmup": 1,
                "window_ms": 125,
            }
        ],
    }
    assert json.loads(request_json(LaunchRequest(2)))["affinity"] == "auto"
    assert "generate" not in json.loads(request_json(LaunchRequest(2)))


def test_arguments() -> None:
    words, files = ExecutorchRunner().arguments(
        LaunchRequest(1), WorkFiles("model.pte", ("weights.ptd",))
    )
    assert words == (
        *("--model", "model.pte", "--data", "weights.ptd"),
        *("--request", "request.json", "--out", "."),
    )
    assert list(files) == ["request.json"]


def test_unknown_abi_is_unfit() -> None:
    facts = DeviceFacts(identity="x", abi="s390x")
    with pytest.raises(DeviceUnfit, match=r"no runner for linux-s390x.*arm64-v8a"):
        ExecutorchRunner().build("s390x", facts, Path("/nowhere"), Sdk())


def test_files_of_a_build_that_is_gone() -> None:
    build = RunnerBuild("executorch", "1", "x86_64", "0", (), ("./farm-runner",))
    assert ExecutorchRunner().files(build) == {}


def test_registry_makes_every_kind() -> None:
    assert runners.find().name == "executorch"
    assert set(runners.RUNNERS.names()) == set(get_args(RunnerKind))
