"""The farm engine: quantise, lower one layer, rename it for the others, compose, write.

It takes an opened checkpoint and a recipe and writes one program. It knows no registry, store
or protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from executorch.exir import ExecutorchBackendConfig, to_edge
from executorch.exir.passes import MemoryPlanningPass
from executorch.exir.passes.sym_shape_eval_pass import ConstraintBasedSymShapeEvalPass
from executorch.extension.llm.custom_ops import custom_ops  # noqa: F401  registers llama::*
from executorch.kernels import quantized  # noqa: F401  registers the embedding kernels
from torch import nn

from farm.core.artifact import Delegation, Recipe
from models.checkpoint import Checkpoint
from models.config import ModelConfig
from models.embedding import build_embedding
from models.lowering.attention import CustomAttention, PlainAttention, QuantisedAttention
from models.lowering.checks import check_recipe, export_warnings
from models.lowering.compose import Composed
from models.lowering.delegates import (
    LoweredPart,
    count_operators,
    edge_config,
    lower_part,
    part_constants,
    sibling,
)
from models.lowering.signatures import part_example, sequence_dim, signature_program
from models.parts import PartBuilder, PartKind, part_kind, synthetic_reader, tied_reader
from models.quantise import linear_format

#: Called at the start of each stage: its name, and a detail for people.
OnStage = Callable[[str, str], None]

#: Stages in order; `quantise` and `lower` alternate.
STAGES = ("read", "lower", "quantise", "compose", "write")


@dataclass(frozen=True, slots=True)
class Exported:
    """What the engine wrote, and what a user should know about it."""

    program: Path
    delegation: Delegation
    #: Linears left in fp32 against the recipe.
    unquantised: tuple[str, ...]
    warnings: tuple[str, ...]


def export_program(
    checkpoint: Checkpoint, recipe: Recipe, program: Path, on_stage: OnStage
) -> Exported:
    """Export a model to the file `program`.

    Raises:
        ExportError: The recipe doesn't fit the model, or a tensor is missing or damaged.
    """
    check_recipe(checkpoint.config, recipe)
    with torch.no_grad():
        return _Export(checkpoint, recipe, on_stage).run(program)


class _Export:
    """One export: what its stages share."""

    def __init__(self, checkpoint: Checkpoint, recipe: Recipe, on_stage: OnStage) -> None:
        self.checkpoint = checkpoint
        self.config = checkpoint.config
        self.recipe = recipe
        self.on_stage = on_stage
        self.form = linear_format(recipe)
        self.builder = PartBuilder(
            checkpoint.config, tied_reader(checkpoint.config, checkpoint.tensor), self.form
        )
        self.delegated = 0

    def run(self, program: Path) -> Exported:
        config, recipe = self.config, self.recipe
        self.on_stage("read", f"{config.parameters / 1e6:.0f}M parameters")
        embedding = build_embedding(self.checkpoint.tensor("tok_embeddings.weight"), recipe)
        parts = list(self._delegates() if recipe.backend == "xnnpack" else self._plain_parts())
        attention = _attention(recipe)
        model = Composed(
            config,
            embedding=embedding,
            parts=parts,
            attentions=[attention(config, recipe.max_context) for _ in range(config.layers)],
            length=recipe.max_context,
        )
        self.on_stage("compose", f"{len(parts)} parts")
        edge = self._to_edge(model)
        outside = count_operators(edge.exported_program().graph)
        manager = edge.to_executorch(_backend_config())
        self.on_stage("write", program.name)
        with program.open("wb") as file:
            manager.write_to_file(file)
        return Exported(
            program=program,
            delegation=Delegation(delegated=self.delegated, total=self.delegated + outside),
            unquantised=tuple(self.builder.unquantised),
            warnings=export_warnings(config, recipe),
        )

    def _plain_parts(self) -> Iterator[nn.Module]:
        """Parts as they are: the portable backend runs their operators one by one."""
        count = self.config.layers + 1
        for index in range(count):
            self.on_stage("quantise", f"part {index + 1} of {count}")
            yield self.builder.build(index)

    def _delegates(self) -> Iterator[nn.Module]:
        """Lower each kind of part once, and rename it for its siblings."""
        count = self.config.layers + 1
        lowered: dict[PartKind, tuple[LoweredPart, Any]] = {}
        for index in range(count):
            kind = part_kind(self.config, index)
            if kind not in lowered:
                self.on_stage("lower", f"{kind} part")
                lowered[kind] = self._lower(index, kind)
            part, signature = lowered[kind]
            self.on_stage("quantise", f"part {index + 1} of {count}")
            constants = part_constants(self.builder.build(index))
            self.delegated += part.operators
            yield sibling(part, constants, signature)

    def _lower(self, index: int, kind: PartKind) -> tuple[LoweredPart, Any]:
        example = part_example(self.config, kind, self.recipe)
        stand_in = PartBuilder(self.config, synthetic_reader(self.config), self.form)
        part = lower_part(stand_in.build(index), example.inputs, example.dynamic_shapes)
        return part, signature_program(self.config, kind, example)

    def _to_edge(self, model: nn.Module) -> Any:
        if self.recipe.dynamic_shape:
            tokens, shapes = torch.tensor([[2, 3, 4]]), ({1: sequence_dim(self.recipe)}, None)
        else:
            tokens, shapes = torch.tensor([[2]]), None
        program = torch.export.export(
            model, (tokens, torch.tensor([0])), dynamic_shapes=shapes, strict=False
        )
        return to_edge(program, compile_config=edge_config(), constant_methods=self._metadata())

    def _metadata(self) -> dict[str, Any]:
        """Constant methods that runners read before they run: stock names and meanings."""
        tokenizer, recipe = self.checkpoint.tokenizer, self.recipe
        methods: dict[str, Any] = {
            "get_vocab_size": self.config.vocab,
            "get_n_layers": self.config.layers,
            "get_max_seq_len": recipe.max_seq,
            "get_max_context_len": recipe.max_context,
            "use_kv_cache": True,
            "use_sdpa_with_kv_cache": recipe.custom_sdpa,
            "enable_dynamic_shape": recipe.dynamic_shape,
            "get_eos_ids": list(tokenizer.stop_ids),
        }
        if tokenizer.bos_id is not None:
            methods["get_bos_id"] = tokenizer.bos_id
        return methods


def _attention(recipe: Recipe) -> Callable[[ModelConfig, int], nn.Module]:
    if recipe.quantised_kv_cache:
        return QuantisedAttention
    return CustomAttention if recipe.custom_sdpa else PlainAttention


def _backend_config() -> ExecutorchBackendConfig:
    return ExecutorchBackendConfig(
        extract_delegate_segments=True,
        memory_planning_pass=MemoryPlanningPass(alloc_graph_input=False),
        sym_shape_eval_pass=ConstraintBasedSymShapeEvalPass(),
    )
