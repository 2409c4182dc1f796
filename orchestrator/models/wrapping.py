"""Putting a role's contract around a published network: one graph, uint8 pictures in, the role's answer out, any number of items."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from orchestrator.errors import UnsuitableModel
from orchestrator.models.batch import make_batchable
from orchestrator.models.config import ModelConfig
from orchestrator.models.graph import FLOAT, Graph, Value, names_read, replace_nodes
from orchestrator.models.item_graph import NotBatchable, fix_shapes, infer_shapes
from orchestrator.models.network import Network
from orchestrator.models.opset import to_current_opset

Arrays = Mapping[str, NDArray[Any]]
"""Arrays by name."""

Run = Callable[[Mapping[str, Value]], Mapping[str, Value]]
"""Appends the network to the graph: its inputs by name, float32, to its outputs by name, float32."""

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)
"""Element types a network may compute with."""


class Wrapping(ABC):
    """How one network becomes a role's model, twice: as a graph, and as array code that says what the graph should answer."""

    __slots__ = ()

    network: Network
    """The network, untouched."""
    shared_inputs: tuple[str, ...] = ()
    """Inputs of the network that are the same for all items."""

    @property
    def input_name(self) -> str:
        """The name of the network's first input, of most the only one."""
        return self.network.inputs[0].name

    @property
    def output_name(self) -> str:
        """The name of the network's first output, of most the only one that is used."""
        return self.network.outputs[0].name

    @property
    @abstractmethod
    def config(self) -> ModelConfig:
        """Triton's view of the model."""

    @property
    @abstractmethod
    def input_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of each of the network's inputs for one item.

        The first axis is the batch's, of size 1; a network without a batch axis has another size there.
        """

    @abstractmethod
    def draw(self, graph: Graph, run: Run) -> None:
        """Append the whole model to a graph."""

    @abstractmethod
    def feed(self, item: Arrays) -> Arrays:
        """Return the network's inputs for one item of the model's inputs (no batch axis), float32.

        The first axis has the size of the network's own, or that times how often the network runs for one item.
        """

    @abstractmethod
    def read(self, outputs: Arrays) -> Arrays:
        """Return what the model answers for one item (no batch axis), by value name, from the network's outputs."""


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A finished model."""

    model: onnx.ModelProto
    obstacle: str | None
    """Why its items run one after another inside a batch; None where they run together."""


def wrap(wrapping: Wrapping) -> Wrapped:
    """Put the contract around a network and make its batch axis real.

    Where the network cannot work on several items at once, the graph runs it item by item (Scan): slower, but every item is right.

    Raises:
        UnsuitableModel: the network uses operators that cannot be brought to today's, or contradicts itself.
    """
    network = wrapping.network
    shapes = wrapping.input_shapes
    model = _prepared(network, shapes)
    opset = to_current_opset(model, _ranks(model))
    obstacle = None
    try:
        if any(shapes[name][0] != 1 for name in shapes if name not in wrapping.shared_inputs):
            raise NotBatchable("it has no batch axis")
        batched = _copy(model)
        make_batchable(batched, shapes, [name for name in shapes if name not in wrapping.shared_inputs])

        def append(graph: Graph, inputs: Mapping[str, Value]) -> Mapping[str, Value]:
            return graph.include(batched.graph, inputs)

        return Wrapped(_assembled(wrapping, model, opset, append), None)
    except NotBatchable as exc:
        obstacle = str(exc)
    try:
        single = _item_network(model, shapes, wrapping.shared_inputs)
    except NotBatchable as exc:
        raise UnsuitableModel(f"{network.file} cannot be served: {exc}.") from exc

    def append_scan(graph: Graph, inputs: Mapping[str, Value]) -> Mapping[str, Value]:
        shared = {name: value for name, value in inputs.items() if name in wrapping.shared_inputs}
        return graph.scan(single.graph, {name: value for name, value in inputs.items() if name not in shared}, shared)

    return Wrapped(_assembled(wrapping, model, opset, append_scan), obstacle)


def check_floats(network: Network, pack: str, expected: list[str], shared: tuple[str, ...] = ()) -> None:
    """Refuse a network that does not compute with floats; `shared` inputs may also be double.

    Raises:
        UnsuitableModel: an input or output has another element type.
    """
    types = {tensor.name: tensor.dtype for tensor in (*network.outputs, *network.inputs)}
    if any(dtype not in (*FLOATS, TensorProto.DOUBLE) if name in shared else dtype not in FLOATS for name, dtype in types.items()):
        raise network.mismatch(pack, expected, "its element types differ")


def resolve_outputs(network: Network, input_shapes: Mapping[str, tuple[int, ...]]) -> Network:
    """Return the network with the sizes of its outputs worked out for one item, where the file names axes instead of telling them.

    Tracers leave names like `Sigmoidscore_dim_1`. What cannot be worked out stays as declared.
    """
    if all(isinstance(size, int) and size > 0 for tensor in network.outputs for size in tensor.shape[1:]) and all(t.shape for t in network.outputs):
        return network
    model = _prepared(network, input_shapes)
    try:
        to_current_opset(model, _ranks(model))
        known = fix_shapes(model, input_shapes).shapes
    except (NotBatchable, UnsuitableModel):
        return network
    return replace(network, outputs=tuple(replace(tensor, shape=known.get(tensor.name, tensor.shape)) for tensor in network.outputs))


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _prepared(network: Network, shapes: Mapping[str, tuple[int, ...]]) -> onnx.ModelProto:
    """Return a copy whose inputs are the real ones, in the order and shape used, and that computes nothing but the outputs used."""
    model = _copy(network.model)
    _keep_outputs(model.graph, {tensor.name for tensor in network.outputs})
    real = [value for value in model.graph.input if value.name in shapes]
    kept = [helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, list(shapes[value.name])) for value in real]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    del model.graph.value_info[:]
    return model


def _keep_outputs(graph: onnx.GraphProto, names: Set[str]) -> None:
    """Leave out, in place, what only other outputs need: a branch that nobody reads could stand in the way of a real batch axis."""
    if all(value.name in names for value in graph.output):
        return
    for index in reversed(range(len(graph.output))):
        if graph.output[index].name not in names:
            del graph.output[index]
    needed = set(names)
    for index in reversed(range(len(graph.node))):
        node = graph.node[index]
        if needed.isdisjoint(node.output):
            del graph.node[index]
        else:
            needed |= names_read([node])


def _ranks(model: onnx.ModelProto) -> Mapping[str, int]:
    inferred = infer_shapes(model).graph
    ranks = {tensor.name: len(tensor.dims) for tensor in inferred.initializer}
    for value in (*inferred.value_info, *inferred.input, *inferred.output):
        if value.type.tensor_type.HasField("shape"):
            ranks[value.name] = len(value.type.tensor_type.shape.dim)
    return ranks


def _item_network(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]], shared: tuple[str, ...]) -> onnx.ModelProto:
    """Return a copy that reads items without a batch axis, with the shapes of its outputs declared where they are known."""
    single = _copy(model)
    known = fix_shapes(single, shapes).shapes
    for output in single.graph.output:
        shape = known.get(output.name)
        output.CopyFrom(helper.make_tensor_value_info(output.name, output.type.tensor_type.elem_type, None if shape is None else list(shape)))
    nodes = []
    for value in single.graph.input:
        if value.name not in shared:
            whole, whole_shape = f"whole.{value.name}", f"shape.{value.name}"
            single.graph.initializer.append(helper.make_tensor(whole_shape, TensorProto.INT64, [len(shapes[value.name])], shapes[value.name]))
            nodes.append(helper.make_node("Reshape", [value.name, whole_shape], [whole]))
            for node in single.graph.node:
                node.input[:] = [whole if name == value.name else name for name in node.input]
            item_shape = shapes[value.name][1:] if shapes[value.name][0] == 1 else shapes[value.name]
            value.CopyFrom(helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, list(item_shape)))
    replace_nodes(single.graph, [*nodes, *single.graph.node])
    return single


def _assembled(
    wrapping: Wrapping, model: onnx.ModelProto, opset: int, append: Callable[[Graph, Mapping[str, Value]], Mapping[str, Value]]
) -> onnx.ModelProto:
    graph = Graph(wrapping.config.role, opset)
    for domain in model.opset_import:
        if domain.domain:
            graph.add_domain(domain.domain, domain.version)
    input_types = {tensor.name: tensor.dtype for tensor in wrapping.network.inputs}
    output_types = {tensor.name: tensor.dtype for tensor in wrapping.network.outputs}

    def run(inputs: Mapping[str, Value]) -> Mapping[str, Value]:
        feeds = {name: value if input_types[name] == FLOAT else value.cast(input_types[name]) for name, value in inputs.items()}
        outputs = append(graph, feeds)
        return MappingProxyType({name: value if output_types[name] == FLOAT else value.cast(FLOAT) for name, value in outputs.items()})

    wrapping.draw(graph, run)
    try:
        return graph.model()
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as exc:
        reason = str(exc).strip().splitlines()[0]
        raise UnsuitableModel(f"{wrapping.network.file} is not a valid network ({reason}); export it again.") from exc
