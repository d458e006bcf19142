"""`executorch-tuned` against ExecuTorch's Python runtime with its custom operators.

It shows what could be gained; `as_shipped.py` shows what an app has, which is `executorch`.

The same .pte, thread pools of both sized to 1 and to 2, launches interleaved A B B A. Prints a
table and, as its last line, one JSON document. Without --pte the artifact of configs/llama_q4.yaml
is taken (exported when it isn't in the store).

    python benchmarks/runtime.py [--pte FILE] [--pairs 6]
"""

from __future__ import annotations

import argparse
import json
import sys
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
    run_child,
    run_farm,
    window,
)

THREADS = (1, 2)
TARGETS = {"decode": 1.10, "prefill": 1.05, "load": 1.0, "peak_rss": 1.0}


def run_stock(pte: Path, threads: int) -> Figures:
    """One launch of the Python runtime, in a process of its own."""
    return run_child([__file__, "--peer", str(threads), "--pte", str(pte)])


def peer(pte: Path, threads: int) -> Figures:
    """The stock runtime's side: the same windows as farm-runner's."""
    import resource

    import torch
    from executorch.extension.llm.custom_ops import custom_ops  # noqa: F401
    from executorch.extension.pybindings import portable_lib
    from executorch.kernels import quantized  # noqa: F401

    # Torch's own pool, used for matrix products inside the custom operators, would fight with the
    # runtime's for the cores: one thread is the best case of this peer.
    torch.set_num_threads(1)
    one = (torch.tensor([[1]]), torch.tensor([0]))
    wall, cpu = time.perf_counter(), time.process_time()
    portable_lib._unsafe_reset_threadpool(threads)
    module = portable_lib._load_for_executorch(str(pte))
    module.forward(one)
    first_wall, first_cpu = time.perf_counter(), time.process_time()
    module.forward(one)
    # The method is only loaded by its first call, which costs one token besides.
    load = (first_wall - wall) - (time.perf_counter() - first_wall)
    load_cpu = (first_cpu - cpu) - (time.process_time() - first_cpu)
    ids = (torch.arange(PREFILL, dtype=torch.int64) * 7919 + 11) % 4096
    prompt = ids.view(1, PREFILL)

    def feed(tokens: torch.Tensor, position: int) -> torch.Tensor:
        logits: torch.Tensor = module.forward((tokens, torch.tensor([position])))[0]
        return logits.view(-1, logits.shape[-1])[-1].argmax().view(1, 1)

    def prefill() -> None:
        feed(prompt, 0)

    def decode() -> None:
        token = prompt[:, :1]
        for position in range(1, DECODE + 1):
            token = feed(token, position)

    return {
        **window(prefill, PREFILL, "prefill"),
        **window(decode, DECODE, "decode"),
        "load": load,
        "load_cpu": load_cpu,
        "peak_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pte", type=Path)
    parser.add_argument("--pairs", type=int, default=6, help="launches of each side and pool size")
    parser.add_argument("--peer", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    pte = options.pte or artifact(ROOT)
    if options.peer is not None:
        print(json.dumps(peer(pte, options.peer)))
        return
    farm, stock = partial(run_farm, pte, tuned=True), partial(run_stock, pte)
    duels = {threads: duel(farm, stock, threads, options.pairs) for threads in THREADS}
    print(json.dumps(document("runtime", "stock", duels, TARGETS)))


if __name__ == "__main__":
    main()
