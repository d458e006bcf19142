"""A model in a rotated basis: the same logits in exact arithmetic, with outliers spread.

As SpinQuant's two rotations that cost nothing on a device, R1 of the residual stream and R2 of the
heads' values (arXiv 2405.16406), but fixed ones in place of trained ones. The weights of norms
that stand before projections go into these. Nothing here knows how weights are rounded.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy
import torch

from farm.core.artifact import Recipe
from models.checkpoint import Checkpoint, SourceFile, TokenizerData
from models.config import ModelConfig
from models.eager.parts import tied_reader

#: Projections of the residual stream, with the norm before them.
_READS = {
    "attention.wq": "attention_norm",
    "attention.wk": "attention_norm",
    "attention.wv": "attention_norm",
    "feed_forward.w1": "ffn_norm",
    "feed_forward.w3": "ffn_norm",
}
_SEED = 2405


def as_quantised(checkpoint: Checkpoint, recipe: Recipe) -> Checkpoint:
    """The model in the basis in which a recipe rounds its weights."""
    return Rotated(checkpoint) if recipe.rotated else checkpoint


class Rotated:
    """A checkpoint whose tensors are those of the rotated model, float32."""

    def __init__(self, inner: Checkpoint) -> None:
        self._inner = inner
        # The output takes up the last norm's weights, so it is the embedding no longer.
        self.config: ModelConfig = replace(inner.config, tied=False)
        self.tokenizer: TokenizerData = inner.tokenizer
        self.notes: tuple[str, ...] = inner.notes
        self._stream = Rotation(inner.config.dim)
        self._heads = Rotation(inner.config.head_dim)
        self._read = tied_reader(inner.config, inner.tensor)

    @property
    def files(self) -> tuple[SourceFile, ...]:
        """See Checkpoint."""
        return self._inner.files

    def tensor(self, name: str) -> torch.Tensor:
        """Read one tensor and rotate it.

        Raises:
            ExportError: There is none of that name, it is damaged, or a number isn't finite.
        """
        found = self._read(name).float()
        if name == "tok_embeddings.weight":
            return self._stream(found)
        if name == "output.weight":
            return self._stream(found * self._read("norm.weight").float())
        prefix, part = _split(name)
        if name == "norm.weight" or part in ("attention_norm.weight", "ffn_norm.weight"):
            return torch.ones_like(found)
        stem, _, kind = part.rpartition(".")
        if stem in _READS and kind == "weight":
            found = self._stream(found * self._read(f"{prefix}{_READS[stem]}.weight").float())
        if stem == "attention.wv":
            return self._by_head(found)
        if stem == "attention.wo":
            return self._stream(self._by_head(found.T).contiguous()).T.contiguous()
        if stem == "feed_forward.w2":
            return self._stream(found.T.contiguous()).T.contiguous()
        return found

    def _by_head(self, rows: torch.Tensor) -> torch.Tensor:
        """Rotate rows [heads x head_dim, ...] among those of one head."""
        width = self.config.head_dim
        flat = rows.reshape(rows.shape[0] // width, width, -1).transpose(1, 2)
        return self._heads(flat.contiguous()).transpose(1, 2).reshape(rows.shape).contiguous()


def _split(name: str) -> tuple[str, str]:
    """`layers.0.` and the rest."""
    if not name.startswith("layers."):
        return "", name
    _, layer, rest = name.split(".", 2)
    return f"layers.{layer}.", rest


class Rotation:
    """An orthogonal matrix [size, size], applied to the last dimension.

    Signs drawn by a fixed seed, then a Hadamard matrix of the power of two in `size` times a cosine
    transform of what is left: every element takes part in every other one.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        power = size & -size
        draw = numpy.random.Generator(numpy.random.PCG64([_SEED, size]))
        self._signs = torch.from_numpy(draw.integers(0, 2, size).astype(numpy.float32) * 2 - 1)
        self._hadamard = torch.from_numpy(_hadamard(power)).float()
        self._cosines = torch.from_numpy(_cosines(size // power)).float()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Rotate [..., size]."""
        shape = (*x.shape[:-1], self._hadamard.shape[0], self._cosines.shape[0])
        turned = (x * self._signs).reshape(shape) @ self._cosines
        turned = torch.matmul(turned.transpose(-1, -2), self._hadamard).transpose(-1, -2)
        return turned.reshape(x.shape)


def _hadamard(size: int) -> numpy.ndarray[tuple[int, int], numpy.dtype[numpy.float64]]:
    """Sylvester's matrix of a power of two, orthonormal."""
    found = numpy.ones((1, 1))
    while found.shape[0] < size:
        found = numpy.block([[found, found], [found, -found]])
    return found / math.sqrt(size)


def _cosines(size: int) -> numpy.ndarray[tuple[int, int], numpy.dtype[numpy.float64]]:
    """The cosine transform (DCT-II), orthonormal."""
    rows = numpy.arange(size)
    found = numpy.cos(math.pi * (rows[:, None] + 0.5) * rows / size) * math.sqrt(2 / size)
    found[:, 0] = math.sqrt(1 / size)
    return found
