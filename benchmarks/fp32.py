"""How far the fp32 recipe is from eager, from an fp64 model, and why: SmolLM2-135M, 256 tokens.

Ours is the artifact in farm's native runner (`farm run`, local device); the peer is the same
artifact in ExecuTorch's own Python runtime with its own attention operator. Beside them stands
eager with every linear summed as XNNPACK would do it, with one accumulator along a row of weights:
the artifact has its rows in pieces.
Prints a table and, as its last line, one JSON document. Minutes on two cores.

    python benchmarks/fp32.py
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

MODEL, RECIPE, TOKENS = "smollm2-135m", "xnnpack-fp32", 256
RUNTIMES = ("farm-runner", "stock runtime")
#: Largest difference to eager, as farm reports it and of each runtime here; ours over the peer's.
TARGETS = {"farm": 1e-4, **dict.fromkeys(RUNTIMES, 1e-4), "over_peer": 1.1}
CONFIG = f"""
name: fp32
models: [{MODEL}]
matrix: {{recipe: [{RECIPE}], threads: [1]}}
devices: [{{each: "transport=local"}}]
workload: {{launches: 2, max_launches: 2, cold_launches: 0, repetitions: 1, budget_s: 20}}
correctness: {{tokens: {TOKENS}}}
"""

#: Multiplies activations [S, in] by weights [out, in].
Linear = Callable[[Any, Any], Any]


@dataclass
class Inputs:
    """The model and the text."""

    checkpoint: Any
    tokens: tuple[int, ...]


def inputs() -> Inputs:
    from farm.core.artifact import ModelSource
    from farm.paths import farm_home, model_cache
    from models.sources import open_source
    from models.texts import forced_tokens, read_text
    from models.tokenizer import Tokenizer

    cache = model_cache(farm_home())
    checkpoint = open_source(ModelSource(MODEL), cache, lambda _done, _total: None)
    text = read_text("builtin")
    return Inputs(checkpoint, forced_tokens(Tokenizer(checkpoint.tokenizer), text, TOKENS))


def blas(x: Any, weights: Any) -> Any:
    """Eager PyTorch's own order of sums."""
    return x @ weights.T


def one_accumulator(x: Any, weights: Any) -> Any:
    """XNNPACK's order: product after product is added to one sum."""
    import torch

    columns, rows = x.T.contiguous(), weights.T.contiguous()
    found = torch.zeros(x.shape[0], weights.shape[0])
    for column, row in zip(columns, rows, strict=True):
        found.addr_(column, row)
    return found


def logits(given: Inputs, dtype: Any, linear: Linear) -> Any:
    """Logits of every position, [S, vocab] in float64, computed in dtype."""
    import torch

    from models.eager.rope import rope_tables, swap_matrix

    config, count = given.checkpoint.config, len(given.tokens)
    cos, sin = (table.to(dtype)[:, None] for table in rope_tables(config, count))
    swap = swap_matrix(config).to(dtype)
    hidden = torch.full((count, count), float("-inf"), dtype=dtype).triu(1)

    def read(name: str) -> Any:
        return given.checkpoint.tensor(name).to(dtype)

    def norm(x: Any, name: str) -> Any:
        return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + config.norm_eps) * read(name)

    table = read("tok_embeddings.weight")
    x = table[list(given.tokens)]
    for layer in range(config.layers):
        name = f"layers.{layer}."
        h = norm(x, name + "attention_norm.weight")
        q, k, v = (
            linear(h, read(f"{name}attention.w{kind}.weight")).view(count, -1, config.head_dim)
            for kind in "qkv"
        )
        q, k = (head * cos + head @ swap.T * sin for head in (q, k))
        k, v = (head.repeat_interleave(config.heads // config.kv_heads, 1) for head in (k, v))
        scores = torch.einsum("qhd,khd->hqk", q, k) * config.head_dim**-0.5 + hidden
        mixed = torch.einsum("hqk,khd->qhd", scores.softmax(-1), v).reshape(count, -1)
        x = x + linear(mixed, read(name + "attention.wo.weight"))
        h = norm(x, name + "ffn_norm.weight")
        gate = torch.nn.functional.silu(linear(h, read(name + "feed_forward.w1.weight")))
        up = linear(h, read(name + "feed_forward.w3.weight"))
        x = x + linear(gate * up, read(name + "feed_forward.w2.weight"))
    x = norm(x, "norm.weight")
    output = table if config.tied else read("output.weight")
    return torch.cat([linear(x, rows) for rows in output.split(4096)], dim=1).double()


def stock_runtime(program: Path, given: Inputs) -> Any:
    """Logits of the artifact in ExecuTorch's Python runtime, token by token."""
    import torch
    from executorch.extension.llm.custom_ops import custom_ops  # noqa: F401
    from executorch.kernels import quantized  # noqa: F401
    from executorch.runtime import Runtime

    loaded = Runtime.get().load_program(program)
    forward = loaded.load_method("forward")
    assert forward is not None
    rows = [
        forward.execute((torch.tensor([[token]]), torch.tensor([index])))[0].view(-1).double()
        for index, token in enumerate(given.tokens)
    ]
    return torch.stack(rows)


def native_run(folder: Path) -> tuple[float, Any, Path]:
    """What farm says is the largest difference to eager, the runner's logits, and the artifact."""
    import numpy
    import torch

    from farm.paths import farm_home, store_root
    from farm.store.objects import ContentStore

    (folder / "fp32.yaml").write_text(CONFIG)
    command = [sys.executable, "-m", "farm", "run", "fp32.yaml", "--cluster", "none"]
    words = ["--live", "off", "--out", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, *words], stdout=sys.stderr, cwd=folder, env=environment, check=False
    )
    (result,) = json.loads((folder / "latest" / "report.json").read_text())["results"]
    if result["correctness"] is None:
        raise SystemExit(f"farm run ended with {done.returncode}: {result['reason']}")
    errors = [
        stage["max_abs_error"]
        for stage in result["correctness"]["stages"]
        if (stage["to"], stage["path"]) == ("host_pte", "decode")
    ]
    store = ContentStore(store_root(farm_home()))
    (own,) = (folder / "latest" / "attempts").glob("*/1/launch-0.stdout")
    lines = [json.loads(line) for line in own.read_text().splitlines()]
    (decoded,) = (x for x in lines if (x["type"], x.get("name")) == ("logits", "decode"))
    values = numpy.fromfile(store.path(decoded["sha256"]), "<f4")
    native = torch.from_numpy(values).view(decoded["rows"], decoded["cols"]).double()
    return max(errors), native, store.path(result["artifact"]["sha256"])


def run(folder: Path) -> bool:
    """Measure and print."""
    import torch

    own, native, artifact = native_run(folder)
    given = inputs()
    with torch.no_grad():
        exact = logits(given, torch.float64, blas)
        eager = logits(given, torch.float32, blas)
        rows = {
            "eager": eager,
            "eager, one accumulator": logits(given, torch.float32, one_accumulator),
            "artifact, stock runtime": stock_runtime(artifact, given),
            "artifact, farm-runner": native,
        }
    figures: dict[str, float] = {"farm_max_abs_error": own}
    print(f"{'':26}{'to fp64: rms':>14}{'max':>10}{'to eager: max':>16}{'rows > 1e-4':>14}")
    for name, found in rows.items():
        off, apart = (found - exact).abs(), (found - eager).abs().amax(1)
        values = {
            "fp64_rms": float((off * off).mean().sqrt()),
            "fp64_max": float(off.max()),
            "eager_max": float(apart.max()),
            "eager_rows_above": float((apart > 1e-4).sum()),
        }
        print(f"{name:26}{values['fp64_rms']:>14.2e}{values['fp64_max']:>10.2e}", end="")
        print(f"{values['eager_max']:>16.2e}{values['eager_rows_above']:>14.0f}")
        figures |= {f"{name}: {key}": value for key, value in values.items()}
    print(f"as farm reports it, to its own eager: {own:.2e}")
    ours, peer = (figures[f"artifact, {name}: eager_max"] for name in RUNTIMES)
    ratios = {"farm": own, "farm-runner": ours, "stock runtime": peer, "over_peer": ours / peer}
    met = all(ratios[name] <= bound for name, bound in TARGETS.items())
    document = {"benchmark": "fp32", "figures": figures, "ratios": ratios, "targets": TARGETS}
    print(json.dumps({**document, "met": met}))
    return met


def main() -> int:
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    with tempfile.TemporaryDirectory(prefix="farm-fp32-") as folder:
        return 0 if run(Path(folder)) else 1


if __name__ == "__main__":
    sys.exit(main())
