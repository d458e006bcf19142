"""Exports of small seeded models, run in ExecuTorch's Python runtime."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy
import torch

from farm.core.artifact import Recipe
from models.checkpoint import Checkpoint
from models.eager.layer_replay import Recording, record, replayed_layer
from models.reference.logits import eager_logits

TOKENS = tuple((7 * index * index + 3 * index + 5) % 512 for index in range(40))


@contextmanager
def library_noise() -> Iterator[None]:
    """Warnings of torch, torchao and executorch about themselves are not ours to fail on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def export(
    checkpoint: Checkpoint, recipe: Recipe, program: Path, recording: Recording | None = None
) -> Any:
    with library_noise():
        from models.lowering.engine import export_program

        return export_program(checkpoint, recipe, program, lambda _name, _detail: None, recording)


def recorded(checkpoint: Checkpoint, recipe: Recipe) -> Recording:
    """The middle layer's inputs, and what it adds to them with the recipe's weights."""
    layer = replayed_layer(checkpoint.config.layers)
    assert layer is not None
    with library_noise():
        return record(checkpoint, recipe, layer, lambda _done, _total: None)


def replayed(program: Path, recording: Recording) -> torch.Tensor:
    """What a layer's program gives for the ids of its inputs, one at a time, [S, dim]."""
    replay = Program(program)
    return torch.stack([replay.run([row], row) for row in range(len(recording.inputs))])


def eager(checkpoint: Checkpoint, recipe: Recipe | None, folder: Path) -> torch.Tensor:
    target = folder / "eager.f32"
    with library_noise():
        shape = eager_logits(checkpoint, recipe, TOKENS, target)
    return torch.from_numpy(numpy.fromfile(target, "<f4").reshape(shape))


class Program:
    """A program in the stock Python runtime, with its custom operators."""

    def __init__(self, path: Path) -> None:
        with library_noise():
            from executorch.extension.llm.custom_ops import custom_ops  # noqa: F401
            from executorch.kernels import quantized  # noqa: F401
            from executorch.runtime import Runtime

            self._program = Runtime.get().load_program(path)
            self._forward = self._program.load_method("forward")

    def constant(self, name: str) -> list[Any]:
        method = self._program.load_method(name)
        assert method is not None
        return list(method.execute([]))

    def run(self, tokens: Sequence[int], position: int) -> torch.Tensor:
        """Logits of the last token, [vocab]."""
        assert self._forward is not None
        inputs = (torch.tensor([list(tokens)]), torch.tensor([position]))
        return self._forward.execute(inputs)[0].view(-1).clone()

    def decode(self) -> torch.Tensor:
        """Logits of TOKENS one at a time, [S, vocab]."""
        return torch.stack([self.run([token], index) for index, token in enumerate(TOKENS)])

    def prefill(self) -> torch.Tensor:
        """The rows after 30 and after all tokens, fed as two chunks, [2, vocab]."""
        return torch.stack([self.run(TOKENS[:30], 0), self.run(TOKENS[30:], 30)])


def kl_mean(expected: torch.Tensor, found: torch.Tensor) -> float:
    """Mean Kullback-Leibler divergence of rows of logits, nats."""
    first, second = (torch.log_softmax(x.double(), dim=-1) for x in (expected, found))
    return float((first.exp() * (first - second)).sum(-1).mean())
