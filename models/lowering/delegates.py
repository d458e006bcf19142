"""A part of the model lowered to one XNNPACK delegate, and siblings of it with other weights.

A delegate's program names each constant by the sha256 of its bytes and holds none of them. So a
layer with other weights has the same program with other names: passes run on one layer, its
siblings are renamed. Nothing is assumed silently: every constant of the part has to be found in
the program, or the export fails.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any

import torch
from executorch.exir import EdgeCompileConfig, to_edge
from torch import nn

from farm.core.errors import ExportError
from models.eager.quantise import QuantisedLinears
from models.lowering import slices as slices  # imported for what it registers
from models.lowering.private import (
    CompileSpec,
    LoweredBackendModule,
    NamedDataStore,
    is_dequant,
    is_dynamic_qdq,
    pack_4_bit,
    tag_as_implicit_q_dq,
    to_backend,
)

BACKEND = "XnnpackBackend"

#: Makes the backend run one pass over a part instead of fourteen. The others rewrite what our
#: parts don't have (convolutions, channels-last layouts, matmuls that were linears), and one of
#: them exports two models of its own each time.
_COMPILE_SPECS = [CompileSpec("dqlinear_partitioner", b"")]

#: Names of constants inside a delegate's program.
_CONSTANT_NAME = re.compile(rb"(?:scale_)?[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Constant:
    """Bytes of a delegate under the name that its program uses."""

    key: str
    data: bytes

    @staticmethod
    def names_in(program: bytes) -> list[str]:
        """Names of the constants that a delegate's program asks for."""
        return [found.decode() for found in _CONSTANT_NAME.findall(program)]


@dataclass(frozen=True, slots=True)
class LoweredPart:
    """A delegate without its weights: what all siblings share."""

    program: bytes
    #: Name of the buffer in the module -> name in the program.
    names: dict[str, str]
    #: Constants that aren't buffers of the module (epsilons): the same for every sibling.
    literals: tuple[Constant, ...]
    alignment: int
    #: Operators that run inside the delegate.
    operators: int


def edge_config() -> EdgeCompileConfig:
    """Edge configuration of parts and of the program around them.

    XNNPACK takes `linear` whole, and dim-order operators would only be reverted by its passes.
    A new one each time: to_edge doubles the list of preserved operators that it is given.
    """
    return EdgeCompileConfig(
        _check_ir_validity=False,
        _skip_dim_order=True,
        preserve_ops=[torch.ops.aten.linear.default],
    )


def part_constants(module: nn.Module) -> dict[str, Constant]:
    """Bytes of every constant of a part as XNNPACK stores them, by buffer name."""
    found: dict[str, Constant] = {}
    for prefix, child in module.named_modules():
        for name, value in child.named_buffers(prefix, recurse=False):
            local = name.rpartition(".")[2]
            quantised = isinstance(child, QuantisedLinears)
            if quantised and local.startswith("z"):
                continue
            if quantised and local.startswith("q"):
                form = child.forms[int(local[1:])]
                values = pack_4_bit(value) if form.bits == 4 else value
                found[name] = _constant(values)
            elif quantised and local.startswith("s"):
                grouped = child.forms[int(local[1:])].group
                scales = value.to(torch.bfloat16) if grouped else value
                found[name] = _constant(scales, prefix="scale_")
            else:
                found[name] = _constant(value)
    return found


def _constant(value: torch.Tensor, prefix: str = "") -> Constant:
    data = value.contiguous().view(torch.uint8).numpy().tobytes()
    return Constant(prefix + hashlib.sha256(data).hexdigest(), data)


def lower_part(
    module: nn.Module,
    example: tuple[torch.Tensor, ...],
    dynamic_shapes: tuple[Any, ...] | None,
) -> LoweredPart:
    """Lower a whole module to one delegate.

    Its buffers must differ from each other in content, or their names could not be told apart.

    Raises:
        ExportError: A buffer of the module isn't where XNNPACK's program should name it.
    """
    constants = part_constants(module)
    by_key: dict[str, str] = {}
    for name, constant in constants.items():
        if by_key.setdefault(constant.key, name) != name:
            raise ExportError(
                f"lowering: {name} and {by_key[constant.key]} hold the same bytes", stage="lower"
            )
    program = torch.export.export(module, example, dynamic_shapes=dynamic_shapes, strict=False)
    edge = to_edge(program, compile_config=edge_config()).exported_program()
    operators = count_operators(edge.graph)
    _tag_rounded_inputs(edge.graph)
    lowered = to_backend(BACKEND, edge, _COMPILE_SPECS)
    output = lowered.named_data_store_output
    missing = [name for name, constant in constants.items() if constant.key not in output.pte_data]
    if missing:
        raise ExportError(
            "lowering: this ExecuTorch packs constants in a way that farm doesn't know"
            f" ({', '.join(missing[:3])}); use `engine: stock` for this toolchain",
            stage="lower",
        )
    literals = tuple(
        Constant(key, bytes(output.buffers[entry.buffer_index]))
        for key, entry in output.pte_data.items()
        if key not in by_key
    )
    entries = output.pte_data.values()
    return LoweredPart(
        program=bytes(lowered.processed_bytes),
        names={name: constant.key for name, constant in constants.items()},
        literals=literals,
        alignment=max((entry.alignment for entry in entries), default=1),
        operators=operators,
    )


def _tag_rounded_inputs(graph: torch.fx.Graph) -> None:
    """Mark dequantised activations as part of the Linears that read them.

    Partitioners do it for the parts they cut out; a part that is lowered whole meets none.
    """
    for node in graph.nodes:
        if node.op == "call_function" and is_dequant(node) and is_dynamic_qdq(node):
            tag_as_implicit_q_dq(node)


def count_operators(graph: torch.fx.Graph) -> int:
    """Operators of a graph: calls that compute, delegates and tuple access not counted."""
    skipped = ("getitem", "executorch_call_delegate")
    return sum(
        node.op == "call_function" and getattr(node.target, "__name__", "") not in skipped
        for node in graph.nodes
    )


def sibling(
    part: LoweredPart,
    constants: dict[str, Constant],
    signature: torch.export.ExportedProgram,
    weights: str | None = None,
) -> LoweredBackendModule:
    """Build the delegate of a layer from the lowered part and the layer's own constants.

    Args:
        part: The lowered representative.
        constants: `part_constants` of the layer; the same buffer names as the part.
        signature: A program of the same inputs and outputs, for shapes only.
        weights: Name of the external file that takes the constants; None leaves them inside.
    """
    renamed = {
        part.names[name].encode(): constant.key.encode() for name, constant in constants.items()
    }
    program = _CONSTANT_NAME.sub(lambda m: renamed.get(m.group(0), m.group(0)), part.program)
    store = NamedDataStore()
    for constant in constants.values():
        store.add_named_data(constant.key, constant.data, part.alignment, weights)
    for constant in part.literals:
        store.add_named_data(constant.key, constant.data, part.alignment)
    return LoweredBackendModule(
        edge_program=signature,
        backend_id=BACKEND,
        processed_bytes=program,
        compile_specs=[],
        named_data_store_output=store.get_named_data_store_output(),
    )
