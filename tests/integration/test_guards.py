"""Guards on a model that is broken for real: it writes garbage, or its delegate is missing."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from models.texts import read_text
from models.tokenizer import byte_tokenizer
from tests.command import CONFIGS, Farm

pytestmark = pytest.mark.export

VOCAB, DIM = 512, 64
CONFIG = {
    "model_type": "llama",
    "hidden_size": DIM,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": DIM,
    "vocab_size": VOCAB,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
}
QUICK = (
    *("run", str(CONFIGS / "tiny.yaml"), "--cluster", "none", "--live", "off", "--quick"),
    *("--select", "transport=local", "--set", "gates={}", "--set", "matrix.recipe=[mine]"),
    *("--set", "correctness.tokens=64", "--set", "workload.prefill=[16]"),
)


def write_letter_counter(folder: Path) -> None:
    """Write a model that knows how frequent each token is and nothing else.

    Its perplexity is that of a model of language, and all stages agree; what it writes is the one
    most frequent token, for ever.
    """
    folder.mkdir()
    tokenizer = byte_tokenizer(VOCAB).json
    counts = Counter(Tokenizer.from_str(tokenizer).encode(read_text("builtin")).ids)
    seen = np.array([counts[token] + 0.01 for token in range(VOCAB)], np.float32)
    layer = "model.layers.0"
    square = np.zeros((DIM, DIM), np.float32)
    ones = np.ones(DIM, np.float32)
    save_file(
        {
            "model.embed_tokens.weight": np.ones((VOCAB, DIM), np.float32),
            "model.norm.weight": ones,
            "lm_head.weight": np.repeat(np.log(seen / seen.sum())[:, None] / DIM, DIM, axis=1),
            f"{layer}.input_layernorm.weight": ones,
            f"{layer}.post_attention_layernorm.weight": ones,
            f"{layer}.self_attn.q_proj.weight": square,
            f"{layer}.self_attn.k_proj.weight": square[: DIM // 2],
            f"{layer}.self_attn.v_proj.weight": square[: DIM // 2],
            f"{layer}.self_attn.o_proj.weight": square,
            f"{layer}.mlp.gate_proj.weight": square,
            f"{layer}.mlp.up_proj.weight": square,
            f"{layer}.mlp.down_proj.weight": square,
        },
        folder / "model.safetensors",
    )
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text(tokenizer)


def run(farm: Farm, model: str, base: str) -> tuple[int, dict[str, Any]]:
    recipe = f"recipes={{mine: {{base: {base}, max_context: 256, max_seq: 128}}}}"
    done = farm(*QUICK, "--set", f"models=[{{name: ours, {model}}}]", "--set", recipe)
    assert done.returncode in (1, 3), done.stdout + done.stderr
    (result,) = farm.report()["results"]
    return done.returncode, result


def test_a_model_that_writes_garbage_and_one_whose_delegate_is_missing(farm: Farm) -> None:
    write_letter_counter(farm.cwd / "counter")
    code, result = run(farm, f"hf: {farm.cwd}/counter", "portable-fp32")
    assert code == 1
    assert result["outcome"] == "failed"
    failed = [g for g in result["correctness"]["gates"] if g["passed"] is False]
    assert [gate["metric"] for gate in failed] == ["text"], "every comparison of numbers agrees"
    assert "garbage_text" in result["flags"]
    warm = [p for p in result["performance"] if p["regime"] == "warm"]
    assert {p["trust"] for p in warm} == {"invalid"}
    assert {p["guards"]["garbage_text"] for p in warm} == {"flagged"}
    assert {p["guards"]["backend"] for p in warm} == {"ok"}

    # The same program, handed over as made for XNNPACK: nothing in it goes there.
    entry = json.loads(farm("store", "list", "--json").stdout)["entries"]
    (pte,) = (dict(e["objects"])["model.pte"] for e in entry if e["recipe"] == "mine")
    store = next(farm.home.rglob(pte))
    model = f"pte: {store}, tokenizer: {farm.cwd}/counter/tokenizer.json"
    _, result = run(farm, model, "xnnpack-fp32")
    runner = result["runner"]
    assert (runner["backend_requested"], runner["backend_effective"]) == ("xnnpack", "portable")
    assert "backend" in result["flags"]
    warm = [p for p in result["performance"] if p["regime"] == "warm"]
    assert {p["trust"] for p in warm} == {"invalid"}
    assert {p["guards"]["backend"] for p in warm} == {"flagged"}
