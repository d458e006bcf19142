"""Exports a two-layer Llama with ExecuTorch's public API, for the runner's tests.

Run as a program, so that torch stays out of the test process and can be given its own warnings:
`python tiny_llama.py FOLDER` writes last.pte (last-token logits), external.pte with its weights in
weights.ptd, full.pte (all logits), nocache.pte (one input) and reference.npy (eager logits [tokens,
vocab] of TOKENS).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

VOCAB, DIM, HEADS, KV_HEADS, WIDTH, HIDDEN, LAYERS, CONTEXT = 96, 24, 4, 2, 6, 40, 2, 64
TOKENS = [int(x) for x in np.random.default_rng(11).integers(0, VOCAB, CONTEXT)]


def main(folder: Path) -> None:
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import (
        EdgeCompileConfig,
        ExecutorchBackendConfig,
        to_edge_transform_and_lower,
    )
    from executorch.extension.llm.custom_ops import custom_ops  # noqa: F401

    torch.manual_seed(5)

    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = torch.nn.RMSNorm(DIM)
            self.q = torch.nn.Linear(DIM, HEADS * WIDTH, bias=False)
            self.k = torch.nn.Linear(DIM, KV_HEADS * WIDTH, bias=False)
            self.v = torch.nn.Linear(DIM, KV_HEADS * WIDTH, bias=False)
            self.o = torch.nn.Linear(HEADS * WIDTH, DIM, bias=False)
            self.up = torch.nn.Linear(DIM, HIDDEN, bias=False)
            self.down = torch.nn.Linear(HIDDEN, DIM, bias=False)
            shape = (1, CONTEXT, KV_HEADS, WIDTH)
            self.register_buffer("k_cache", torch.zeros(shape))
            self.register_buffer("v_cache", torch.zeros(shape))

        def attend(self, x: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
            n = x.shape[1]
            start = position[0].item()
            torch._check(start >= 0)
            torch._check(start + n <= CONTEXT)
            h = self.norm(x)
            q = self.q(h).view(1, n, HEADS, WIDTH)
            k = self.k(h).view(1, n, KV_HEADS, WIDTH)
            v = self.v(h).view(1, n, KV_HEADS, WIDTH)
            torch.ops.llama.update_cache(k, self.k_cache, start)
            torch.ops.llama.update_cache(v, self.v_cache, start)
            mixed = torch.ops.llama.custom_sdpa(
                q, self.k_cache, self.v_cache, start, None, 0.0, True
            )
            return x + self.o(mixed.view(1, n, HEADS * WIDTH))

        def plain(self, x: torch.Tensor) -> torch.Tensor:
            n = x.shape[1]
            h = self.norm(x)
            query, key, value = [
                f(h).view(1, n, heads, WIDTH).transpose(1, 2)
                for f, heads in ((self.q, HEADS), (self.k, KV_HEADS), (self.v, KV_HEADS))
            ]
            mixed = torch.nn.functional.scaled_dot_product_attention(
                query, key, value, is_causal=True, enable_gqa=True
            )
            return x + self.o(mixed.transpose(1, 2).reshape(1, n, HEADS * WIDTH))

        def feed(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.down(torch.nn.functional.silu(self.up(x)))

    class Llama(torch.nn.Module):
        def __init__(self, full: bool) -> None:
            super().__init__()
            self.full = full
            self.embed = torch.nn.Embedding(VOCAB, DIM)
            self.position = torch.nn.Embedding(CONTEXT, DIM)
            self.blocks = torch.nn.ModuleList(Block() for _ in range(LAYERS))
            self.head = torch.nn.Linear(DIM, VOCAB, bias=False)

        def forward(self, tokens: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
            steps = position[0] + torch.arange(tokens.shape[1])
            x = self.embed(tokens) + self.position(steps)
            for block in self.blocks:
                assert isinstance(block, Block)
                x = block.feed(block.attend(x, position))
            return self.head(x if self.full else x[:, -1, :])

        def eager(self, tokens: torch.Tensor) -> torch.Tensor:
            x = self.embed(tokens) + self.position(torch.arange(tokens.shape[1]))
            for block in self.blocks:
                assert isinstance(block, Block)
                x = block.feed(block.plain(x))
            return self.head(x)

    class NoCache(torch.nn.Module):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return tokens.float() * 2

    def write(name: str, module: torch.nn.Module, example: tuple[torch.Tensor, ...]) -> None:
        length = torch.export.Dim("length", max=CONTEXT - 1)
        shapes = ({1: length}, *({0: None} for _ in example[1:]))
        program = torch.export.export(module, example, dynamic_shapes=shapes, strict=False)
        edge = to_edge_transform_and_lower(
            program,
            partitioner=[XnnpackPartitioner()],
            compile_config=EdgeCompileConfig(_check_ir_validity=False),
            constant_methods={"get_max_context_len": CONTEXT, "use_kv_cache": True},
        )
        external = name == "external.pte"
        lowered = edge.to_executorch(ExecutorchBackendConfig(external_constants=external))
        (folder / name).write_bytes(lowered.buffer)
        if external:
            lowered.write_tensor_data_to_file(str(folder))
            (written,) = folder.glob("*.ptd")
            written.rename(folder / "weights.ptd")

    example = (torch.tensor([[1, 2, 3]]), torch.tensor([0]))
    model = Llama(full=False).eval()
    full = Llama(full=True).eval()
    full.load_state_dict(model.state_dict())
    with torch.no_grad():
        reference = full.eager(torch.tensor([TOKENS]))[0].numpy()
        np.save(folder / "reference.npy", reference)
        write("last.pte", model, example)
        write("external.pte", model, example)
        write("full.pte", full, example)
        write("nocache.pte", NoCache(), example[:1])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
