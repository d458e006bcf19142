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

from farm.core.artifact import Delegation, Recipe, TensorCheck
from models.checkpoint import Checkpoint, TokenizerData, layer_tensors, outer_tensors
from models.config import ModelConfig
from models.eager.embedding import build_embedding, float_embedding
from models.eager.layer_replay import Recording
from models.eager.parts import PartBuilder, PartKind, part_kind, synthetic_reader, tied_reader
from models.eager.quantise import LinearFormat, formats
from models.eager.rotation import as_quantised
from models.lowering.attention import CustomAttention, PlainAttention, QuantisedAttention
from models.lowering.audit import Placed, check_weights, placed
from models.lowering.checks import check_recipe, export_warnings, fused_attention
from models.lowering.compose import Composed
from models.lowering.delegates import (
    Constant,
    LoweredPart,
    count_operators,
    edge_config,
    lower_part,
    part_constants,
    sibling,
)
from models.lowering.private import ConstraintBasedSymShapeEvalPass, MemoryPlanningPass
from models.lowering.signatures import part_example, sequence_dim, signature_program
from models.lowering.written import Written

#: Called at the start of each stage: its name, and a detail for people.
OnStage = Callable[[str, str], None]

#: Stages in order; `quantise` and `lower` alternate.
STAGES = ("read", "lower", "quantise", "compose", "write", "check")

#: Name of the file of external weights, without its suffix.
_WEIGHTS = "model"
#: File of the one layer.
REPLAY_NAME = "replay.pte"
#: Constants that follow from the recipe, not from the checkpoint: they stay in the program, or
#: equal weights would give different files.
_OF_THE_RECIPE = ("b_cos_", "b_sin_", "b_places", "b_attentions_")


#: Parts of one kind with equal formats have one graph.
_Graph = tuple[PartKind, tuple[LinearFormat | None, ...]]


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
    #: Every weight of the files, read back; empty for programs without delegates.
    weights: tuple[TensorCheck, ...] = ()


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
        self.checkpoint = checkpoint = as_quantised(checkpoint, recipe)
        self.config = checkpoint.config
        self.recipe = recipe
        self.on_stage = on_stage
        self.builder = PartBuilder(
            checkpoint.config, tied_reader(checkpoint.config, checkpoint.tensor), formats(recipe)
        )
        self.weights = _WEIGHTS if recipe.external_weights else None
        self.delegated = 0
        #: One delegate of each graph, without weights, and what shapes its results have.
        self.lowered: dict[_Graph, tuple[LoweredPart, Any]] = {}
        #: Where each weight stands in the delegates.
        self.placed: list[Placed] = []

    def run(self, program: Path) -> Exported:
        config, recipe = self.config, self.recipe
        self.on_stage("read", f"{config.parameters / 1e6:.0f}M parameters")
        embedding = build_embedding(self.checkpoint.tensor("tok_embeddings.weight"), recipe)
        parts = list(self._delegates() if recipe.backend == "xnnpack" else self._plain_parts())
        model = Composed(
            config,
            embedding=embedding,
            first=parts[0],
            between=parts[1:-1],
            last=parts[-1],
            attentions=attentions(config, recipe, config.layers),
            layers=range(config.layers),
            length=recipe.max_context,
        )
        self.on_stage("compose", f"{len(parts)} parts")
        edge = _to_edge(model, config, recipe, self.checkpoint.tokenizer)
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
            weights=self._read_back(program, data),
        )

    def _read_back(self, program: Path, data: Path | None) -> tuple[TensorCheck, ...]:
        """Hold what was written against the checkpoint, which is read anew."""
        if not self.placed:
            return ()
        self.on_stage("check", f"{len(self.placed)} tensors against their sources")
        written = Written(program, data)
        read, config = self.checkpoint.tensor, self.config
        found = tuple(check_weights(config, self.recipe, read, self.placed, written))
        wanted = set(outer_tensors(config))
        wanted.update(*(layer_tensors(config, layer) for layer in range(config.layers)))
        unread = sorted(wanted - {check.name for check in found})
        return (*found, *(TensorCheck(n, None, reason="it was not read back") for n in unread))

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
            first=self._delegate(layer, "first", part_constants(first)) if lowered else first,
            between=[
                self._delegate(layer + 1, "between", part_constants(between))
                if lowered
                else between
            ],
            last=None,
            attentions=attentions(config, recipe, 1),
            layers=range(layer, layer + 1),
            length=recipe.max_context,
        )
        write_program(model, config, recipe, self.checkpoint.tokenizer, program)
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
            part, _ = self._lowered(index, kind)
            self.on_stage("quantise", f"part {index + 1} of {count}")
            self.delegated += part.operators
            module = self.builder.build(index)
            constants = part_constants(module)
            keys = {name: constant.key for name, constant in constants.items()}
            self.placed += placed(module, keys, index, self.config.layers)
            yield self._delegate(index, kind, constants, self.weights)

    def _delegate(
        self,
        index: int,
        kind: PartKind,
        constants: dict[str, Constant],
        weights: str | None = None,
    ) -> nn.Module:
        part, signature = self._lowered(index, kind)
        delegate: nn.Module = sibling(part, constants, signature, weights)
        return delegate

    def _lowered(self, index: int, kind: PartKind) -> tuple[LoweredPart, Any]:
        key = kind, self.builder.forms(index, kind)
        if key not in self.lowered:
            self.on_stage("lower", f"{kind} part")
            example = part_example(self.config, kind, self.recipe)
            builder = replace(self.builder, read=synthetic_reader(self.config), unquantised=[])
            stand_in = builder.pre(index) if kind == "first" else builder.build(index)
            part = lower_part(stand_in, example.inputs, example.dynamic_shapes)
            self.lowered[key] = part, signature_program(self.config, kind, example)
        return self.lowered[key]


def write_program(
    model: nn.Module, config: ModelConfig, recipe: Recipe, tokenizer: TokenizerData, program: Path
) -> None:
    """Write a composed model with all it needs to one file."""
    edge = _to_edge(model, config, recipe, tokenizer)
    _write(edge.to_executorch(_backend_config(None)), program)


def _to_edge(
    model: nn.Module, config: ModelConfig, recipe: Recipe, tokenizer: TokenizerData
) -> Any:
    if recipe.dynamic_shape:
        tokens, shapes = torch.tensor([[2, 3, 4]]), ({1: sequence_dim(recipe)}, None)
    else:
        tokens, shapes = torch.tensor([[2]]), None
    program = torch.export.export(
        model, (tokens, torch.tensor([0])), dynamic_shapes=shapes, strict=False
    )
    methods = _metadata(config, recipe, tokenizer)
    return to_edge(program, compile_config=edge_config(), constant_methods=methods)


def _metadata(config: ModelConfig, recipe: Recipe, tokenizer: TokenizerData) -> dict[str, Any]:
    """Constant methods that runners read before they run: stock names and meanings."""
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


def attentions(config: ModelConfig, recipe: Recipe, count: int) -> list[nn.Module]:
    """Attentions of `count` layers, each with a cache of its own."""
    kind: Callable[[ModelConfig, int], nn.Module] = PlainAttention
    if fused_attention(config, recipe):
        kind = QuantisedAttention if recipe.quantised_kv_cache else CustomAttention
    return [kind(config, recipe.max_context) for _ in range(count)]


def _backend_config(weights: str | None) -> ExecutorchBackendConfig:
    def place(node: torch.fx.Node) -> str | None:
        return None if node.name.startswith(_OF_THE_RECIPE) else weights

    return ExecutorchBackendConfig(
        external_constants=place if weights is not None else False,
        extract_delegate_segments=True,
        memory_planning_pass=MemoryPlanningPass(alloc_graph_input=False),
        sym_shape_eval_pass=ConstraintBasedSymShapeEvalPass(),
    )
