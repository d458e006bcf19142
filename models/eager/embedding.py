"""Embedding tables: float, 8 and 4 bit, as ExecuTorch's kernels read them."""

from __future__ import annotations

import torch
from torch import nn

from farm.core.artifact import Recipe
from models.eager.quantise import QuantisedWeight, dequantise, quantise_embedding


class QuantisedEmbedding(nn.Module):
    """Table of integers with scales per row or group; 4-bit values are packed in pairs."""

    def __init__(self, table: QuantisedWeight) -> None:
        super().__init__()
        self.bits = table.bits
        values = table.values
        if table.bits == 4:
            pairs = (values + 8).view(torch.uint8).view(values.shape[0], -1, 2)
            # The kernel reads the even element from the high half of the byte.
            values = (pairs[:, :, 0] << 4) | pairs[:, :, 1]
        self.register_buffer("values", values)
        self.register_buffer("scales", table.scales.squeeze(-1).float())

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Look up int64 tokens [1, S]; returns float32 [1, S, dim]."""
        ops = torch.ops.quantized_decomposed
        if self.bits == 4:
            found = ops.embedding_4bit.dtype(
                self.values, self.scales, None, -8, 7, tokens, dtype=torch.float32
            )
        else:
            found = ops.embedding_byte.dtype(
                self.values, self.scales, None, -128, 127, tokens, dtype=torch.float32
            )
        result: torch.Tensor = found
        return result


def float_embedding(table: torch.Tensor) -> nn.Module:
    """Embedding module that gives the rows of a table as they are, in fp32."""
    plain = nn.Embedding(table.shape[0], table.shape[1], device="meta")
    plain.weight = nn.Parameter(table.float(), requires_grad=False)
    return plain


def build_embedding(table: torch.Tensor, recipe: Recipe) -> nn.Module:
    """Embedding module of a recipe for a table [vocab, dim]."""
    if recipe.embedding_bits is None:
        return float_embedding(table)
    return QuantisedEmbedding(
        quantise_embedding(table, recipe.embedding_bits, recipe.embedding_group)
    )


def embed_eagerly(table: torch.Tensor, tokens: torch.Tensor, recipe: Recipe | None) -> torch.Tensor:
    """Rows that the artifact would look up, float32 [1, S, dim]; recipe None is unquantised.

    Only the rows of the text are quantised: rows don't depend on each other.
    """
    rows = table[tokens.flatten()]
    if recipe is not None and recipe.embedding_bits is not None:
        rows = dequantise(quantise_embedding(rows, recipe.embedding_bits, recipe.embedding_group))
    return rows.float().unsqueeze(0)
