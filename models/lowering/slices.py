"""Slices inside a delegate whose other dimensions the device decides.

ExecuTorch writes the greatest length of a sequence into a slice, and XNNPACK then refuses shorter
ones. A size of 0 tells XNNPACK to take what there is. Importing this module replaces the writer of
slices in this process.
"""

from __future__ import annotations

from typing import Any

import torch

from farm.core.errors import ExportError
from models.lowering.private import (
    NodeVisitor,
    XNNStaticSlice,
    XNode,
    get_input_node,
    get_shape,
    register_node_visitor,
)


class _InferredSlice(NodeVisitor):  # type: ignore[misc]  # executorch has no types
    target = "aten.slice_copy.Tensor"

    def define_node(
        self,
        node: torch.fx.Node,
        xnn_graph: Any,
        vals_to_ids: dict[torch.fx.Node, int],
        debug_handle: int,
    ) -> None:
        """Append the slice to the delegate's graph."""
        self.define_nodes_tensor_inputs_outputs(node, xnn_graph, vals_to_ids)
        source = get_input_node(node, 0)
        if "XNN_NHWC_NODE" in node.meta or (len(node.args) > 4 and node.args[4] != 1):
            raise ExportError(
                f"lowering: {node} is a slice with steps or of an image", stage="lower"
            )
        shape, (sliced, first) = list(get_shape(node)), node.args[1:3]
        slice_ = XNNStaticSlice(
            num_dims=len(shape),
            offsets=[first if dim == sliced else 0 for dim in range(len(shape))],
            sizes=[size if dim == sliced else 0 for dim, size in enumerate(shape)],
            input_id=vals_to_ids[source],
            output_id=vals_to_ids[node],
            flags=0,
        )
        xnn_graph.xnodes.append(XNode(xnode_union=slice_, debug_handle=debug_handle))


register_node_visitor(_InferredSlice)
