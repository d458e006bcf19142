"""Perplexity of our eager fp32 model against transformers', for each family of architectures.

Random models are made and saved by transformers and read as any folder of the hub; both compute the
built-in text, by default its first 4,000 tokens, or as many as farm takes of a model whose rotary
scaling changes after fewer. Prints a row each and, as its last line, one JSON document.

    python benchmarks/families.py [--tokens 4000] [--only WORD]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

#: Largest relative difference of perplexity.
_MOST = 1e-3


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tokens", type=int, default=4000)
    parser.add_argument("--only", default="", help="families whose name has this word")
    options = parser.parse_args()
    from models.sources.hf_families import FAMILIES
    from tests.integration.models.architectures import ARCHITECTURES
    from tests.integration.models.checkpoints import SHAPES

    shapes = {name: one for name, one in (SHAPES | ARCHITECTURES).items() if options.only in name}
    rows: list[dict[str, Any]] = []
    kinds: set[str] = set()
    head = f"{'shape':<18} {'family':<13} {'transformers':>13} {'farm':>13}"
    print(f"{head} {'off by':>9} {'tokens':>6}")
    for name, (family, extra) in shapes.items():
        kind, theirs, ours, tokens = _perplexities(family, extra, options.tokens)
        off = abs(ours / theirs - 1)
        row = {"name": name, "family": kind, "peer": theirs, "ours": ours, "off": off}
        rows.append(row | {"tokens": tokens})
        kinds.add(kind)
        print(
            f"{name:<18} {kind:<13} {theirs:13.6f} {ours:13.6f} {off:9.1e} {tokens:6}", flush=True
        )
    worst = max(rows, key=lambda row: row["off"])
    missing = sorted(set(FAMILIES) - kinds)
    found = {"shapes": len(rows), "families": len(kinds), "worst": worst["off"]}
    document = {
        "benchmark": "families",
        "tokens": options.tokens,
        "figures": found | {"worst_shape": worst["name"]},
        "ratios": {},
        "targets": {"worst": _MOST},
        "missing": missing,
        "rows": rows,
        "met": worst["off"] <= _MOST and not missing and options.tokens >= 4000,
    }
    print(json.dumps(document))


def _perplexities(
    family: str, extra: dict[str, object], count: int
) -> tuple[str, float, float, int]:
    """Name of a family, and the perplexity by transformers and by us."""
    import numpy
    import torch

    from farm.core.artifact import ModelSource
    from models.reference.anchors import perplexity
    from models.reference.logits import eager_logits
    from models.sources import open_source
    from models.texts import forced_tokens, read_text
    from models.tokenizer import Tokenizer, byte_tokenizer
    from tests.integration.models import checkpoints as made

    text = forced_tokens(Tokenizer(byte_tokenizer(made.VOCAB)), read_text("builtin"), count)
    context = {"max_position_embeddings": 4096}
    with tempfile.TemporaryDirectory() as name, made.library_noise(), torch.no_grad():
        folder, target = Path(name) / "model", Path(name) / "logits.f32"
        model = made.make(family, **context | extra)
        made.save(model, folder)
        source = ModelSource("ours", kind="hf", path=str(folder))
        checkpoint = open_source(source, Path(name) / "cache", lambda _done, _total: None)
        tokens = text[: checkpoint.config.max_context]
        model.set_attn_implementation("eager")
        theirs = perplexity(model(torch.tensor([tokens])).logits[0].float().numpy(), tokens)
        shape = eager_logits(checkpoint, None, tokens, target)
        ours = perplexity(numpy.fromfile(target, "<f4").reshape(shape), tokens)
        kind: str = json.loads((folder / "config.json").read_text())["model_type"]
        return kind, theirs, ours, len(tokens)


if __name__ == "__main__":
    main()
