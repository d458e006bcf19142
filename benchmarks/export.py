"""Our export against stock export_llm: CPU seconds, peak RSS, bytes of the weights, quality, speed.

SmolLM2-135M, recipe xnnpack-8da4w, the same options for both; ours, stock, ours. Then the cost of
ours at 6, 12, 24 and 30 layers, and the fp32 recipe against eager. Stock takes about 20 minutes
on two cores. Prints tables and, as its last line, one JSON document.

    python benchmarks/export.py [--stock FILE --stock-cpu-s N --stock-rss-bytes N] [--keep FOLDER]

With --stock a program that stock made earlier is compared instead of making it again.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.method.paired import duel, note, run_farm  # noqa: E402

MODEL, RECIPE = "smollm2-135m", "xnnpack-8da4w"
LAYERS = (6, 12, 24, 30)
TOKENS = 256
THREADS, PAIRS = (1, 2), 8
SPEEDS = tuple(f"{name}@{threads}" for threads in THREADS for name in ("prefill", "decode"))
#: Upper bounds, except the speeds.
TARGETS = {
    "cpu_s": 0.2,
    "peak_rss": 0.5,
    "kl_to_fp32": 1.02,
    **dict.fromkeys(SPEEDS, 1.0),
    "cpu_30_to_6_layers": 5.0,
    "fp32_max_abs_error": 1e-4,
}


@dataclass
class Cost:
    """What a process and its children used."""

    cpu_s: float
    peak_rss_bytes: int
    wall_s: float


def measured(command: list[str], log: Path, cwd: Path) -> Cost:
    """Run a command to its end and measure its whole process tree."""
    started = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, cwd=cwd, env=environment
        )
        _, status, used = os.wait4(process.pid, 0)
    if status:
        tail = log.read_text(errors="replace").splitlines()[-5:]
        sys.exit(f"{command[:4]} failed:\n" + "\n".join(tail))
    cpu_s = used.ru_utime + used.ru_stime
    return Cost(round(cpu_s, 1), used.ru_maxrss * 1024, round(time.monotonic() - started, 1))


def checkpoint(layers: int | None = None) -> Any:
    """The model, cut to its first layers when asked."""
    from farm.core.artifact import ModelSource
    from farm.paths import farm_home, model_cache
    from models.sources import open_source

    found = open_source(ModelSource(MODEL), model_cache(farm_home()), lambda _d, _t: None)
    if layers is not None:
        found.config = replace(found.config, layers=layers)
    return found


def child(recipe: str, layers: int, program: Path) -> None:
    """Export in this process: what `measured` starts."""
    from models import recipes
    from models.lowering.engine import export_program

    export_program(checkpoint(layers), recipes.get(recipe), program, lambda _n, _d: None)


def export_ours(folder: Path, name: str, recipe: str = RECIPE, layers: int = 30) -> Cost:
    """Our export in a process of its own."""
    target = folder / f"{name}.pte"
    command = [sys.executable, str(Path(__file__).resolve()), "--child", recipe, str(layers)]
    cost = measured([*command, str(target)], folder / f"{name}.log", ROOT)
    note(f"ours, {recipe}, {layers} layers: {cost.cpu_s} CPU s, {cost.wall_s} s")
    return cost


def export_stock(folder: Path) -> Cost:
    """The stock command line, on the same weights and options."""
    import yaml

    from models import recipes
    from models.lowering.stock import save_checkpoint, stock_keys

    model = checkpoint()
    save_checkpoint(model, folder)
    settings: dict[str, Any] = {}
    for key, value in stock_keys(model, recipes.get(RECIPE), folder).items():
        *path, last = key.split(".")
        place = settings
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    config = folder / "stock.yaml"
    config.write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "executorch.extension.llm.export.export_llm"]
    cost = measured([*command, "--config", str(config)], folder / "stock.log", folder)
    note(f"stock: {cost.cpu_s} CPU s, {cost.wall_s} s")
    return cost


def named_data(path: Path) -> dict[str, bytes]:
    """Constants of a program's delegates by name."""
    from executorch.exir._serialize._program import deserialize_pte_binary

    data = deserialize_pte_binary(path.read_bytes()).named_data
    return {key: bytes(data.buffers[item.buffer_index]) for key, item in data.pte_data.items()}


class Program:
    """A program in the stock Python runtime, one thread."""

    def __init__(self, path: Path) -> None:
        import torch
        from executorch.extension.llm.custom_ops import custom_ops  # noqa: F401
        from executorch.extension.pybindings import portable_lib
        from executorch.kernels import quantized  # noqa: F401
        from executorch.runtime import Runtime

        portable_lib._unsafe_reset_threadpool(1)
        torch.set_num_threads(1)
        self._torch = torch
        self._forward = Runtime.get().load_program(path).load_method("forward")

    def run(self, tokens: list[int], position: int) -> Any:
        """Logits of the last token."""
        tensor = self._torch.tensor
        return self._forward.execute((tensor([tokens]), tensor([position])))[0].view(-1)

    def logits(self, tokens: tuple[int, ...]) -> Any:
        """Logits of every token, fed one at a time."""
        rows = [self.run([token], index).clone() for index, token in enumerate(tokens)]
        return self._torch.stack(rows)


def speeds(ours: Path, stock: Path) -> dict[str, float]:
    """Median ratio of ours to stock on the device's runtime, farm-runner: launches A B B A."""
    found = {}
    for threads in THREADS:
        pairs = duel(partial(run_farm, ours), partial(run_farm, stock), threads, PAIRS)
        for name in ("prefill", "decode"):
            found[f"{name}@{threads}"] = pairs.ratio(name).median
    return found


def quality(folder: Path, ours: Path, stock: Path, fp32: Path) -> dict[str, float]:
    """Divergence from eager_fp32 of both, perplexities, speeds, and the fp32 program's error."""
    import numpy
    import torch

    from models.reference.logits import eager_logits
    from models.texts import forced_tokens, read_text
    from models.tokenizer import Tokenizer

    model = checkpoint()
    tokens = forced_tokens(Tokenizer(model.tokenizer), read_text("builtin"), TOKENS)
    shape = eager_logits(model, None, tokens, folder / "eager.f32")
    eager = torch.from_numpy(numpy.fromfile(folder / "eager.f32", "<f4").reshape(shape))
    programs = {"ours": Program(ours), "stock": Program(stock)}
    figures: dict[str, float] = {"perplexity_eager_fp32": perplexity(eager, tokens)}
    for name, program in programs.items():
        logits = program.logits(tokens)
        figures[f"kl_to_fp32_{name}"] = kl_mean(eager, logits)
        figures[f"perplexity_{name}"] = perplexity(logits, tokens)
    figures |= speeds(ours, stock)
    error = (Program(fp32).logits(tokens[:64]) - eager[:64]).abs().max()
    return figures | {"fp32_max_abs_error": float(error)}


def kl_mean(expected: Any, found: Any) -> float:
    """Mean divergence of rows of logits, nats."""
    first, second = (x.double().log_softmax(-1) for x in (expected, found))
    return float((first.exp() * (first - second)).sum(-1).mean())


def perplexity(logits: Any, tokens: tuple[int, ...]) -> float:
    """Perplexity of the text under teacher-forced logits."""
    import torch

    following = torch.tensor(tokens[1:]).unsqueeze(1)
    return float(logits[:-1].double().log_softmax(-1).gather(1, following).mean().neg().exp())


def print_layers(costs: dict[int, Cost]) -> None:
    print(f"\n{'layers':>8}{'CPU s':>9}{'peak RSS':>12}")
    for layers, cost in costs.items():
        print(f"{layers:>8}{cost.cpu_s:>9.1f}{cost.peak_rss_bytes / 2**20:>9.0f} MiB")


def print_figures(ours: Cost, stock: Cost, figures: dict[str, float]) -> None:
    print(f"\n{'':26}{'ours':>12}{'stock':>12}{'ours/stock':>12}")

    def row(name: str, first: float, second: float) -> None:
        print(f"{name:26}{first:>12.4g}{second:>12.4g}{first / second:>12.3f}")

    row("CPU s", ours.cpu_s, stock.cpu_s)
    row("peak RSS MiB", ours.peak_rss_bytes / 2**20, stock.peak_rss_bytes / 2**20)
    row("KL to eager_fp32", figures["kl_to_fp32_ours"], figures["kl_to_fp32_stock"])
    row("perplexity", figures["perplexity_ours"], figures["perplexity_stock"])
    for name in SPEEDS:
        print(f"{f'{name} (threads)':26}{'':24}{figures[name]:>12.3f}")


def run(options: argparse.Namespace, folder: Path) -> bool:
    first = export_ours(folder, "ours")
    if options.stock is None:
        stock, stock_cost = folder / "stock.pte", export_stock(folder)
    else:
        stock = options.stock
        stock_cost = Cost(options.stock_cpu_s, options.stock_rss_bytes, 0.0)
    second = export_ours(folder, "again")
    ours = Cost(
        statistics.mean((first.cpu_s, second.cpu_s)),
        max(first.peak_rss_bytes, second.peak_rss_bytes),
        0.0,
    )
    export_ours(folder, "fp32", recipe="xnnpack-fp32")
    layers = {count: export_ours(folder, f"layers{count}", layers=count) for count in LAYERS}
    mine, theirs = named_data(folder / "ours.pte"), named_data(stock)
    equal = all(mine.get(key) == value for key, value in theirs.items())
    figures = quality(folder, folder / "ours.pte", stock, folder / "fp32.pte")
    ratios = {
        "cpu_s": ours.cpu_s / stock_cost.cpu_s,
        "peak_rss": ours.peak_rss_bytes / stock_cost.peak_rss_bytes,
        "kl_to_fp32": figures["kl_to_fp32_ours"] / figures["kl_to_fp32_stock"],
        **{name: figures[name] for name in SPEEDS},
        "cpu_30_to_6_layers": layers[30].cpu_s / layers[6].cpu_s,
        "fp32_max_abs_error": figures["fp32_max_abs_error"],
    }
    print_layers(layers)
    print_figures(ours, stock_cost, figures)
    print(f"\nstock's {len(theirs)} delegate constants (packed weights, scales) in ours: {equal}")
    met = equal and all(
        value >= TARGETS[name] if name in SPEEDS else value <= TARGETS[name]
        for name, value in ratios.items()
    )
    figures |= {
        "ours_cpu_s": ours.cpu_s,
        "stock_cpu_s": stock_cost.cpu_s,
        "ours_peak_rss_bytes": ours.peak_rss_bytes,
        "stock_peak_rss_bytes": stock_cost.peak_rss_bytes,
        "weights_byte_equal": float(equal),
        **{f"cpu_s_{count}_layers": cost.cpu_s for count, cost in layers.items()},
    }
    document = {"benchmark": "export", "figures": figures, "ratios": ratios, "targets": TARGETS}
    print(json.dumps({**document, "met": met}))
    return met


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--stock", type=Path, help="a program that stock made earlier")
    parser.add_argument("--stock-cpu-s", type=float, default=0.0)
    parser.add_argument("--stock-rss-bytes", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder that keeps programs and logs")
    parser.add_argument("--child", nargs=3, metavar=("RECIPE", "LAYERS", "PROGRAM"))
    options = parser.parse_args()
    if options.child is not None:
        recipe, layers, program = options.child
        child(recipe, int(layers), Path(program))
        return 0
    if options.stock and not (options.stock_cpu_s and options.stock_rss_bytes):
        parser.error("--stock needs --stock-cpu-s and --stock-rss-bytes")
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
        return 0 if run(options, options.keep) else 1
    with tempfile.TemporaryDirectory(prefix="farm-export-") as folder:
        return 0 if run(options, Path(folder)) else 1


if __name__ == "__main__":
    sys.exit(main())
