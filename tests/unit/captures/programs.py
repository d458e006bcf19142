"""What programs that run models print. The values were read off the texts by a person."""

from __future__ import annotations

from tests.unit.captures import readers
from tests.unit.captures.rows import Row, unread

_CONFIG = "`command` with patterns"


def _observed(prompt: int, generated: int, prefill: float, decode: float, ttft: float,
              load: float | None, begins: str, ends: str) -> dict[str, object]:  # fmt: skip
    return {
        "prompt": prompt, "generated": generated, "prefill_tok_s": prefill,
        "decode_tok_s": decode, "ttft_s": ttft, "load_s": load, "text begins": begins,
        "text ends": ends, "log in text": False,
    }  # fmt: skip


EXECUTORCH = (
    Row("executorch/backend-not-registered.txt", "diagnose",
        {"kind": "backend_missing", "output": "backend VulkanBackend is not registered"},
        readers.missing),
    Row("executorch/gemma3_runner.txt", "parse_observer",
        _observed(271, 99, 703.896, 81.818, 0.385, None, "Okay, let's break down w",
                  " is colored in gray, and"), readers.observer),
    Row("executorch/llama_main-android-2024.txt", "parse_observer",
        _observed(5, 114, 49.02, 39.297, 0.102, 3.926, "Once upon a time, I was ",
                  "hing in the world to me."), readers.observer),
    Row("executorch/llama_main-galaxy-s24-vulkan.txt", "parse_observer",
        _observed(14, 54, 85.366, 52.683, 0.164, 2.277, "<|begin_of_text|><|start",
                  " you enjoy it!<|eot_id|>"), readers.observer),
    Row("executorch/llama_main-pi5-2024.txt", "parse_observer",
        _observed(7, 120, 2.064, 2.058, 3.878, 46.979, "what is the meaning of l",
                  "t enjoying it and living"), readers.observer,
        "the sampling time is garbage and isn't read"),
    Row("executorch/missing-operator-2026.txt", "diagnose",
        {"kind": "operator_missing", "output": "missing operators: aten::linear.out"},
        readers.missing),
    Row("executorch/missing-operator.txt", "diagnose",
        {"kind": "operator_missing", "output": "missing operators: llama::custom_sdpa.out, "
         "llama::update_cache.out, quantized_decomposed::embedding_byte.out"}, readers.missing),
    Row("executorch/qnn_executor_runner.txt", "parse_observer", {"error": "BadOutput"},
        readers.no_observer, "it runs no language model and prints no figures"),
    Row("executorch/qnn_llama_runner-qcs6490.txt", "parse_observer",
        _observed(23, 1000, 131.429, 13.819, 0.175, 2.968, "", ""), readers.observer,
        "the answer is in a file: `text_file`"),
    Row("executorch/voxtral_runner.txt", "parse_observer",
        _observed(388, 99, 76.771, 8.865, 5.054, None, "The speaker in this audi",
                  " model's responses might"), readers.observer),
)  # fmt: skip

OTHERS = (
    *unread("logcat isn't read; the same message on stderr is shown as it is",
            "litert-lm/gpu-shape-mismatch.txt"),
    Row("litert-lm/readme-cpu.txt", _CONFIG,
        {"pp512": "18 at 7.79/s", "tg128": "62 at 11.21/s", "ttft_s": 2.4,
         "text": ("The tallest building", " to hold the record.")}, readers.printed("litert-lm")),
    Row("litert-lm/v0.10.2-cpu.txt", _CONFIG,
        {"pp512": "16 at 19.51/s", "tg128": "88 at 10.11/s", "ttft_s": 0.92,
         "text": ("The old lighthouse s", "med power of nature.")}, readers.printed("litert-lm")),
    Row("litert-lm/v0.11-termux-phone.txt", _CONFIG,
        {"pp512": "15 at 40.26/s", "tg128": "3 at 32.07/s"}, readers.printed("litert-lm")),
    *unread("farm asks for jsonl, the one form whose columns have names",
            "llama-bench/csv-2023.txt", "llama-bench/json-2023.txt",
            "llama-bench/md-snapdragon-x-opencl.txt"),
    Row("llama-bench/jsonl-2023.txt", "llama_cpp",
        {"pp512": (0.2138, 0.2116, 0.2123, 0.2113, 0.2127),
         "tg128": (0.9845, 0.9749, 0.9895, 0.9707, 0.9675), "threads": 16,
         "version": "llama.cpp 3469684", "backends": ""}, readers.bench,
        "this build names no backends"),
    Row("llama-bench/jsonl-2025.txt", "llama_cpp",
        {"pp512": (0.0716, 0.0712, 0.0704, 0.0694, 0.0699), "threads": 8,
         "version": "llama.cpp 8cf427ff", "backends": "CUDA"}, readers.bench),
    Row("llama-bench/jsonl-fork-ttft.txt", "llama_cpp",
        {"pp512": (6.2782, 6.2806, 6.2916, 6.3275, 6.2614), "threads": 8,
         "version": "llama.cpp 69f7e7116", "backends": "BLAS"}, readers.bench,
        "its zeros for what it didn't measure aren't read"),
    *unread("no figures: the program's own log", "llama-cli/opencl-adreno-830-head.txt"),
    Row("llama-cli/perf-2023-mobilevlm-snapdragon.txt", _CONFIG,
        {"pp512": "191 at 0.36/s", "tg128": "13 at 0.30/s"}, readers.printed("llama-cli"),
        "two programs' ends: the last one counts"),
    Row("llama-cli/perf-2025-llama_perf.txt", _CONFIG,
        {"pp512": "24 at 53.96/s", "tg128": "602 at 25.53/s"}, readers.printed("llama-cli")),
    Row("llama-cli/perf-2026-common_perf.txt", _CONFIG,
        {"pp512": "9 at 18.47/s", "tg128": "7 at 3.51/s"}, readers.printed("llama-cli")),
    Row("llama-cli/perf-inf.txt", _CONFIG, {"pp512": "118 at 28.86/s"},
        readers.printed("llama-cli"), "`inf` of one run in no time is no rate"),
    *unread("a profile of operators", "mlc/profiling-report-2023.txt"),
    Row("mlc/stats-line.txt", _CONFIG, {"pp512": "512 at 259.20/s", "tg128": "128 at 145.60/s"},
        readers.printed("mlc"), "no counts are printed: the rates are over what was asked for"),
)  # fmt: skip

PROGRAM_ROWS = (*EXECUTORCH, *OTHERS)
