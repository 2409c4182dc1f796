"""Making the batch axis of a network real: exports that were traced with one picture have that 1 baked into shapes.

The graph is brought to static shapes for one item. Then the batch axis is followed from the inputs through every node; where a node
holds the 1 as a number, the number is replaced. A node that would mix items, or that cannot be told not to, stops it with a reason.
"""

import math
from collections.abc import Mapping, Sequence

import onnx

from orchestrator.models.batch_rules import RULES
from orchestrator.models.item_graph import Axis, ItemGraph, NotBatchable, fix_shapes


def make_batchable(model: onnx.ModelProto, input_shapes: Mapping[str, Sequence[int]], batched: Sequence[str]) -> None:
    """Rewrite a model, in place, so that the first axis of `batched` inputs and of every output may have any size.

    Args:
        model: at today's operator set, its weights not among the inputs.
        input_shapes: static shape of every input for one item.
        batched: the inputs that have one row an item.

    Outputs keep their rank or lose it where the axis was folded or squeezed away: their elements always lie item by item.

    Raises:
        NotBatchable: a node cannot work on several items at once.
    """
    graph = fix_shapes(model, input_shapes)
    for name in input_shapes:
        graph.axes[name] = Axis(0, 1, input_shapes[name][0]) if name in batched else None
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in model.graph.node]
    del model.graph.node[:]
    for node in nodes:
        _follow(graph, node)
        model.graph.node.append(node)
    for output in model.graph.output:
        axis = graph.axes.get(output.name)
        if axis is None:
            raise NotBatchable(f"output {output.name!r} does not depend on the input")
        if math.prod(graph.shape(output.name)[: axis.index]) * axis.outer != 1:
            raise NotBatchable(f"output {output.name!r} mixes the rows of several items")
        del output.type.tensor_type.shape.dim[:]
        output.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]


def _follow(graph: ItemGraph, node: onnx.NodeProto) -> None:
    """Find where a node's outputs carry the batch, and take the baked 1 out of the node.

    Raises:
        NotBatchable: it cannot work on several items.
    """
    axes = [graph.axes.get(name) if name else None for name in node.input]
    if not any(axes):
        if any(attribute.HasField("g") for attribute in node.attribute) and any(graph.axes.get(name) for name in _captured(node)):
            raise NotBatchable(f"node {_label(node)} branches or loops on items")
        for name in node.output:
            graph.axes[name] = None
        return
    rule = RULES.get(node.op_type)
    if rule is None:
        raise NotBatchable(f"what {_label(node)} does with a batch is not known")
    try:
        found = rule(graph, node, axes)
    except NotBatchable as exc:
        raise NotBatchable(f"{_label(node)}: {exc}") from None
    for index, name in enumerate(node.output):
        graph.axes[name] = found[min(index, len(found) - 1)]


def _label(node: onnx.NodeProto) -> str:
    return f"{node.op_type} {node.name or node.output[0]!r}"


def _captured(node: onnx.NodeProto) -> set[str]:
    return {name for attribute in node.attribute for inner in attribute.g.node for name in (*inner.input, *_captured(inner))}
