"""Whether a network is what an ONNX file may be: whole, of operators that Triton has, and a fixed amount of work."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from math import prod

import onnx
from google.protobuf.message import Error as ProtobufError
from onnx import TensorProto

from orchestrator.errors import UnreadableModel, UnsuitableModel

MIN_OPSET, MAX_OPSET = 7, 21
"""Operator sets a network may use: older ones broadcast differently; ONNX Runtime 1.19 of Triton 24.10 reads up to 21."""

KNOWN_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
"""Operator domains every ONNX Runtime has."""

MAX_NODES = 100_000
"""Most operators of a network, its own functions written out; the largest published ones here have 5,000."""

LOOPS = ("Loop", "Scan", "SequenceMap")
"""Operators that repeat a part of the network as often as they are told, be it for ever. No published network here has one."""

_MALFORMED = (
    *(ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError, ProtobufError),
    *(onnx.checker.ValidationError, onnx.shape_inference.InferenceError),
)
"""What code that works on a graph raises where the graph is malformed in a way that no check here knows."""


@contextmanager
def refusing_malformed(name: str) -> Iterator[None]:
    """Run code on the graph of a file from anywhere: what does not hold together there is refused, not a crash.

    Raises:
        UnreadableModel: the code failed on the graph.
    """
    try:
        yield
    except _MALFORMED as exc:
        reason = " ".join(str(exc).split())[:200]
        raise UnreadableModel(f"{name} is damaged: its graph contradicts itself ({type(exc).__name__}: {reason}); export it again.") from exc


def check_extent(name: str, model: onnx.ModelProto) -> None:
    """Check that running a network is a fixed amount of work, before anything follows its graph.

    Raises:
        UnsuitableModel: it has loops, or too many operators.
        UnreadableModel: a function of its own calls itself.
    """
    functions = {(function.domain, function.name): function for function in model.functions}
    open_calls: set[tuple[str, str]] = set()

    def count(nodes: Iterable[onnx.NodeProto]) -> int:
        total = 0
        for node in nodes:
            if node.op_type in LOOPS and node.domain in ("", "ai.onnx"):
                raise UnsuitableModel(
                    f"{name} repeats a part of itself ({node.op_type}), expected a fixed amount of work; export it traced, not scripted."
                )
            total += 1 + sum(count(graph.node) for attribute in node.attribute for graph in (attribute.g, *attribute.graphs))
            if (node.domain, node.op_type) in functions:
                total += count_function((node.domain, node.op_type))
        return total

    @cache
    def count_function(key: tuple[str, str]) -> int:
        if key in open_calls:
            raise UnreadableModel(f"{name} is damaged: its function {key[1]!r} calls itself; export it again.")
        open_calls.add(key)
        total = count(functions[key].node)
        open_calls.discard(key)
        return total

    total = sum(count_function(key) for key in functions) + count(model.graph.node)
    if total > MAX_NODES:
        raise UnsuitableModel(f"{name} has {total} operators, expected at most {MAX_NODES}; it is none of the networks this is for.")


def check_operators(name: str, model: onnx.ModelProto) -> None:
    """Check that Triton's ONNX Runtime has the operators.

    Raises:
        UnsuitableModel: it has not.
    """
    local = {function.domain for function in model.functions}
    foreign = [opset.domain for opset in model.opset_import if opset.domain not in KNOWN_DOMAINS and opset.domain not in local]
    used = {node.domain for node in model.graph.node}
    if missing := [domain for domain in foreign if domain in used]:
        raise UnsuitableModel(f"{name} uses operators of {missing[0]!r}, which Triton's ONNX Runtime lacks; export it with standard operators.")
    version = opset_of(model)
    if not MIN_OPSET <= version <= max(MAX_OPSET, onnx.defs.onnx_opset_version()):
        raise UnsuitableModel(
            f"{name} uses ONNX operator set {version}, expected {MIN_OPSET} to {MAX_OPSET}; export it with one of those (17 is a good choice)."
        )


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of the standard operator set that a model uses, 0 if it names none."""
    return max((opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx")), default=0)


def check_structure(name: str, model: onnx.ModelProto) -> None:
    """Check what the ONNX checker would, as far as it does not depend on the file's age.

    Raises:
        UnreadableModel: a weight has another size than it says, a value comes from nowhere, or a name would do something to a terminal.
    """
    if hidden := next((text for text in _names(model.graph) if not text.isprintable()), None):
        raise UnreadableModel(f"{name} is damaged: the name {hidden!r} holds characters that cannot be printed; export it again.")
    for tensor in all_tensors(model):
        size = _byte_size(tensor)
        if size is not None and tensor.raw_data and len(tensor.raw_data) != size:
            raise UnreadableModel(
                f"{name} is damaged: weight {tensor.name!r} holds {len(tensor.raw_data)} bytes, expected {size}; download it again."
            )
    known = {value.name for value in model.graph.input} | {tensor.name for tensor in model.graph.initializer}
    known |= {tensor.values.name for tensor in model.graph.sparse_initializer}
    for node in model.graph.node:
        if missing := [wanted for wanted in node.input if wanted and wanted not in known]:
            raise UnreadableModel(
                f"{name} is damaged: node {node.name or node.op_type!r} reads {missing[0]!r}, which nothing makes; export it again."
            )
        known.update(node.output)
    if missing := [value.name for value in model.graph.output if value.name not in known]:
        raise UnreadableModel(f"{name} is damaged: nothing makes its output {missing[0]!r}; download or export it again.")


def _names(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield every name that a message about the graph may show."""
    for value in (*graph.input, *graph.output):
        yield from (value.name, *(axis.dim_param for axis in value.type.tensor_type.shape.dim))
    yield from (tensor.name for tensor in graph.initializer)
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)


def all_tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Yield every tensor that a model holds, wherever."""
    yield from _tensors_of(model.graph)
    for function in model.functions:
        for node in function.node:
            yield from _tensors_of_node(node)


def _tensors_of(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from _tensors_of_node(node)


def _tensors_of_node(node: onnx.NodeProto) -> Iterator[TensorProto]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        if attribute.HasField("g"):
            yield from _tensors_of(attribute.g)
        for graph in attribute.graphs:
            yield from _tensors_of(graph)


_ITEM_BYTES: Mapping[int, int] = {
    TensorProto.FLOAT: 4,
    TensorProto.FLOAT16: 2,
    TensorProto.DOUBLE: 8,
    TensorProto.INT64: 8,
    TensorProto.INT32: 4,
    TensorProto.INT8: 1,
    TensorProto.UINT8: 1,
    TensorProto.BOOL: 1,
}


def _byte_size(tensor: TensorProto) -> int | None:
    item = _ITEM_BYTES.get(tensor.data_type)
    return None if item is None else item * prod(tensor.dims)
