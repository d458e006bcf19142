"""Random models made here: seconds to export, no download, the same bytes on every machine."""

from __future__ import annotations

import hashlib
import zlib
from typing import TYPE_CHECKING

from farm.core.errors import ExportError
from models.checkpoint import SourceFile, TokenizerData, layer_tensors, outer_tensors
from models.config import ModelConfig
from models.tokenizer import byte_tokenizer

if TYPE_CHECKING:
    import torch


#: Rows made at a time: a table of a large vocabulary is never there twice.
_ROWS = 4096


class SeededCheckpoint:
    """Weights from a generator seeded per tensor name."""

    def __init__(self, config: ModelConfig, seed: int) -> None:
        self.config = config
        self.seed = seed
        self.notes: tuple[str, ...] = ()
        self.tokenizer: TokenizerData = byte_tokenizer(config.vocab)
        identity = f"seeded 2 {seed} {config}".encode()
        self.files: tuple[SourceFile, ...] = (
            SourceFile("seeded", hashlib.sha256(identity).hexdigest(), len(identity)),
        )

    def tensor(self, name: str) -> torch.Tensor:
        """Make a tensor, float32.

        Raises:
            ExportError: The model has none of that name.
        """
        import numpy
        import torch

        shape = outer_tensors(self.config).get(name)
        if shape is None and name.startswith("layers."):
            shape = layer_tensors(self.config, int(name.split(".")[1])).get(name)
        if shape is None:
            raise ExportError(f"the seeded model has no tensor {name}")
        source = numpy.random.Generator(numpy.random.PCG64([self.seed, zlib.crc32(name.encode())]))
        spread = numpy.empty(shape, numpy.float32)
        for start in range(0, shape[0], _ROWS):
            block = spread[start : start + _ROWS]
            # Sums of uniform numbers round alike in IEEE arithmetic on every machine; a normal
            # generator's logarithms would not.
            block[...] = source.random(block.shape, numpy.float32)
            for _ in range(3):
                block += source.random(block.shape, numpy.float32)
            block -= 2.0
            block *= numpy.float32(3.0**0.5)
        values = torch.from_numpy(spread)
        if name == "tok_embeddings.weight":
            return values
        if len(shape) == 1:
            return 1.0 + 0.1 * values if "norm" in name else 0.1 * values
        # Rows of unit length keep activations in range; logits twice as wide make choices clear.
        return values.mul_((2.0 if name == "output.weight" else 1.0) / shape[1] ** 0.5)
