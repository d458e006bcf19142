"""The layered reference: bounded memory, and the same numbers as a model held at once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from models import known
from models.config import ModelConfig
from models.sources.seeded import SeededCheckpoint
from tests.integration.models import exports

pytestmark = pytest.mark.export

ROOT = Path(__file__).parents[3]

#: As wide as a 1.5B model; eight layers of it hold 0.84B parameters, 3.4 GB in float32.
WIDE = """ModelConfig(
    architecture="qwen2", dim=1536, layers=8, heads=12, kv_heads=2, head_dim=128, hidden=8960,
    vocab=151936, norm_eps=1e-6, rope_theta=1e6, rope_pairing="half", max_context=32768,
    qkv_bias=True,
)"""
_MEASURE = f"""
import json, resource, sys
from pathlib import Path
from models.config import ModelConfig
from models.reference.logits import eager_logits
from models.sources.seeded import SeededCheckpoint
model = SeededCheckpoint({WIDE}, 3)
shape = eager_logits(model, None, range(100, 108), Path(sys.argv[1]))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({{"peak": peak, "shape": shape}}))
"""


def test_peak_memory_is_two_layers_and_the_table(tmp_path: Path) -> None:
    config: ModelConfig = eval(WIDE, {"ModelConfig": ModelConfig})
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(tmp_path / "logits.f32")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    query, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
    layer = 4 * (config.dim * 2 * (query + kv) + 3 * config.dim * config.hidden)
    table = 4 * config.vocab * config.dim
    assert found["peak"] <= 2 * layer + table + 2**30
    assert found["peak"] < 4 * config.parameters / 2, "or the bound would say nothing"
    assert found["shape"] == [8, config.vocab]


def test_layers_one_by_one_equal_the_model_held_at_once(tmp_path: Path) -> None:
    with exports.library_noise():
        import torch

        from models.eager.decoder import RmsNorm, attend
        from models.eager.parts import PartBuilder
        from models.eager.rope import rope_tables

        entry = known.get("tiny-llama").seeded
        assert entry is not None
        config = entry[0]
        model = SeededCheckpoint(config, 0)
        builder = PartBuilder(config, model.tensor, lambda _name: None, eager=True)
        layers = [(builder.pre(i), builder.post(i)) for i in range(config.layers)]
        tokens = torch.tensor([exports.TOKENS])
        tables = rope_tables(config, len(exports.TOKENS))
        cos, sin = (table.view(1, -1, 1, config.head_dim) for table in tables)
        x = model.tensor("tok_embeddings.weight")[tokens]
        for pre, post in layers:
            x = post(attend(*pre(x, cos, sin)), x)
        x = RmsNorm(model.tensor("norm.weight"), config.norm_eps)(x)
        whole = x[0] @ model.tensor("output.weight").T
    assert torch.allclose(exports.eager(model, None, tmp_path), whole, atol=1e-5)
