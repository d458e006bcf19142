"""`executorch-tuned` against llama.cpp: the same SmolLM2-135M weights at 4 bit, prefill and decode.

llama.cpp runs the GGUF (Q4_1) as it is; ours is the .pte of configs/llama_q4.yaml, exported from
that GGUF. Threads 1 and 2, launches interleaved A B B A. The peer is the prebuilt library in an npm
package, fetched by `npm pack` and checked against its hash. Prints a table and, as its last line,
one JSON document.

    python benchmarks/llama_cpp.py [--pte FILE] [--pairs 6]
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import resource
import shutil
import subprocess
import sys
import tarfile
import time
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.method.paired import (  # noqa: E402
    DECODE,
    PREFILL,
    Figures,
    artifact,
    document,
    duel,
    note,
    run_child,
    run_farm,
    window,
)

THREADS = (1, 2)
TARGETS = {"decode": 1.05, "prefill": 1.5}
PACKAGE = "@node-llama-cpp/linux-x64@3.22.1"
SHA256 = "0d953e1503d5ab4608d8ed5b739132308c81ac05ffeb760d2a7f30e08a9f90e0"
CONTEXT = 512


class Missing(Exception):
    """The peer can't be had here."""


class Batch(ctypes.Structure):
    """`llama_batch`, passed by value."""

    _fields_ = (
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.c_void_p),
        ("embd", ctypes.c_void_p),
        ("pos", ctypes.c_void_p),
        ("n_seq_id", ctypes.c_void_p),
        ("seq_id", ctypes.c_void_p),
        ("logits", ctypes.c_void_p),
    )


class Parameters(ctypes.Structure):
    """Parameters whose defaults we take: more room than the library's structures need.

    Of a context's only the first three numbers are changed: context, batch and micro-batch length.
    """

    _fields_ = (("numbers", ctypes.c_uint32 * 256),)


def fetch(folder: Path) -> Path:
    """The folder of the peer's libraries.

    Raises:
        Missing: There is no npm, no such package, or its hash is wrong.
    """
    target = folder / SHA256[:16]
    if not target.is_dir():
        npm = shutil.which("npm")
        if npm is None:
            raise Missing("npm is not installed")
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [npm, "pack", "--silent", PACKAGE],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        archives = list(folder.glob("*.tgz"))
        if done.returncode != 0 or not archives:
            raise Missing(f"npm pack {PACKAGE}: {done.stderr.strip()[-300:]}")
        found = hashlib.sha256(archives[0].read_bytes()).hexdigest()
        if found != SHA256:
            archives[0].unlink()
            raise Missing(f"{PACKAGE} has sha256 {found}, expected {SHA256}")
        part = target.with_suffix(".part")
        with tarfile.open(archives[0]) as archive:
            archive.extractall(part, filter="data")
        part.rename(target)
        archives[0].unlink()
    (library,) = target.rglob("libllama.v*.so")
    return library.parent


def open_library(folder: Path) -> ctypes.CDLL:
    """Load the library and its code for this CPU."""
    ggml = ctypes.CDLL(str(next(folder.glob("libggml.v*.so"))), ctypes.RTLD_GLOBAL)
    ggml.ggml_backend_load_all_from_path(str(folder).encode())
    llama = ctypes.CDLL(str(next(folder.glob("libllama.v*.so"))))
    pointers = ("llama_model_load_from_file", "llama_init_from_model", "llama_get_memory")
    for name in (*pointers, "llama_get_logits_ith", "llama_model_get_vocab"):
        getattr(llama, name).restype = ctypes.c_void_p
    llama.llama_model_default_params.restype = Parameters
    llama.llama_context_default_params.restype = Parameters
    llama.llama_batch_get_one.restype = Batch
    llama.llama_batch_get_one.argtypes = (ctypes.c_void_p, ctypes.c_int32)
    llama.llama_decode.argtypes = (ctypes.c_void_p, Batch)
    llama.llama_model_load_from_file.argtypes = (ctypes.c_char_p, Parameters)
    llama.llama_init_from_model.argtypes = (ctypes.c_void_p, Parameters)
    llama.llama_memory_clear.argtypes = (ctypes.c_void_p, ctypes.c_bool)
    llama.llama_set_n_threads.argtypes = (ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32)
    llama.llama_get_logits_ith.argtypes = (ctypes.c_void_p, ctypes.c_int32)
    llama.llama_vocab_n_tokens.argtypes = (ctypes.c_void_p,)
    for name in ("llama_get_memory", "llama_synchronize", "llama_model_get_vocab"):
        getattr(llama, name).argtypes = (ctypes.c_void_p,)
    return llama


def peer(folder: Path, model: Path, threads: int) -> Figures:
    """llama.cpp's side: the same windows as farm-runner's."""
    import numpy as np

    llama = open_library(folder)
    wall, cpu = time.perf_counter(), time.process_time()
    llama.llama_backend_init()
    loaded = llama.llama_model_load_from_file(
        str(model).encode(), llama.llama_model_default_params()
    )
    settings = llama.llama_context_default_params()
    if tuple(settings.numbers[:3]) != (512, 2048, 512):
        raise SystemExit("this llama.cpp has other context parameters than are known here")
    settings.numbers[:3] = [CONTEXT, CONTEXT, CONTEXT]
    context = llama.llama_init_from_model(loaded, settings)
    if not loaded or not context:
        raise SystemExit(f"llama.cpp can't open {model}")
    llama.llama_set_n_threads(context, threads, threads)
    load, load_cpu = time.perf_counter() - wall, time.process_time() - cpu
    vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(loaded))
    ids = ((np.arange(PREFILL, dtype=np.int64) * 7919 + 11) % 4096).astype(np.int32)

    def feed(tokens: np.ndarray[tuple[int], np.dtype[np.int32]]) -> int:
        if llama.llama_decode(context, llama.llama_batch_get_one(tokens.ctypes.data, len(tokens))):
            raise SystemExit("llama_decode failed")
        llama.llama_synchronize(context)
        address = llama.llama_get_logits_ith(context, -1)
        logits = np.ctypeslib.as_array(
            ctypes.cast(address, ctypes.POINTER(ctypes.c_float)), (vocabulary,)
        )
        return int(logits.argmax())

    def clear() -> None:
        llama.llama_memory_clear(llama.llama_get_memory(context), True)

    def prefill() -> None:
        clear()
        feed(ids)

    def decode() -> None:
        clear()
        token = int(ids[0])
        for _ in range(DECODE):
            token = feed(np.array([token], np.int32))

    return {
        **window(prefill, PREFILL, "prefill"),
        **window(decode, DECODE, "decode"),
        "load": load,
        "load_cpu": load_cpu,
        "peak_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def weights() -> Path:
    """The GGUF that the .pte was exported from."""
    from farm.core.artifact import ModelSource
    from farm.paths import farm_home, model_cache
    from models.sources import open_source

    cache = model_cache(farm_home())
    open_source(ModelSource("smollm2-135m"), cache, lambda _done, _total: None)
    (found,) = (cache / "smollm2-135m").glob("*.gguf")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pte", type=Path)
    parser.add_argument("--pairs", type=int, default=6, help="launches of each side and threads")
    parser.add_argument("--peer", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--library", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer is not None:
        print(json.dumps(peer(options.library, options.model, options.peer)))
        return
    from farm.paths import farm_home

    try:
        library = fetch(farm_home() / "peers" / "llama.cpp")
    except Missing as error:
        note(f"not run: {error}")
        empty: dict[str, object] = {"benchmark": "llama_cpp", "figures": {}, "ratios": {}}
        print(json.dumps({**empty, "targets": TARGETS, "met": False, "not_run": str(error)}))
        return
    model, pte = weights(), options.pte or artifact(ROOT)

    def llama_cpp(threads: int) -> Figures:
        paths = ["--library", str(library), "--model", str(model)]
        return run_child([__file__, "--peer", str(threads), *paths])

    farm = partial(run_farm, pte, tuned=True)
    duels = {n: duel(farm, llama_cpp, n, options.pairs) for n in THREADS}
    print(json.dumps(document("llama_cpp", "llama.cpp", duels, TARGETS)))


if __name__ == "__main__":
    main()
