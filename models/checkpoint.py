"""One shape for every source: config, tensors by canonical names, tokenizer, file hashes.

Canonical names are Meta's (`layers.0.attention.wq.weight`). Opening a checkpoint reads
metadata only and needs no torch; tensors are read when they are asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from models.config import ModelConfig

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that decides the result of an export."""

    name: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class TokenizerData:
    """A tokenizer as the `tokenizers` library reads it, and the rules around it."""

    #: Content of a `tokenizer.json`.
    json: str
    bos_id: int | None
    #: Whether a text starts with BOS.
    add_bos: bool
    #: Ids that end a reply.
    stop_ids: tuple[int, ...]
    #: Jinja template; None when the model has no chat format.
    chat_template: str | None
    #: Text of BOS and EOS, which chat templates may print.
    bos_token: str = ""
    eos_token: str = ""
    #: Other tokens that have a name, as (`pad_token`, its text): templates may print those too.
    special: tuple[tuple[str, str], ...] = ()
    #: Files that disagreed, and which one was taken.
    notes: tuple[str, ...] = ()


class Checkpoint(Protocol):
    """An opened model."""

    config: ModelConfig
    tokenizer: TokenizerData
    #: Places of the checkpoint that disagreed, and which one was taken: for the report.
    notes: tuple[str, ...]

    @property
    def files(self) -> tuple[SourceFile, ...]:
        """Files that decide the result of an export; hashed when they are asked for.

        Raises:
            ExportError: One can't be read.
        """

    def tensor(self, name: str) -> torch.Tensor:
        """Read one tensor in the dtype it is stored in (quantised ones as float32).

        Raises:
            ExportError: There is none of that name, it is damaged, or a number isn't finite.
        """


#: Linears of a layer: up to its attention, and after it.
BEFORE = ("attention.wq", "attention.wk", "attention.wv")
AFTER = ("attention.wo", "feed_forward.w1", "feed_forward.w3", "feed_forward.w2")
LINEARS = (*BEFORE, *AFTER)


def layer_tensors(config: ModelConfig, layer: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of one layer's tensors."""
    query, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
    shapes: dict[str, tuple[int, ...]] = {}
    if config.pre_norm:
        shapes |= {"attention_norm.weight": (config.dim,), "ffn_norm.weight": (config.dim,)}
    if config.post_norm:
        shapes |= {"attention_post_norm.weight": (config.dim,)}
        shapes |= {"ffn_post_norm.weight": (config.dim,)}
    shapes |= {
        "attention.wq.weight": (query, config.dim),
        "attention.wk.weight": (kv, config.dim),
        "attention.wv.weight": (kv, config.dim),
        "attention.wo.weight": (config.dim, query),
        "feed_forward.w1.weight": (config.hidden, config.dim),
        "feed_forward.w2.weight": (config.dim, config.hidden),
        "feed_forward.w3.weight": (config.hidden, config.dim),
    }
    if config.qkv_bias:
        shapes |= {"attention.wq.bias": (query,), "attention.wk.bias": (kv,)}
        shapes |= {"attention.wv.bias": (kv,)}
    if config.qk_norm:
        whole = config.qk_norm_whole
        shapes |= {"attention.q_norm.weight": (query if whole else config.head_dim,)}
        shapes |= {"attention.k_norm.weight": (kv if whole else config.head_dim,)}
    return {f"layers.{layer}.{name}": shape for name, shape in shapes.items()}


def outer_tensors(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors outside the layers; a tied output has none of its own."""
    shapes: dict[str, tuple[int, ...]] = {
        "tok_embeddings.weight": (config.vocab, config.dim),
        "norm.weight": (config.dim,),
    }
    if not config.tied:
        shapes["output.weight"] = (config.vocab, config.dim)
    return shapes
