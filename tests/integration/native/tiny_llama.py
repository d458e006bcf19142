"""Exports a two-layer Llama with ExecuTorch's public API, for the runner's tests.

Run as a program, so that torch stays out of the test process and can be given its own warnings:
`python tiny_llama.py FOLDER` writes last.pte (last-token logits), external.pte with its weights in
weights.ptd, full.pte (all logits), nocache.pte (one input) and reference.npy (eager logits [tokens,
vocab] of TOKENS). As others export their programs: positions.pte (a position for each token, all
logits), ring.pte (caches that are rings, of windows of WINDOW tokens; ring.npy), two.pte (`prefill`
and `decode` with one cache) and apart.pte (with a cache each: no model).
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

VOCAB, DIM, HEADS, KV_HEADS, WIDTH, HIDDEN, LAYERS, CONTEXT = 96, 24, 4, 2, 6, 40, 2, 64
WINDOW = 12
TOKENS = [int(x) for x in np.random.default_rng(11).integers(0, VOCAB, CONTEXT)]


def main(folder: Path) -> None:
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.examples.models.llama.source_transformation.custom_kv_cache import (
        CustomRingKVCache,
    )
    from executorch.exir import (
        EdgeCompileConfig,
        ExecutorchBackendConfig,
        to_edge_transform_and_lower,
    )
    from executorch.exir.passes import MemoryPlanningPass
    from executorch.extension.llm.custom_ops import custom_ops  # noqa: F401

    torch.manual_seed(5)

    class Block(torch.nn.Module):
        def __init__(self, ring: bool) -> None:
            super().__init__()
            self.norm = torch.nn.RMSNorm(DIM)
            self.q = torch.nn.Linear(DIM, HEADS * WIDTH, bias=False)
            self.k = torch.nn.Linear(DIM, KV_HEADS * WIDTH, bias=False)
            self.v = torch.nn.Linear(DIM, KV_HEADS * WIDTH, bias=False)
            self.o = torch.nn.Linear(HEADS * WIDTH, DIM, bias=False)
            self.up = torch.nn.Linear(DIM, HIDDEN, bias=False)
            self.down = torch.nn.Linear(HIDDEN, DIM, bias=False)
            if ring:
                self.ring = CustomRingKVCache(1, WINDOW, KV_HEADS, WIDTH)
                return
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

        def attend_ring(self, x: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
            n = x.shape[1]
            start = position[0].item()
            torch._check(start >= 0)
            h = self.norm(x)
            q = self.q(h).view(1, n, HEADS, WIDTH)
            k = self.k(h).view(1, n, KV_HEADS, WIDTH)
            v = self.v(h).view(1, n, KV_HEADS, WIDTH)
            places = self.ring.cache_positions_manager.calculate_positions_and_update_indices
            indices = places(position, n).unsqueeze(0)
            torch.ops.llama.update_cache_with_indices(k, self.ring.k_cache, start, indices)
            torch.ops.llama.update_cache_with_indices(v, self.ring.v_cache, start, indices)
            mask = self.ring.create_causal_mask_for_ring_buffer(start, n)
            mixed = torch.ops.llama.custom_sdpa(
                q, self.ring.k_cache, self.ring.v_cache, start, mask, 0.0, False
            )
            return x + self.o(mixed.view(1, n, HEADS * WIDTH))

        def plain(self, x: torch.Tensor, window: int) -> torch.Tensor:
            n = x.shape[1]
            h = self.norm(x)
            query, key, value = [
                f(h).view(1, n, heads, WIDTH).transpose(1, 2)
                for f, heads in ((self.q, HEADS), (self.k, KV_HEADS), (self.v, KV_HEADS))
            ]
            back = torch.arange(n).unsqueeze(1) - torch.arange(n)
            mixed = torch.nn.functional.scaled_dot_product_attention(
                query, key, value, (back >= 0) & (back < window), enable_gqa=True
            )
            return x + self.o(mixed.transpose(1, 2).reshape(1, n, HEADS * WIDTH))

        def feed(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.down(torch.nn.functional.silu(self.up(x)))

    class Llama(torch.nn.Module):
        def __init__(self, full: bool, ring: bool = False) -> None:
            super().__init__()
            self.full, self.ring = full, ring
            self.embed = torch.nn.Embedding(VOCAB, DIM)
            self.position = torch.nn.Embedding(CONTEXT, DIM)
            self.blocks = torch.nn.ModuleList(Block(ring) for _ in range(LAYERS))
            self.head = torch.nn.Linear(DIM, VOCAB, bias=False)

        def forward(self, tokens: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
            steps = position[0] + torch.arange(tokens.shape[1])
            x = self.embed(tokens) + self.position(steps)
            for block in self.blocks:
                assert isinstance(block, Block)
                attend = block.attend_ring if self.ring else block.attend
                x = block.feed(attend(x, position))
            return self.head(x if self.full else x[:, -1, :])

        def eager(self, tokens: torch.Tensor, window: int = CONTEXT) -> torch.Tensor:
            x = self.embed(tokens) + self.position(torch.arange(tokens.shape[1]))
            for block in self.blocks:
                assert isinstance(block, Block)
                x = block.feed(block.plain(x, window))
            return self.head(x)

    class NoCache(torch.nn.Module):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return tokens.float() * 2

    length = torch.export.Dim("length", max=CONTEXT - 1)
    one = (torch.tensor([[1]]), torch.tensor([0]))
    example = (torch.tensor([[1, 2, 3]]), torch.tensor([0]))

    def program(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], shapes: Any) -> Any:
        return torch.export.export(module, inputs, dynamic_shapes=shapes, strict=False)

    def write(name: str, programs: Any, shared: bool = False) -> None:
        edge = to_edge_transform_and_lower(
            programs,
            partitioner=[XnnpackPartitioner()],
            compile_config=EdgeCompileConfig(_check_ir_validity=False),
            constant_methods={"get_max_context_len": CONTEXT, "use_kv_cache": True},
        )
        external = name == "external.pte"
        planning = MemoryPlanningPass(share_mutable_buffers=shared)
        lowered = edge.to_executorch(
            ExecutorchBackendConfig(external_constants=external, memory_planning_pass=planning)
        )
        (folder / name).write_bytes(lowered.buffer)
        if external:
            lowered.write_tensor_data_to_file(str(folder))
            (written,) = folder.glob("*.ptd")
            written.rename(folder / "weights.ptd")

    model = Llama(full=False).eval()
    full = Llama(full=True).eval()
    ring = Llama(full=False, ring=True).eval()
    full.load_state_dict(model.state_dict())
    caches = ring.load_state_dict(model.state_dict(), strict=False)
    assert all("cache" in name for names in caches for name in names), caches
    with torch.no_grad():
        for name, window in (("reference", CONTEXT), ("ring", WINDOW)):
            logits = full.eager(torch.tensor([TOKENS]), window)[0]
            np.save(folder / f"{name}.npy", logits.numpy())
        # Lowering changes a program in place.
        several = partial(program, model, example, ({1: length}, {0: None}))
        write("last.pte", several())
        write("external.pte", several())
        write("full.pte", program(full, example, ({1: length}, {0: None})))
        write("nocache.pte", program(NoCache(), example[:1], ({1: length},)))
        each = (example[0], torch.arange(3))
        write("positions.pte", program(full, each, ({1: length}, {0: length})))
        short = torch.export.Dim("short", max=WINDOW)
        write("ring.pte", program(ring, example, ({1: short}, {0: None})))
        for name, shared in (("two.pte", True), ("apart.pte", False)):
            two = {"prefill": several(), "decode": program(model, one, None)}
            write(name, two, shared=shared)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
