"""The farm engine: quantise, lower one layer, rename it for the others, compose, write.

It takes an opened checkpoint and a recipe and writes one program. It knows no registry, store
or protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from executorch.exir import ExecutorchBackendConfig, to_edge
from torch import nn

from farm.core.artifact import Delegation, Recipe
from models.checkpoint import Checkpoint
from models.config import ModelConfig
from models.eager.embedding import build_embedding, float_embedding
from models.eager.layer_replay import Recording
from models.eager.parts import PartBuilder, PartKind, part_kind, synthetic_reader, tied_reader
from models.eager.quantise import linear_format
from models.lowering.attention import CustomAttention, PlainAttention, QuantisedAttention
from models.lowering.checks import check_recipe, export_warnings, fused_attention
from models.lowering.compose import Composed
from models.lowering.delegates import (
    LoweredPart,
    count_operators,
    edge_config,
    lower_part,
    part_constants,
    sibling,
)
from models.lowering.private import ConstraintBasedSymShapeEvalPass, MemoryPlanningPass
from models.lowering.signatures import part_example, sequence_dim, signature_program

#: Called at the start of each stage: its name, and a detail for people.
OnStage = Callable[[str, str], None]

#: Stages in order; `quantise` and `lower` alternate.
STAGES = ("read", "lower", "quantise", "compose", "write")

#: Name of the file of external weights, without its suffix.
_WEIGHTS = "model"
#: File of the one layer.
REPLAY_NAME = "replay.pte"
#: Constants that follow from the recipe, not from the checkpoint: they stay in the program, or
#: equal weights would give different files.
_OF_THE_RECIPE = ("b_cos_", "b_sin_", "b_places", "b_attentions_")


@dataclass(frozen=True, slots=True)
class Exported:
    """What the engine wrote, and what a user should know about it."""

    program: Path
    #: External weights; None when they are inside the program.
    data: Path | None
    delegation: Delegation
    #: Linears left in fp32 against the recipe.
    unquantised: tuple[str, ...]
    warnings: tuple[str, ...]
    #: One layer on its recorded inputs; None where none were given.
    replay: Path | None = None


def export_program(
    checkpoint: Checkpoint,
    recipe: Recipe,
    program: Path,
    on_stage: OnStage,
    recording: Recording | None = None,
) -> Exported:
    """Export a model to the file `program`, and its weights beside it where the recipe wants that.

    Args:
        checkpoint: The model.
        recipe: How it is quantised and lowered.
        program: File to write.
        on_stage: Takes progress.
        recording: Inputs of a layer, which is then written to a program of its own as well,
            from the same delegates: ids 0, 1, 2, ... feed the inputs, in place of logits it
            gives the residual stream after the layer.

    Raises:
        ExportError: The recipe doesn't fit the model, or a tensor is missing or damaged.
    """
    check_recipe(checkpoint.config, recipe)
    with torch.no_grad():
        export = _Export(checkpoint, recipe, on_stage)
        exported = export.run(program)
        if recording is None:
            return exported
        return replace(exported, replay=export.write_layer(recording, program.parent))


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
        self.weights = _WEIGHTS if recipe.external_weights else None
        self.delegated = 0
        #: One delegate of each kind, without weights, and what shapes its results have.
        self.lowered: dict[PartKind, tuple[LoweredPart, Any]] = {}

    def run(self, program: Path) -> Exported:
        config, recipe = self.config, self.recipe
        self.on_stage("read", f"{config.parameters / 1e6:.0f}M parameters")
        embedding = build_embedding(self.checkpoint.tensor("tok_embeddings.weight"), recipe)
        parts = list(self._delegates() if recipe.backend == "xnnpack" else self._plain_parts())
        attention = _attention(config, recipe)
        model = Composed(
            config,
            embedding=embedding,
            first=parts[0],
            between=parts[1:-1],
            last=parts[-1],
            attentions=[attention(config, recipe.max_context) for _ in range(config.layers)],
            layers=range(config.layers),
            length=recipe.max_context,
        )
        self.on_stage("compose", f"{len(parts)} parts")
        edge = self._to_edge(model, config)
        outside = count_operators(edge.exported_program().graph)
        manager = edge.to_executorch(_backend_config(self.weights))
        self.on_stage("write", program.name)
        _write(manager, program)
        data = None
        if self.weights is not None:
            manager.write_tensor_data_to_file(str(program.parent))
            data = program.parent / f"{self.weights}.ptd"
        return Exported(
            program=program,
            data=data,
            delegation=Delegation(delegated=self.delegated, total=self.delegated + outside),
            unquantised=tuple(self.builder.unquantised),
            warnings=export_warnings(config, recipe),
        )

    def write_layer(self, recording: Recording, folder: Path) -> Path:
        """Write one layer, after `run`: up to its attention, and from there to the next one's."""
        recipe, layer, program = self.recipe, recording.layer, folder / REPLAY_NAME
        self.on_stage("compose", f"layer {layer} to replay")
        builder = replace(self.builder, unquantised=[])
        first, between = builder.pre(layer), builder.build(layer + 1)
        lowered = recipe.backend == "xnnpack"
        config = replace(self.config, layers=1, vocab=self.config.dim, embedding_scale=1.0)
        model = Composed(
            config,
            embedding=float_embedding(recording.inputs),
            first=self._delegate("first", first) if lowered else first,
            between=[self._delegate("between", between) if lowered else between],
            last=None,
            attentions=[_attention(config, recipe)(config, recipe.max_context)],
            layers=range(layer, layer + 1),
            length=recipe.max_context,
        )
        _write(self._to_edge(model, config).to_executorch(_backend_config(None)), program)
        return program

    def _plain_parts(self) -> Iterator[nn.Module]:
        """Parts as they are: the portable backend runs their operators one by one."""
        count = self.config.layers + 1
        for index in range(count):
            self.on_stage("quantise", f"part {index + 1} of {count}")
            yield self.builder.build(index)

    def _delegates(self) -> Iterator[nn.Module]:
        """Lower each kind of part once, and rename it for its siblings."""
        count = self.config.layers + 1
        for index in range(count):
            kind = part_kind(self.config, index)
            if kind not in self.lowered:
                self.on_stage("lower", f"{kind} part")
                self.lowered[kind] = self._lower(index, kind)
            self.on_stage("quantise", f"part {index + 1} of {count}")
            self.delegated += self.lowered[kind][0].operators
            yield self._delegate(kind, self.builder.build(index), self.weights)

    def _delegate(self, kind: PartKind, module: nn.Module, weights: str | None = None) -> nn.Module:
        part, signature = self.lowered[kind]
        delegate: nn.Module = sibling(part, part_constants(module), signature, weights)
        return delegate

    def _lower(self, index: int, kind: PartKind) -> tuple[LoweredPart, Any]:
        example = part_example(self.config, kind, self.recipe)
        stand_in = PartBuilder(self.config, synthetic_reader(self.config), self.form)
        part = lower_part(stand_in.build(index), example.inputs, example.dynamic_shapes)
        return part, signature_program(self.config, kind, example)

    def _to_edge(self, model: nn.Module, config: ModelConfig) -> Any:
        if self.recipe.dynamic_shape:
            tokens, shapes = torch.tensor([[2, 3, 4]]), ({1: sequence_dim(self.recipe)}, None)
        else:
            tokens, shapes = torch.tensor([[2]]), None
        program = torch.export.export(
            model, (tokens, torch.tensor([0])), dynamic_shapes=shapes, strict=False
        )
        return to_edge(
            program, compile_config=edge_config(), constant_methods=self._metadata(config)
        )

    def _metadata(self, config: ModelConfig) -> dict[str, Any]:
        """Constant methods that runners read before they run: stock names and meanings."""
        tokenizer, recipe = self.checkpoint.tokenizer, self.recipe
        methods: dict[str, Any] = {
            "get_vocab_size": config.vocab,
            "get_n_layers": config.layers,
            "get_max_seq_len": recipe.max_seq,
            "get_max_context_len": recipe.max_context,
            "use_kv_cache": True,
            "use_sdpa_with_kv_cache": fused_attention(config, recipe),
            "enable_dynamic_shape": recipe.dynamic_shape,
            "get_eos_ids": list(tokenizer.stop_ids),
        }
        if tokenizer.bos_id is not None:
            methods["get_bos_id"] = tokenizer.bos_id
        return methods


def _write(manager: Any, program: Path) -> None:
    with program.open("wb") as file:
        manager.write_to_file(file)


def _attention(config: ModelConfig, recipe: Recipe) -> Callable[[ModelConfig, int], nn.Module]:
    if not fused_attention(config, recipe):
        return PlainAttention
    return QuantisedAttention if recipe.quantised_kv_cache else CustomAttention


def _backend_config(weights: str | None) -> ExecutorchBackendConfig:
    def place(node: torch.fx.Node) -> str | None:
        return None if node.name.startswith(_OF_THE_RECIPE) else weights

    return ExecutorchBackendConfig(
        external_constants=place if weights is not None else False,
        extract_delegate_segments=True,
        memory_planning_pass=MemoryPlanningPass(alloc_graph_input=False),
        sym_shape_eval_pass=ConstraintBasedSymShapeEvalPass(),
    )
