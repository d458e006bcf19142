"""One program driven by ExecuTorch's Python runtime in several ways: what does the driver do?

`python -m models.drivers ORDER.json` runs in a process of its own, since the runtime may end it.
The order is `{program, tokens, prompt, count, stop, vocab, out}`; into `out` go `single.f32` (token
by token), `chunks.f32` (in chunks of CHUNK) and `result.json`: the greedy ids after a prompt that
goes in at once, by this file's loop (`ours`) and by ExecuTorch's TextLLMRunner (`theirs`).
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

#: Tokens of a chunk.
CHUNK = 16
#: Letters that stand for ids: from here on no character means anything to a tokenizer.
_FIRST = 0x20000


def main(path: str) -> None:
    """Work an order; what TextLLMRunner prints itself goes to stdout."""
    order = json.loads(Path(path).read_text(encoding="utf-8"))
    out, tokens, prompt = Path(order["out"]), order["tokens"], order["prompt"]
    for name in ("executorch.kernels.quantized", "executorch.extension.llm.custom_ops.custom_ops"):
        importlib.import_module(name)
    program = _Program(order["program"])
    program.rows(tokens, 1).tofile(out / "single.f32")
    program.rows(tokens, CHUNK).tofile(out / "chunks.f32")
    result: dict[str, Any] = {"ours": program.greedy(prompt, order["count"], order["stop"])}
    target = out / "result.json"
    target.write_text(json.dumps(result), encoding="utf-8")
    result["theirs"] = _by_text_runner(order, out)
    target.write_text(json.dumps(result), encoding="utf-8")


class _Program:
    """A loaded program with its cache."""

    def __init__(self, path: str) -> None:
        from executorch.extension.pybindings import portable_lib

        self._module = portable_lib._load_for_executorch(path)

    def feed(self, ids: Sequence[int], position: int) -> Any:
        """Logits of the last of these ids, a NumPy row."""
        import torch

        given = torch.tensor([list(ids)]), torch.tensor([position])
        found = self._module.forward(given)[0]
        return found.reshape(-1, found.shape[-1])[-1].float().numpy().astype("<f4")

    def rows(self, tokens: Sequence[int], length: int) -> Any:
        """A row of logits after each piece."""
        import numpy

        starts = range(0, len(tokens), length)
        return numpy.stack([self.feed(tokens[at : at + length], at) for at in starts])

    def greedy(self, prompt: Sequence[int], count: int, stop: Sequence[int]) -> list[int]:
        """Continue a prompt, which goes in at once; a stop id ends it and is given."""
        row, made = self.feed(prompt, 0), list[int]()
        while True:
            made.append(int(row.argmax()))
            if len(made) == count or made[-1] in stop:
                return made
            row = self.feed(made[-1:], len(prompt) + len(made) - 1)


def _by_text_runner(order: dict[str, Any], out: Path) -> list[int]:
    """The same continuation; each id is one letter, so that its tokenizer can't change any."""
    from executorch.extension.llm.runner import GenerationConfig, TextLLMRunner

    vocab = {chr(_FIRST + one): one for one in range(order["vocab"])}
    end = {"id": order["vocab"], "content": "<eos>", "special": True}
    model: dict[str, Any] = {"type": "BPE", "vocab": vocab, "merges": [], "unk_token": None}
    tokenizer = out / "tokenizer.json"
    made = {"version": "1.0", "added_tokens": [end], "model": model}
    tokenizer.write_text(json.dumps(made, ensure_ascii=False), encoding="utf-8")
    runner, pieces = TextLLMRunner(order["program"], str(tokenizer)), list[str]()
    config = GenerationConfig(echo=False, max_new_tokens=order["count"], temperature=0.0)
    runner.generate("".join(chr(_FIRST + one) for one in order["prompt"]), config, pieces.append)
    return [ord(letter) - _FIRST for letter in "".join(pieces)]


if __name__ == "__main__":
    main(sys.argv[1])
