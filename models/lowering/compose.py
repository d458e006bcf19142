"""The program around the delegates: embedding, RoPE rows, KV caches, and one part after another."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from models.config import ModelConfig, RopeKind
from models.eager.decoder import hiding
from models.eager.rope import rope_tables
from models.lowering.attention import PlainAttention


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
        layers: range,
        length: int,
    ) -> None:
        """Compose.

        Args:
            config: Shape of the model.
            embedding: From tokens to the residual stream.
            first: What comes before the first attention.
            between: What comes between two of them.
            last: What comes after the last; may be missing.
            attentions: One for each of `layers`.
            layers: Numbers of the layers; the rotations and the window of each follow from it.
            length: Tokens in the caches.
        """
        super().__init__()
        self.length = length
        self.scale = config.embedding_scale
        #: Rotations of each part that starts a layer: the first, and those between.
        self.kinds = [config.rope_kind(layers.start + n) for n in range(len(between) + 1)]
        #: Windows; 0 where one hides nothing within this length.
        windows = [config.window_of(layer) for layer in layers]
        self.windows = [window if window < length else 0 for window in windows]
        self.embedding = embedding
        self.first = first
        self.between = nn.ModuleList(between)
        self.last = last
        self.attentions = nn.ModuleList(attentions)
        for kind in dict.fromkeys(self.kinds):
            for name, table in zip(("cos", "sin"), rope_tables(config, length, kind), strict=True):
                self.register_buffer(f"{name}_{kind}", table, persistent=False)
        self.places: torch.Tensor
        self.register_buffer("places", torch.arange(length).float(), persistent=False)

    def _rows(self, kind: RopeKind, position: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        cos, sin = (
            table.narrow(0, position, count).view(1, -1, 1, table.shape[1])
            for table in (getattr(self, f"{name}_{kind}") for name in ("cos", "sin"))
        )
        return cos, sin

    def _masks(self, position: int, count: int) -> list[torch.Tensor | None]:
        """What each attention adds to its scores; None where the fused operator knows by itself."""
        rows = self.places.narrow(0, position, count)
        wanted = [
            window if window or isinstance(attention, PlainAttention) else None
            for window, attention in zip(self.windows, self.attentions, strict=True)
        ]
        made = {
            window: hiding(rows, self.places, window)
            for window in dict.fromkeys(wanted)
            if window is not None
        }
        return [None if window is None else made[window] for window in wanted]

    def begin(
        self, tokens: torch.Tensor, input_pos: torch.Tensor
    ) -> tuple[Any, dict[RopeKind, tuple[torch.Tensor, torch.Tensor]], list[torch.Tensor | None]]:
        """Position of the first token, rotations of the tokens by kind, and a mask a layer."""
        count = tokens.shape[1]
        position: Any = input_pos[0].item()
        _bound(position, count, self.length)
        turns = {kind: self._rows(kind, position, count) for kind in dict.fromkeys(self.kinds)}
        return position, turns, self._masks(position, count)

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """The residual stream [1, S, dim] before the first layer."""
        x: torch.Tensor = self.embedding(tokens)
        return x if self.scale == 1.0 else x * self.scale

    def forward(self, tokens: torch.Tensor, input_pos: torch.Tensor) -> torch.Tensor:
        """Run S tokens that start at position input_pos[0].

        Returns:
            Logits of the last token, float32 [1, vocab].
        """
        position, turns, masks = self.begin(tokens, input_pos)
        x = self.embed(tokens)
        q, k, v = self.first(x, *turns[self.kinds[0]])
        for index, part in enumerate(self.between):
            attended = self.attentions[index](q, k, v, position, masks[index])
            x, q, k, v = part(attended, x, *turns[self.kinds[index + 1]])
        if self.last is None:
            rows: torch.Tensor = x[:, -1, :]
            return rows
        attended = self.attentions[-1](q, k, v, position, masks[-1])
        # Only the last token goes on: its feed-forward block and logits depend on no other.
        logits: torch.Tensor = self.last(attended[:, -1:], x[:, -1:])[0]
        return logits[:, -1, :]
