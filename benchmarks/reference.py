"""The eager reference layer by layer against the same model held at once: peak memory, equality.

A seeded model of Qwen2.5-1.5B's shape, saved as a folder of safetensors in bfloat16 (3.1 GB), 64
tokens. Prints a table and, as its last line, one JSON document.

    python benchmarks/reference.py [--folder FOLDER]

FOLDER keeps the checkpoint for the next time.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

TOKENS = tuple((7919 * index) % 150_000 for index in range(64))
LAYERS, DIM, HEADS, KV_HEADS, HEAD_DIM, HIDDEN, VOCAB = 28, 1536, 12, 2, 128, 8960, 151_936
#: Bytes in float32.
LAYER_BYTES = 4 * (DIM * 2 * (HEADS + KV_HEADS) * HEAD_DIM + 3 * DIM * HIDDEN)
TABLE_BYTES = 4 * VOCAB * DIM
#: Upper bounds: bytes of the layered peak over two layers, the table and 1 GB; logits apart.
TARGETS = {"layered_peak_to_bound": 1.0, "max_abs_difference": 0.0}

CONFIG = {
    "model_type": "qwen2",
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_size": DIM,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "intermediate_size": HIDDEN,
    "vocab_size": VOCAB,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "tie_word_embeddings": True,
}


def save(folder: Path) -> None:
    """Write the checkpoint, one file for each layer."""
    import torch
    from safetensors.torch import save_file

    from models.checkpoint import layer_tensors, outer_tensors
    from models.config import ModelConfig
    from models.reference.peer import hub_name
    from models.sources.seeded import SeededCheckpoint

    config = ModelConfig(
        architecture="qwen2",
        dim=DIM,
        layers=LAYERS,
        heads=HEADS,
        kv_heads=KV_HEADS,
        head_dim=HEAD_DIM,
        hidden=HIDDEN,
        vocab=VOCAB,
        norm_eps=1e-6,
        rope_theta=1e6,
        rope_pairing="half",
        max_context=32768,
        tied=True,
        qkv_bias=True,
    )
    model = SeededCheckpoint(config, 3)
    groups = [list(layer_tensors(config, layer)) for layer in range(LAYERS)]
    where: dict[str, str] = {}
    for index, names in enumerate([list(outer_tensors(config)), *groups]):
        file = f"model-{index:05d}-of-{LAYERS + 1:05d}.safetensors"
        tensors = {hub_name(name): model.tensor(name).to(torch.bfloat16) for name in names}
        save_file(tensors, folder / file)
        where |= dict.fromkeys(tensors, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    (folder / "tokenizer.json").write_text(model.tokenizer.json)
    (folder / "config.json").write_text(json.dumps(CONFIG))


def child(how: str, folder: Path, target: Path) -> None:
    """Compute logits one way and print what it took."""
    from farm.core.artifact import ModelSource
    from models.sources import open_source

    source = ModelSource("seeded", kind="hf", path=str(folder))
    model = open_source(source, target.parent, lambda _done, _total: None)
    started = time.monotonic()
    if how == "layered":
        from models.reference.logits import eager_logits

        eager_logits(model, None, TOKENS, target)
    else:
        plain(model, target)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(
        json.dumps(
            {
                "peak": usage.ru_maxrss * 1024,
                "cpu_s": usage.ru_utime + usage.ru_stime,
                "wall_s": time.monotonic() - started,
            }
        )
    )


def plain(model: Any, target: Path) -> None:
    """The same modules, every layer of them in memory before the first runs."""
    import torch

    from models.eager.decoder import RmsNorm, attend
    from models.eager.parts import PartBuilder
    from models.eager.rope import rope_tables

    config = model.config
    with torch.no_grad():
        builder = PartBuilder(config, model.tensor, lambda _name: None, eager=True)
        layers = [(builder.pre(index), builder.post(index)) for index in range(config.layers)]
        table = model.tensor("tok_embeddings.weight").float()
        cos, sin = (
            rows.view(1, -1, 1, config.head_dim) for rows in rope_tables(config, len(TOKENS))
        )
        x = table[torch.tensor([TOKENS])]
        for pre, post in layers:
            x = post(attend(*pre(x, cos, sin)), x)
        x = RmsNorm(model.tensor("norm.weight"), config.norm_eps)(x)
        target.write_bytes(torch.nn.functional.linear(x[0], table).numpy().tobytes())


def start_child(how: str, folder: Path, target: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", how, str(folder), str(target)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def run(folder: Path) -> bool:
    """Measure both and print."""
    import numpy

    if not (folder / "config.json").exists():
        print("writing a seeded checkpoint of 1.5B weights", file=sys.stderr, flush=True)
        save(folder)
    with tempfile.TemporaryDirectory(prefix="farm-reference-") as name:
        files = {how: Path(name) / f"{how}.f32" for how in ("layered", "plain")}
        found = {how: start_child(how, folder, file) for how, file in files.items()}
        layered, whole = (numpy.fromfile(file, "<f4") for file in files.values())
    difference = float(numpy.abs(layered - whole).max())
    bound = 2 * LAYER_BYTES + TABLE_BYTES + 10**9
    print(f"{'':10}{'peak RSS':>12}{'CPU s':>10}{'wall s':>10}")
    for how, cost in found.items():
        row = f"{cost['peak'] / 1e9:>9.2f} GB{cost['cpu_s']:>10.1f}{cost['wall_s']:>10.1f}"
        print(f"{how:10}{row}")
    print(f"bound     {bound / 1e9:>9.2f} GB: two layers, the table in float32, and 1 GB")
    print(f"logits {len(TOKENS)} x {VOCAB}: greatest difference {difference:.3g},", end=" ")
    print(f"standard deviation {float(whole.std()):.3g}")
    ratios = {
        "layered_peak_to_bound": found["layered"]["peak"] / bound,
        "max_abs_difference": difference,
    }
    met = all(value <= TARGETS[name] for name, value in ratios.items())
    figures = {
        **{f"{how}_{key}": value for how, cost in found.items() for key, value in cost.items()},
        "bound_bytes": bound,
        "logits_std": float(whole.std()),
    }
    document = {"benchmark": "reference", "figures": figures, "ratios": ratios}
    print(json.dumps({**document, "targets": TARGETS, "met": met}))
    return met


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, help="keeps the checkpoint")
    parser.add_argument("--child", nargs=3, metavar=("HOW", "FOLDER", "TARGET"))
    options = parser.parse_args()
    if options.child is not None:
        how, folder, target = options.child
        child(how, Path(folder), Path(target))
        return 0
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
        return 0 if run(options.folder) else 1
    with tempfile.TemporaryDirectory(prefix="farm-seeded-") as name:
        return 0 if run(Path(name)) else 1


if __name__ == "__main__":
    sys.exit(main())
