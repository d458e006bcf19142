"""Every piece of ExecuTorch that the farm engine stands on and that isn't public API.

Another ExecuTorch may have moved any of them. Importing this module then says which one.
Stock's exporter is asked for by `models.lowering.stock`, which works without these.
"""

from __future__ import annotations

import importlib.metadata

from farm.core.errors import ExportError

#: Releases whose pieces these are, as the tests ran with them.
TESTED = "1.5.1"


def moved(error: ImportError | AttributeError) -> ExportError:
    """The error of a piece that isn't where it was."""
    piece = str(error).partition(" (")[0]
    return ExportError(
        f"farm's own exporter stands on a private piece of ExecuTorch that version"
        f" {importlib.metadata.version('executorch')} doesn't have: {piece}. It was made for"
        f" {TESTED}: use `engine: stock` for this toolchain",
        stage="lower",
    )


try:
    from executorch.backends.transforms import get_shape
    from executorch.backends.xnnpack.operators.node_visitor import (
        NodeVisitor,
        register_node_visitor,
    )
    from executorch.backends.xnnpack.serialization.xnnpack_graph_schema import (
        XNNStaticSlice,
        XNode,
    )
    from executorch.backends.xnnpack.utils.quant_utils import (
        is_dequant,
        is_dynamic_qdq,
        tag_as_implicit_q_dq,
    )
    from executorch.backends.xnnpack.utils.utils import get_input_node
    from executorch.exir._serialize._flatbuffer_program import (
        _flatbuffer_to_program as read_program,
    )
    from executorch.exir._serialize._named_data_store import NamedDataStore
    from executorch.exir._serialize._program import _get_extended_header as program_header
    from executorch.exir.backend.backend_api import to_backend
    from executorch.exir.backend.compile_spec_schema import CompileSpec
    from executorch.exir.lowered_backend_module import LoweredBackendModule
    from executorch.exir.passes import MemoryPlanningPass
    from executorch.exir.passes.sym_shape_eval_pass import ConstraintBasedSymShapeEvalPass
    from executorch.exir.scalar_type import ScalarType
    from executorch.exir.schema import DataLocation, DelegateCall
    from executorch.extension.flat_tensor.serialize.serialize import FlatTensorSerializer
    from executorch.extension.llm.custom_ops import custom_ops  # registers llama::*
    from executorch.kernels import quantized  # registers the embedding kernels

    #: Packs 4-bit weights as XNNPACK stores them.
    pack_4_bit = NodeVisitor.convert_to_qc4w
except (ImportError, AttributeError) as error:
    raise moved(error) from error

__all__ = [
    "CompileSpec",
    "ConstraintBasedSymShapeEvalPass",
    "DataLocation",
    "DelegateCall",
    "FlatTensorSerializer",
    "LoweredBackendModule",
    "MemoryPlanningPass",
    "NamedDataStore",
    "NodeVisitor",
    "ScalarType",
    "XNNStaticSlice",
    "XNode",
    "custom_ops",
    "get_input_node",
    "get_shape",
    "is_dequant",
    "is_dynamic_qdq",
    "pack_4_bit",
    "program_header",
    "quantized",
    "read_program",
    "register_node_visitor",
    "tag_as_implicit_q_dq",
    "to_backend",
]
