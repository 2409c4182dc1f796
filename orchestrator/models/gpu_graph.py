"""What ONNX Runtime's GPU providers can make of a graph, as far as its file shows."""

from dataclasses import dataclass

import onnx
from onnx import TensorProto

_LEFT_OUT = frozenset({"NonMaxSuppression", "NonZero", "RoiAlign", "Scan", "Loop", "If"})
"""Operators that ONNX Runtime may keep from TensorRT: those whose results have a size that depends on the data (with TensorRT 10.0 to 10.7 always),
and those with a graph inside, where an operator in it is not TensorRT's."""


@dataclass(frozen=True, slots=True)
class GraphTraits:
    """What the GPU configurations of a model depend on."""

    fits_one_engine: bool = True
    """See the function of that name."""
    samples_grid: bool = False
    """Whether it has a GridSample: the CUDA provider has that operator for pictures with their channels last only, and would leave it to the
    CPU unless told to prefer that layout (`prefer_nhwc`, ONNX Runtime 1.20 and later; it turns the pictures round itself)."""


def graph_traits(model: onnx.ModelProto) -> GraphTraits:
    """Look at a graph."""
    return GraphTraits(fits_one_engine(model), any(node.op_type == "GridSample" for node in model.graph.node))


def fits_one_engine(model: onnx.ModelProto) -> bool:
    """Tell whether TensorRT takes a graph as a whole: no operator is left out, and bytes are cast where they come in and go out and nowhere else.

    TensorRT has UINT8 for the inputs and outputs of an engine only, and there only next to a Cast. Operators on bytes in between (a Slice,
    a Concat) split the graph, as do those left out: ONNX Runtime runs them with CUDA, and the engines between them begin at tensors of no known size.
    """
    graph = model.graph
    bytes_in = {value.name for value in graph.input if value.type.tensor_type.elem_type == TensorProto.UINT8}
    bytes_out = {value.name for value in graph.output if value.type.tensor_type.elem_type == TensorProto.UINT8}
    made_by = {name: node for node in graph.node for name in node.output}
    reads_bytes = all(node.op_type == "Cast" for node in graph.node if bytes_in & set(node.input))
    casts = {name for name, node in made_by.items() if node.op_type == "Cast" and _target(node) == TensorProto.UINT8}
    ends = {_through_identity(name, made_by) for name in bytes_out}
    return reads_bytes and casts == ends and not _LEFT_OUT & {node.op_type for node in graph.node}


def _target(node: onnx.NodeProto) -> int:
    return next(int(attribute.i) for attribute in node.attribute if attribute.name == "to")


def _through_identity(name: str, made_by: dict[str, onnx.NodeProto]) -> str:
    while name in made_by and made_by[name].op_type == "Identity":
        name = made_by[name].input[0]
    return name
