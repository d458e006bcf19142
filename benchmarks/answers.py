"""How much regret an answer has whose model was damaged: where judge.answers draws its line.

SmolLM2-135M answers the default prompt greedily with noise added to every weight matrix, a share of
the matrix's own standard deviation; eager PyTorch with the true weights then judges the answer.

    python benchmarks/answers.py [--tokens 16]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

NOISE = (0.0, 0.05, 0.1, 0.2)


def main() -> None:
    """Measure, print a row for each size of noise, and the document."""
    import numpy as np
    import torch

    from farm.core.artifact import ModelSource
    from farm.core.spec import Correctness
    from farm.judge.answers import MAX_REGRET, Answer, judge_answer
    from farm.paths import farm_home, model_cache
    from models.reference.logits import eager_logits
    from models.sources import open_source
    from models.tokenizer import Tokenizer

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tokens", type=int, default=16)
    count = parser.parse_args().tokens
    source = ModelSource("smollm2-135m")
    model = open_source(source, model_cache(farm_home()), lambda _done, _total: None)

    class Damaged:
        """The model with noise in its matrices."""

        def __init__(self, size: float) -> None:
            self.config, self.files, self.tokenizer = model.config, model.files, model.tokenizer
            self.notes = model.notes
            self._size = size

        def tensor(self, name: str) -> torch.Tensor:
            """One tensor of the model, disturbed the same way each time."""
            weight = model.tensor(name).float()
            if weight.dim() < 2:
                return weight
            generator = torch.Generator().manual_seed(sum(name.encode()))
            noise = torch.randn(weight.shape, generator=generator)
            return weight + self._size * weight.std() * noise

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "logits.f32"

        def logits(size: float, ids: list[int]) -> np.ndarray:
            shape = eager_logits(Damaged(size), None, ids, file)
            return np.fromfile(file, dtype="<f4").reshape(shape)

        prompt = list(Tokenizer(model.tokenizer).chat(Correctness().prompt))
        regrets = {}
        for size in NOISE:
            ids = list(prompt)
            while len(ids) < len(prompt) + count:
                ids.append(int(logits(size, ids)[-1].argmax()))
            answer = ids[len(prompt) :]
            rows = logits(0.0, ids)[len(prompt) - 1 : -1]
            _, gate = judge_answer(Answer("eager_fp32", tuple(answer), rows))
            regrets[size] = gate.value or 0.0
            text = Tokenizer(model.tokenizer).decode(answer)
            print(f"noise {size:4.2f}: {regrets[size]:6.3f} nats a token  {text!r}", flush=True)
    right, wrong = regrets[0.0], regrets[0.1]
    print(
        json.dumps(
            {
                "benchmark": "answers",
                "figures": {f"regret_at_{size:g}": value for size, value in regrets.items()},
                "ratios": {},
                "targets": {"regret_at_0": 0.0, "regret_at_0.1": MAX_REGRET},
                "met": right < MAX_REGRET < wrong,
            }
        )
    )


if __name__ == "__main__":
    main()
