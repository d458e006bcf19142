"""farm-runner end to end on a tiny real model: numbers against eager, clear errors, no crash."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runners.build.compiler import host_abi

from .conftest import Run, Start
from .tiny_llama import CONTEXT, TOKENS, VOCAB

pytestmark = pytest.mark.export

PREFILL = [16, 16, 7, 1, 24]
PASSES = [{"name": "decode", "chunks": [1] * CONTEXT}, {"name": "prefill", "chunks": PREFILL}]


def _request(**members: object) -> dict[str, object]:
    return {"protocol": 1, "threads": 2, "tokens": TOKENS, **members}


def _reference(tiny: Path) -> np.ndarray[Any, np.dtype[np.float32]]:
    logits: np.ndarray[Any, np.dtype[np.float32]] = np.load(tiny / "reference.npy")
    return logits


def _error(run: Run) -> dict[str, Any]:
    assert run.code == 1, run.out + run.err
    return run.one("error")


@pytest.mark.parametrize("model", ["last.pte", "full.pte"])
@pytest.mark.parametrize("load", ["mmap", "file"])
def test_logits_equal_eager(start: Start, tiny: Path, model: str, load: str) -> None:
    run = start(tiny / model, _request(logits=PASSES, load=load))
    assert run.code == 0, run.err
    reference = _reference(tiny)
    assert np.abs(run.logits("decode") - reference).max() <= 1e-4
    ends = np.cumsum(PREFILL) - 1
    assert np.abs(run.logits("prefill") - reference[ends]).max() <= 1e-4
    line = run.of("logits")[0]
    content = (run.folder / line["file"]).read_bytes()
    assert line["sha256"] == hashlib.sha256(content).hexdigest()
    assert (line["rows"], line["cols"], line["dtype"]) == (CONTEXT, VOCAB, "f32")


#: Chunks that no ring of windows is too small for.
SHORT = [12, 1, 12, 7, 1, 1, 12]


@pytest.mark.parametrize(
    ("model", "expected"),
    [("positions.pte", "reference"), ("two.pte", "reference"), ("ring.pte", "ring")],
)
def test_programs_as_others_export_them_equal_eager(
    start: Start, tiny: Path, model: str, expected: str
) -> None:
    reference = np.load(tiny / f"{expected}.npy")
    passes = [PASSES[0], {"name": "prefill", "chunks": SHORT}]
    generate = {"prompt": TOKENS[:9], "max_new_tokens": 6, "stop": []}
    measure = [{"name": "pp32", "prefill": 32, "decode": 0}, {"name": "tg4", "decode": 4}]
    run = start(tiny / model, _request(logits=passes, generate=generate, measure=measure))
    assert run.code == 0, run.err
    assert np.abs(run.logits("decode") - reference).max() <= 1e-4
    assert np.abs(run.logits("prefill") - reference[np.cumsum(SHORT) - 1]).max() <= 1e-4
    assert run.one("generated")["ids"][0] == int(reference[8].argmax())
    assert [sample["tokens"] for sample in run.of("sample")] == [32, 4]
    assert run.one("loaded")["metadata"]["use_kv_cache"] is True


def test_two_methods_without_a_cache_in_common_are_no_model(start: Start, tiny: Path) -> None:
    error = _error(start(tiny / "apart.pte", _request(logits=PASSES)))
    assert error["code"] == "unsupported_model"
    assert "no cache in common" in error["message"]
    assert "share_mutable_buffers" in error["message"]


def test_a_cpu_without_avx2(start: Start, start_tuned: Start, tiny: Path) -> None:
    emulator = shutil.which("qemu-x86_64-static")
    if emulator is None or host_abi() != "x86_64":
        pytest.skip("needs qemu-user-static on x86_64")
    request = _request(logits=PASSES[1:])
    ends = np.cumsum(PREFILL) - 1
    for begin in (start, start_tuned):
        run = begin(tiny / "last.pte", request, prefix=(emulator, "-cpu", "Nehalem"))
        assert run.code == 0, run.err
        assert run.one("hello")["isa"] == "portable"
        assert not [name for name in run.one("hello")["kernels"] if name.startswith("xnnpack::")]
        assert np.abs(run.logits("prefill") - _reference(tiny)[ends]).max() <= 1e-4
    # XNNPACK's code for that CPU on this one: as right, and other bits than its best code gives.
    best = start(tiny / "last.pte", request).logits("prefill")
    control = start(tiny / "last.pte", request | {"xnnpack_isa": "sse"})
    assert control.code == 0, control.out
    assert np.abs(control.logits("prefill") - _reference(tiny)[ends]).max() <= 1e-4
    assert not np.array_equal(control.logits("prefill"), best)


def test_other_code_of_xnnpack_is_never_timed_and_never_chosen_by_a_variable(
    start: Start, tiny: Path
) -> None:
    timed = _request(measure=[{"name": "pp8", "prefill": 8}], xnnpack_isa="sse")
    assert _error(start(tiny / "last.pte", timed))["where"] == "xnnpack_isa"
    chosen = start(tiny / "last.pte", _request(logits=PASSES[:1]), env={"FARM_XNNPACK_ISA": "sse"})
    assert "nobody asked" in _error(chosen)["message"]


def test_external_weights(start: Start, tiny: Path, tmp_path: Path) -> None:
    request = _request(logits=PASSES[:1])
    run = start(tiny / "external.pte", request, tiny / "weights.ptd")
    assert np.abs(run.logits("decode") - _reference(tiny)).max() <= 1e-4
    assert _error(start(tiny / "external.pte", request))["code"] == "missing_data"
    (tmp_path / "cut.ptd").write_bytes((tiny / "weights.ptd").read_bytes()[:500])
    assert _error(start(tiny / "external.pte", request, tmp_path / "cut.ptd"))["code"] in {
        "load_failed",
        "run_failed",
    }


def test_lines_come_in_order_and_complete(start: Start, tiny: Path) -> None:
    run = start(tiny / "last.pte", _request(logits=PASSES))
    kinds = [line["type"] for line in run.lines if line["type"] != "progress"]
    assert kinds == ["hello", "loaded", "logits", "logits", "done"]
    hello, loaded, done = run.one("hello"), run.one("loaded"), run.one("done")
    assert hello["protocol"] == 1
    assert "XnnpackBackend" in hello["backends"]
    assert {"llama::custom_sdpa.out=farm", "llama::update_cache.out=farm"} <= set(hello["kernels"])
    assert (loaded["vocab_size"], loaded["max_context"]) == (VOCAB, CONTEXT)
    assert loaded["backends"] == ["XnnpackBackend"]
    assert loaded["metadata"]["use_kv_cache"] is True
    assert 1 << 20 < loaded["peak_rss_bytes"] <= done["peak_rss_bytes"] < 1 << 30
    assert 0 < loaded["load_ns"] < done["wall_ns"]


def test_threads_and_repeats_are_bit_equal(start: Start, tiny: Path) -> None:
    sums = {
        start(tiny / "last.pte", _request(logits=PASSES, threads=threads)).of("logits")[0]["sha256"]
        for threads in (1, 2, 2)
    }
    assert len(sums) == 1


def test_sdpa_orders_perturb_only_the_last_bits(start: Start, tiny: Path) -> None:
    runs = [start(tiny / "last.pte", _request(logits=PASSES[:1], sdpa_order=k)) for k in range(5)]
    assert len({run.of("logits")[0]["sha256"] for run in runs}) == 5
    for run in runs:
        assert np.abs(run.logits("decode") - _reference(tiny)).max() <= 1e-4


def test_portable_code_gives_the_same_numbers(start: Start, tiny: Path) -> None:
    run = start(tiny / "last.pte", _request(logits=PASSES[:1]), env={"FARM_ISA": "scalar"})
    assert run.one("hello")["isa"] == "portable"
    assert np.abs(run.logits("decode") - _reference(tiny)).max() <= 1e-4
    assert start(tiny / "last.pte", _request(isa="portable")).one("hello")["isa"] == "portable"


def test_greedy_generation(start: Start, tiny: Path) -> None:
    generate = {"prompt": TOKENS[:9], "max_new_tokens": 6, "stop": []}
    ids = start(tiny / "last.pte", _request(generate=generate)).one("generated")
    assert len(ids["ids"]) == 6
    assert ids["stopped_by"] == "length"
    assert ids["ids"][0] == int(_reference(tiny)[8].argmax())
    generate["stop"] = [ids["ids"][2]]
    stopped = start(tiny / "last.pte", _request(generate=generate)).one("generated")
    assert stopped["stopped_by"] == "stop"
    assert stopped["ids"] == ids["ids"][: ids["ids"].index(ids["ids"][2])]
    generate = {"prompt": TOKENS[:60], "max_new_tokens": 50}
    full = start(tiny / "last.pte", _request(generate=generate)).one("generated")
    assert (full["stopped_by"], len(full["ids"])) == ("context", 5)


def test_timed_windows(start: Start, tiny: Path) -> None:
    measure = [
        {"name": "pp32", "prefill": 32, "decode": 0, "depth": 0, "repetitions": 3, "warmup": 1},
        {"name": "tg8", "prefill": 0, "decode": 8, "depth": 16, "repetitions": 2, "warmup": 0},
        {"name": "tg4", "prefill": 0, "decode": 4},
        {"name": "both", "prefill": 8, "decode": 4, "depth": 4},
    ]
    samples = start(tiny / "last.pte", _request(measure=measure)).of("sample")
    assert [(s["metric"], s["rep"], s["warmup"], s["tokens"]) for s in samples] == [
        ("pp32", 0, True, 32),
        *(("pp32", rep, False, 32) for rep in range(3)),
        *(("tg8", rep, False, 8) for rep in range(2)),
        ("tg4", 0, False, 4),
        ("both", 0, False, 12),
    ]
    clock = 0
    for sample in samples:
        window = sample["end_ns"] - sample["start_ns"]
        assert clock <= sample["start_ns"], "windows don't overlap"
        assert window > 0
        clock = sample["end_ns"]
        assert len(sample["token_ns"]) == sample["decode"]
        ttft = sample["ttft_ns"]
        assert (ttft is None) == (sample["prefill"] == 0)
        assert sum(sample["token_ns"]) + (ttft or 0) == window


def test_short_work_is_repeated_in_a_window(start: Start, tiny: Path) -> None:
    measure = [
        {"name": "pp32", "prefill": 32, "repetitions": 2, "warmup": 1, "window_ms": 50},
        {"name": "tg8", "decode": 8, "depth": 4, "repetitions": 2, "warmup": 2, "window_ms": 50},
        {"name": "both", "prefill": 8, "decode": 4, "warmup": 1, "window_ms": 50},
        {"name": "cold", "prefill": 8, "window_ms": 50},
    ]
    samples = start(tiny / "last.pte", _request(measure=measure)).of("sample")
    for sample in samples:
        work = sample["prefill"] + sample["decode"]
        assert sample["tokens"] == sample["passes"] * work
        assert len(sample["token_ns"]) == sample["passes"] * sample["decode"]
        window = sample["end_ns"] - sample["start_ns"]
        if sample["metric"] in ("both", "cold"):
            assert sample["passes"] == 1
            continue
        if sample["warmup"]:
            # Beyond those asked for come windows that turned out too short.
            wanted = 1 if sample["metric"] == "pp32" else 2
            assert (sample["passes"] == 1) == (sample["rep"] < wanted)
            continue
        assert sample["passes"] > 1
        assert window > 20e6
        if sample["prefill"]:
            assert 0 < sample["ttft_ns"] < window
        else:
            assert sum(sample["token_ns"]) == window
    for name, counted in (("pp32", 2), ("tg8", 2), ("both", 1), ("cold", 1)):
        windows = [s for s in samples if s["metric"] == name and not s["warmup"]]
        assert [s["rep"] for s in windows] == list(range(counted))
        assert len({s["passes"] for s in windows}) == 1


#: A clock that nothing but its calls moves: each by 1 ms, the first ones by more.
_CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
int clock_gettime(clockid_t clock, struct timespec* now) {
  static int (*real)(clockid_t, struct timespec*);
  static long calls, us;
  if (!real) real = (int (*)(clockid_t, struct timespec*))dlsym(RTLD_NEXT, "clock_gettime");
  if (clock != CLOCK_MONOTONIC) return real(clock, now);
  us += calls++ < SLOW_CALLS ? SLOW_US : 1000;
  now->tv_sec = us / 1000000;
  now->tv_nsec = us % 1000000 * 1000;
  return 0;
}
"""


@pytest.mark.parametrize(
    ("slower", "window", "passes"),
    [
        pytest.param(5, 2.5, [1, 1, 3, 3, 3], id="much"),
        pytest.param(1.4, 2.35, [1, 2, 3, 3, 3], id="a-little"),
    ],
)
def test_windows_that_a_slow_warm_up_made_short_are_sized_again(
    start: Start, tiny: Path, tmp_path: Path, slower: float, window: float, passes: list[int]
) -> None:
    """`window`: what is asked for, in windows of one pass."""

    def samples(slow_calls: int, window_ms: int) -> list[dict[str, Any]]:
        (tmp_path / "clock.c").write_text(_CLOCK)
        slow = [f"-DSLOW_CALLS={slow_calls}", f"-DSLOW_US={int(1000 * slower)}"]
        command = ["gcc", "-shared", "-fPIC", *slow, "clock.c", "-o", "clock.so", "-ldl"]
        subprocess.run(command, check=True, cwd=tmp_path)
        tg = {"name": "tg", "decode": 40, "repetitions": 3, "warmup": 1, "window_ms": window_ms}
        clock = {"LD_PRELOAD": str(tmp_path / "clock.so")}
        return start(tiny / "last.pte", _request(measure=[tg]), env=clock).of("sample")

    # The clock's steps: ExecuTorch looks at it too, and how often is its own affair.
    steady = samples(slow_calls=0, window_ms=0)
    pass_ns = steady[0]["end_ns"] - steady[0]["start_ns"]
    until_warm = steady[0]["end_ns"] // 1_000_000
    found = samples(until_warm, window_ms=int(window * pass_ns / 1e6))
    assert [s["passes"] for s in found] == passes
    assert [s["warmup"] for s in found] == [True, True, False, False, False]
    assert [s["rep"] for s in found[2:]] == [0, 1, 2]
    assert all(s["end_ns"] - s["start_ns"] >= window * pass_ns for s in found[2:])


BAD_REQUESTS = [
    (b"", "bad_json"),
    (b"{", "bad_json"),
    (b'{"protocol": 1, "protocol": 1}', "bad_json"),
    (b"[" * 100_000, "bad_json"),
    (b'{"protocol": 1e999}', "bad_json"),
    (b"[]", "bad_request"),
    (b'{"protocol": "1"}', "bad_request"),
    (b'{"protocol": 2}', "unsupported_protocol"),
    (b'{"protocol": 1, "tokens": [1.5]}', "bad_request"),
    (b'{"protocol": 1, "tokens": [-1]}', "bad_request"),
    (b'{"protocol": 1, "surprise": 1}', "bad_request"),
    (b'{"protocol": 1, "threads": 100000}', "bad_request"),
    (b'{"protocol": 1, "sdpa_order": 9}', "bad_request"),
    (b'{"protocol": 1, "isa": "mmx"}', "bad_request"),
    (b'{"protocol": 1, "xnnpack_isa": "mmx"}', "bad_request"),
    (b'{"protocol": 1, "affinity": [1000]}', "bad_affinity"),
    (b'{"protocol": 1, "logits": [{"name": "../x", "chunks": [1]}]}', "bad_request"),
    (b'{"protocol": 1, "logits": [{"name": "x", "chunks": [1]}]}', "bad_request"),
    (b'{"protocol": 1, "measure": [{"name": "x"}]}', "bad_request"),
    (b'{"protocol": 1, "measure": [{"name": "x", "decode": 64}]}', "context_exceeded"),
    (b'{"protocol": 1, "tokens": [96]}', "token_out_of_vocab"),
    (b'{"protocol": 1, "profile": [{"name": "x", "decode": 1}]}', "no_profiler"),
]


@pytest.mark.parametrize(("request_bytes", "code"), BAD_REQUESTS, ids=lambda x: str(x)[:40])
def test_a_wrong_request_is_one_error_line(
    start: Start, tiny: Path, request_bytes: bytes, code: str
) -> None:
    error = _error(start(tiny / "last.pte", request_bytes))
    assert error["code"] == code
    assert error["message"]


def test_garbled_requests_never_crash(start: Start, tiny: Path) -> None:
    good = json.dumps(_request(logits=PASSES[1:], measure=[{"name": "a", "decode": 1}])).encode()
    draw = random.Random(4)
    for _ in range(60):
        raw = bytearray(good)
        for _flip in range(draw.randint(1, 4)):
            raw[draw.randrange(len(raw))] = draw.randrange(256)
        run = start(
            tiny / "last.pte", bytes(raw[: draw.choice([len(raw), draw.randrange(len(raw))])])
        )
        assert run.code in (0, 1), run.err[-500:]
        assert run.lines[-1]["type"] == ("done" if run.code == 0 else "error")


def test_a_damaged_program_is_never_a_result(start: Start, tiny: Path, tmp_path: Path) -> None:
    good = (tiny / "last.pte").read_bytes()
    draw = random.Random(9)
    damaged = tmp_path / "damaged.pte"
    for size in (0, 7, 100, len(good) // 2, len(good) - 1000):
        damaged.write_bytes(good[:size])
        assert _error(start(damaged, _request(logits=PASSES[1:])))["code"] in {
            "load_failed",
            "unsupported_model",
            "runtime_abort",
        }
    for _ in range(25):
        raw = bytearray(good)
        for _flip in range(8):
            raw[draw.randrange(4000)] ^= 1 << draw.randrange(8)
        damaged.write_bytes(raw)
        run = start(damaged, _request(logits=PASSES[1:]))
        ended = run.code == 0 or run.code < 0 or run.of("error")
        assert ended, (run.code, run.out[-300:])


@pytest.mark.parametrize(
    ("old", "new", "code", "names"),
    [
        (b"XnnpackBackend", b"NothingBackend", "missing_backend", "NothingBackend"),
        (b"llama::custom_sdpa", b"llama::cuztom_sdpa", "missing_operator", "llama::cuztom_sdpa"),
    ],
)
def test_what_is_missing_is_named(
    start: Start, tiny: Path, tmp_path: Path, old: bytes, new: bytes, code: str, names: str
) -> None:
    changed = tmp_path / "changed.pte"
    changed.write_bytes((tiny / "last.pte").read_bytes().replace(old, new))
    error = _error(start(changed, _request()))
    assert error["code"] == code
    assert names in error["message"]


def test_models_that_are_no_language_model(start: Start, tiny: Path, tmp_path: Path) -> None:
    assert _error(start(tiny / "nocache.pte", _request()))["code"] == "unsupported_model"
    assert _error(start(tmp_path / "none.pte", _request()))["code"] == "no_model"


def test_the_runtimes_log_stays_off_stdout_and_bounded(start: Start, tiny: Path) -> None:
    run = start(tiny / "last.pte", _request(logits=PASSES))
    assert all(line.startswith("{") for line in run.out.splitlines())
    assert len(run.err) < 300_000
