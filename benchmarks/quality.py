"""What recipes cost in quality, in eager PyTorch alone: no export, no device, a minute.

KL to fp32, perplexity and top-1 agreement of smollm2-135m (or `--model`) on the beginning of the
built-in text, teacher-forced. `farm recipes compare configs/recipes.yaml` has the same KL beside
size, memory and speed on devices. Prints a table and, as its last line, one JSON document.

With `--wide` it says which Linears a 4-bit recipe should keep at 8 bits (`wide` of a recipe): for
each kind of them, and for each layer, how much KL that alone saves for each further MB.

    python benchmarks/quality.py [--model NAME] [--tokens 160] [--wide] [RECIPE ...]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

RECIPES = (
    "xnnpack-8da4w",
    "xnnpack-8da4w-hqq",
    "xnnpack-8da4w-out8",
    "xnnpack-8da4w-hqq-out8",
    "xnnpack-8da4w-rot",
    "xnnpack-8da4w-rot-hqq-out8",
    "xnnpack-8da4w-emb4",
    "xnnpack-int8",
)


def log_probabilities(checkpoint: Any, recipe: Any, tokens: tuple[int, ...]) -> Any:
    """Of every next token, float64 [tokens, vocabulary]."""
    import numpy
    import torch

    from models.reference.logits import eager_logits

    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "logits.f32"
        shape = eager_logits(checkpoint, recipe, tokens, target)
        logits = torch.from_numpy(numpy.fromfile(target, "<f4").reshape(shape))
    return torch.log_softmax(logits.double(), -1)


class Remembered:
    """A checkpoint whose tensors are read once, in float32."""

    def __init__(self, inner: Any) -> None:
        self.config, self._inner = inner.config, inner
        self._read: dict[str, Any] = {}

    def tensor(self, name: str) -> Any:
        """Read one tensor."""
        if name not in self._read:
            self._read[name] = self._inner.tensor(name).float()
        return self._read[name]


def candidates(config: Any) -> list[str]:
    """Names for `wide`: each kind of Linear, and each layer."""
    from models.checkpoint import LINEARS

    return ["output", *LINEARS, *(f"layers.{layer}" for layer in range(config.layers))]


def try_wide(checkpoint: Any, recipe: Any, tokens: tuple[int, ...], plain: Any) -> dict[str, Any]:
    """KL of a recipe with each candidate at 8 bits, those first that save most for their size."""
    from models.eager import quantise
    from models.exporting.memory import artifact_bytes

    real, done = quantise.quantise_weight, {}

    def once(weight: Any, form: Any) -> Any:
        key = (weight.data_ptr(), weight.shape, form)
        if key not in done:
            done[key] = real(weight, form)
        return done[key]

    config, found = checkpoint.config, {}
    quantise.quantise_weight = once
    base = divergence(plain, log_probabilities(checkpoint, recipe, tokens))
    for name in candidates(config):
        widened = replace(recipe, wide=(*recipe.wide, name))
        kl = divergence(plain, log_probabilities(checkpoint, widened, tokens))
        more = (artifact_bytes(config, widened) - artifact_bytes(config, recipe)) / 1e6
        found[name] = {"kl": kl, "saved": base - kl, "more_mb": more}
        print(f"{name:28} {kl:>8.4f} {base - kl:>8.4f} saved {more:>7.2f} MB more", flush=True)
    best = sorted(found, key=lambda name: -found[name]["saved"] / max(found[name]["more_mb"], 1e-9))
    return {"kl": base, "candidates": {name: found[name] for name in best}}


def divergence(plain: Any, rows: Any) -> float:
    """Mean KL."""
    return float((plain.exp() * (plain - rows)).sum(-1).mean())


def perplexity(rows: Any, tokens: tuple[int, ...]) -> float:
    """Of the text under these log probabilities."""
    import torch

    following = torch.tensor(tokens[1:]).view(-1, 1)
    return float((-rows[:-1].gather(1, following).mean()).exp())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipes", nargs="*", default=RECIPES)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--tokens", type=int, default=160)
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch")
    parser.add_argument("--wide", action="store_true", help="which Linears to keep at 8 bits")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    import torch

    from farm.core.artifact import ModelSource
    from farm.paths import farm_home, model_cache
    from models import recipes
    from models.lowering.checks import check_recipe
    from models.sources import open_source
    from models.texts import forced_tokens, read_text
    from models.tokenizer import Tokenizer

    # More of them wait for each other on a busy machine.
    torch.set_num_threads(options.threads)
    source, cache = ModelSource(options.model), model_cache(farm_home())
    checkpoint = open_source(source, cache, lambda _done, _total: None)
    text = read_text("builtin")
    tokens = forced_tokens(Tokenizer(checkpoint.tokenizer), text, options.tokens)
    plain = log_probabilities(checkpoint, None, tokens)
    found = {"fp32": {"perplexity": perplexity(plain, tokens)}}
    print(f"{'recipe':28} {'KL':>8} {'perplexity':>11} {'top-1':>6}")
    print(f"{'fp32':28} {0:>8.4f} {found['fp32']['perplexity']:>11.3f} {1:>6.2f}", flush=True)
    if options.wide:
        recipe = recipes.get(options.recipes[0])
        tried = try_wide(Remembered(checkpoint), recipe, tokens, plain)
        print(
            json.dumps(
                {"benchmark": "wide", "model": options.model, "recipe": recipe.name, **tried}
            )
        )
        return
    for name in options.recipes:
        recipe = recipes.get(name)
        check_recipe(checkpoint.config, recipe)
        rows = log_probabilities(checkpoint, recipe, tokens)
        kl = divergence(plain, rows)
        top = float((plain.argmax(-1) == rows.argmax(-1)).float().mean())
        found[name] = {"kl": kl, "perplexity": perplexity(rows, tokens), "top1": top}
        words = f"{kl:>8.4f} {found[name]['perplexity']:>11.3f} {top:>6.2f}"
        print(f"{name:28} {words}", flush=True)
    print(json.dumps({"benchmark": "quality", "model": options.model, "recipes": found}))


if __name__ == "__main__":
    main()
