"""Raising old operator sets to the one the contract's graphs use, with the meaning of every operator kept.

ONNX's own converter bakes shapes into some of its replacements and does not know others; the operators below are all whose signature
or meaning changed between sets 7 and 17 and that have an equivalent.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from onnx import helper, inliner, numpy_helper

from orchestrator.errors import UnsuitableModel
from orchestrator.models.graph import OPSET, replace_nodes
from orchestrator.models.soundness import MAX_OPSET, opset_of


class _Rewriter:
    """Collects the nodes and constants that replace a graph's nodes."""

    def __init__(self, graph: onnx.GraphProto, ranks: Mapping[str, int], tag: str) -> None:
        self.graph = graph
        self.ranks = ranks
        self.nodes: list[onnx.NodeProto] = []
        self._tag = tag
        self._count = 0

    def name(self) -> str:
        self._count += 1
        return f"{self._tag}.{self._count}"

    def integers(self, values: list[int]) -> str:
        return self.tensor(np.asarray(values, np.int64))

    def tensor(self, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> str:
        name = self.name()
        self.graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def add(self, kind: str, inputs: list[str], outputs: list[str], **attributes: Any) -> None:
        self.nodes.append(helper.make_node(kind, inputs, outputs, **attributes))


def to_current_opset(model: onnx.ModelProto, ranks: Mapping[str, int]) -> int:
    """Bring a model, in place, to an operator set that both the contract's graphs and Triton's ONNX Runtime can use, and return it.

    Functions that the model defines itself are written out.

    Args:
        model: the network.
        ranks: number of axes of its values, as far as known.

    Raises:
        UnsuitableModel: an operator has no equivalent.
    """
    if model.functions:
        model.CopyFrom(inliner.inline_local_functions(model))
    version = opset_of(model)
    _raise_graph(model.graph, version, ranks, "raised")
    target = min(max(version, OPSET), MAX_OPSET)
    domains = {node.domain for node in _all_nodes(model.graph)} - {"", "ai.onnx"}
    others = [opset for opset in model.opset_import if opset.domain in domains]
    kept = [helper.make_opsetid("", target), *(helper.make_opsetid(opset.domain, opset.version) for opset in others)]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    return target


def _all_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    found = list(graph.node)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                found += _all_nodes(attribute.g)
    return found


def _raise_graph(graph: onnx.GraphProto, version: int, ranks: Mapping[str, int], tag: str) -> None:
    rewriter = _Rewriter(graph, ranks, tag)
    for number, node in enumerate(graph.node):
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _raise_graph(attribute.g, version, ranks, f"{tag}.{number}")
        change = _CHANGES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if change is not None and version < change[0]:
            change[1](rewriter, node)
        else:
            rewriter.nodes.append(node)
    replace_nodes(graph, rewriter.nodes)


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _list(value: object) -> list[int]:
    assert isinstance(value, list)
    return [int(item) for item in value]


def _with_inputs(*names: str) -> Callable[[_Rewriter, onnx.NodeProto], None]:
    """Return a change that turns attributes, lists or numbers, into inputs behind the first one."""

    def change(rewriter: _Rewriter, node: onnx.NodeProto) -> None:
        attributes = _attributes(node)
        if len(node.input) > 1 or not any(name in attributes for name in names):
            rewriter.nodes.append(node)
            return
        inputs = [node.input[0]]
        for name in names:
            value = attributes.pop(name, None)
            inputs.append("" if value is None else rewriter.integers(_list(value if isinstance(value, list) else [value])))
        while inputs[-1] == "":
            inputs.pop()
        rewriter.add(node.op_type, inputs, list(node.output), **attributes)

    return change


def _slice(rewriter: _Rewriter, node: onnx.NodeProto) -> None:
    attributes = _attributes(node)
    starts = _list(attributes["starts"])
    axes = _list(attributes.get("axes", list(range(len(starts)))))
    inputs = [rewriter.integers(values) for values in (starts, _list(attributes["ends"]), axes)]
    rewriter.add("Slice", [node.input[0], *inputs], list(node.output))


def _clip(rewriter: _Rewriter, node: onnx.NodeProto) -> None:
    attributes = _attributes(node)
    limits = [rewriter.tensor(np.asarray(attributes[name], np.float32)) if name in attributes else "" for name in ("min", "max")]
    rewriter.add("Clip", [node.input[0], *limits], list(node.output))


def _pad(rewriter: _Rewriter, node: onnx.NodeProto) -> None:
    attributes = _attributes(node)
    value = rewriter.tensor(np.asarray(attributes.get("value", 0.0), np.float32))
    pads = rewriter.integers(_list(attributes["pads"]))
    rewriter.add("Pad", [node.input[0], pads, value], list(node.output), mode=attributes.get("mode", b"constant"))


def _resize(rewriter: _Rewriter, node: onnx.NodeProto) -> None:
    """Bring Upsample, and Resize as it was in set 10, to today's Resize: their pixel grid is the asymmetric one.

    Sets 11 and 12 have today's Resize, but wanted empty scales where there are sizes, and today's wants none. ONNX's own converter leaves them.
    """
    attributes = _attributes(node)
    if len(node.input) > 2:
        inputs = list(node.input)
        if len(inputs) > 3 and inputs[3]:
            inputs[2] = ""
        rewriter.add("Resize", inputs, list(node.output), **attributes)
        return
    scales = node.input[1] if len(node.input) > 1 else rewriter.tensor(np.asarray(attributes["scales"], np.float32))
    mode = attributes.get("mode", b"nearest")
    rewriter.add(
        "Resize",
        [node.input[0], "", scales],
        list(node.output),
        mode="linear" if mode in (b"linear", b"bilinear") else "nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )


def _softmax(rewriter: _Rewriter, node: onnx.NodeProto) -> None:
    """Keep the old meaning: the axes from `axis` on are one."""
    axis = int(str(_attributes(node).get("axis", 1)))
    rank = rewriter.ranks.get(node.input[0])
    if axis == -1 or (rank is not None and axis % rank == rank - 1):
        rewriter.add(node.op_type, [node.input[0]], list(node.output), axis=-1)
        return
    shape, flat, soft = rewriter.name(), rewriter.name(), rewriter.name()
    rewriter.add("Shape", [node.input[0]], [shape])
    rewriter.add("Flatten", [node.input[0]], [flat], axis=axis)
    rewriter.add(node.op_type, [flat], [soft], axis=-1)
    rewriter.add("Reshape", [soft, shape], list(node.output))


def _dropout(rewriter: _Rewriter, node: onnx.NodeProto) -> None:
    rewriter.add("Identity", [node.input[0]], [node.output[0]])


def _batch_normalization(rewriter: _Rewriter, node: onnx.NodeProto) -> None:
    attributes = _attributes(node)
    if attributes.get("spatial", 1) != 1:
        raise UnsuitableModel("The model normalises every pixel by itself (BatchNormalization with spatial=0); export it with a newer operator set.")
    kept = {name: value for name, value in attributes.items() if name == "epsilon"}
    rewriter.add("BatchNormalization", list(node.input), [node.output[0]], **kept)


def _scatter(rewriter: _Rewriter, node: onnx.NodeProto) -> None:
    rewriter.add("ScatterElements", list(node.input), list(node.output), **_attributes(node))


_CHANGES: Mapping[str, tuple[int, Callable[[_Rewriter, onnx.NodeProto], None]]] = MappingProxyType(
    {
        "Slice": (10, _slice),
        "TopK": (10, _with_inputs("k")),
        "Upsample": (10, _resize),
        "Clip": (11, _clip),
        "Pad": (11, _pad),
        "Resize": (MAX_OPSET + 1, _resize),
        "Scatter": (11, _scatter),
        "Dropout": (12, _dropout),
        "Squeeze": (13, _with_inputs("axes")),
        "Unsqueeze": (13, _with_inputs("axes")),
        "ReduceSum": (13, _with_inputs("axes")),
        "Split": (13, _with_inputs("split")),
        "Softmax": (13, _softmax),
        "LogSoftmax": (13, _softmax),
        "Hardmax": (13, _softmax),
        "BatchNormalization": (14, _batch_normalization),
    }
)
"""For each operator, the set that changed it and how to say the old one in the new way."""
