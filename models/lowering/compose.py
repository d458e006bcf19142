"""The program around the delegates: embedding, RoPE rows, KV caches, and one part after another."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from models.config import ModelConfig
from models.eager.rope import rope_tables


def _bound(position: Any, count: Any, length: int) -> None:
    """Tell the exporter what it may assume of a position that only the device knows."""
    check: Any = torch._check
    check(position >= 0)
    check(position + count <= length)
    check(position < length)


class Composed(nn.Module):
    """A decoder with ExecuTorch's stock signature: (tokens [1, S], input_pos [1]) -> logits.

    Its parts are the first one, the ones between attentions and the last one: eager modules or
    lowered ones, they are called alike. Without a last part what comes before the next attention
    is given in place of logits: the residual stream [1, dim] of the last token.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        embedding: nn.Module,
        first: nn.Module,
        between: list[nn.Module],
        last: nn.Module | None,
        attentions: list[nn.Module],
        length: int,
    ) -> None:
        super().__init__()
        self.length = length
        self.embedding = embedding
        self.first = first
        self.between = nn.ModuleList(between)
        self.last = last
        self.attentions = nn.ModuleList(attentions)
        cos, sin = rope_tables(config, length)
        self.cos: torch.Tensor
        self.sin: torch.Tensor
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def _rows(self, table: torch.Tensor, position: int, count: int) -> torch.Tensor:
        return table.narrow(0, position, count).view(1, -1, 1, table.shape[1])

    def forward(self, tokens: torch.Tensor, input_pos: torch.Tensor) -> torch.Tensor:
        """Run S tokens that start at position input_pos[0].

        Returns:
            Logits of the last token, float32 [1, vocab].
        """
        count = tokens.shape[1]
        position: Any = input_pos[0].item()
        _bound(position, count, self.length)
        cos = self._rows(self.cos, position, count)
        sin = self._rows(self.sin, position, count)
        x = self.embedding(tokens)
        q, k, v = self.first(x, cos, sin)
        for attention, part in zip(self.attentions, self.between, strict=False):
            x, q, k, v = part(attention(q, k, v, position), x, cos, sin)
        if self.last is None:
            rows: torch.Tensor = x[:, -1, :]
            return rows
        attended = self.attentions[-1](q, k, v, position)
        # Only the last token goes on: its feed-forward block and logits depend on no other.
        logits: torch.Tensor = self.last(attended[:, -1:], x[:, -1:])[0]
        return logits[:, -1, :]
