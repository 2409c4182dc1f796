"""Reading a published ONNX (or TFLite, or dlib) file: what is broken, hostile or too large is refused before its content is trusted."""

import hashlib
import stat
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, external_data_helper

from orchestrator.errors import LimitExceeded, MissingFile, UnreadableModel, UnsuitableModel
from orchestrator.models.dlib_network import is_dlib, read_dlib
from orchestrator.models.soundness import all_tensors, check_extent, check_operators, check_structure, refusing_malformed
from orchestrator.models.tflite import TfliteNetwork, is_tflite

MAX_NETWORK_BYTES = 2**31 - 2**24
"""Largest network, weights beside the file included, bytes: what one ONNX file can hold (2 GiB), less room for what is put around it."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One declared input or output of a network."""

    name: str
    dtype: int
    """ONNX element type."""
    shape: tuple[int | str, ...]
    """Sizes as declared; a string names an axis of any size."""

    def fits(self, *tail: int | None) -> bool:
        """Tell whether it is [any, *tail], where None takes any size and a free axis may become what is wanted."""
        sizes = self.shape[1:]
        return len(self.shape) == len(tail) + 1 and all(
            wanted is None or not isinstance(size, int) or size <= 0 or size == wanted for size, wanted in zip(sizes, tail, strict=True)
        )

    def __str__(self) -> str:
        return f"{self.name} {TensorProto.DataType.Name(self.dtype)} [{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True, slots=True)
class Network:
    """A published network as it was read, untouched."""

    file: str
    """Name of the file, without its folder."""
    sha256: str
    model: onnx.ModelProto
    """Weights included, also those that lay beside the file."""
    inputs: tuple[TensorInfo, ...]
    """Without the weights that old exporters list among them."""
    outputs: tuple[TensorInfo, ...]

    def find_input(self, *names: str) -> TensorInfo | None:
        """Return the input with one of these names, None if there is none."""
        return next((tensor for tensor in self.inputs if tensor.name in names), None)

    def with_outputs(self, *names: str) -> "Network":
        """Return the same network known for some of its outputs alone: what only others need is left out when it is wrapped."""
        return replace(self, outputs=tuple(tensor for tensor in self.outputs if tensor.name in names))

    def describe(self) -> list[str]:
        """Return its inputs and outputs as lines of text."""
        return [f"input {tensor}" for tensor in self.inputs] + [f"output {tensor}" for tensor in self.outputs]

    def mismatch(self, pack: str, expected: Sequence[str], reason: str = "") -> UnsuitableModel:
        """Return the error that refuses the network for a pack, with expected and found side by side."""
        found = self.describe()
        if len(found) > 12:
            found = [*found[:11], f"and {len(found) - 11} more"]
        width = max(map(len, ["expected", *expected])) + 2
        rows = [("expected", "found")]
        rows += [(expected[i] if i < len(expected) else "", found[i] if i < len(found) else "") for i in range(max(len(expected), len(found)))]
        table = "\n".join(f"  {left:{width}}{right}".rstrip() for left, right in rows)
        because = f": {reason}" if reason else ""
        return UnsuitableModel(f"{self.file} does not fit the pack {pack}{because}. Give the file that the pack is for, or another pack.\n{table}")


def read_network(path: Path, sha256: str | None = None) -> Network:
    """Read a network and everything it needs from beside it.

    Args:
        path: an ONNX file. Data it keeps outside has to lie in its folder or below.
        sha256: digest the file must have; None takes any.

    Raises:
        MissingFile: there is no such file.
        UnreadableModel: it is not ONNX, damaged, truncated, has another digest, or refers to data outside its folder.
        LimitExceeded: it is larger than `MAX_NETWORK_BYTES`.
        UnsuitableModel: it needs operators that Triton's ONNX Runtime does not have.
    """
    try:
        status = path.stat()
    except OSError as exc:
        raise MissingFile(f"There is no model file {path} ({exc.strerror}); check the path.") from exc
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableModel(f"{path} is not a regular file; give the path of an ONNX file.")
    if status.st_size == 0:
        raise UnreadableModel(f"{path.name} is empty (0 bytes); download or export it again.")
    _check_size(path.name, status.st_size)
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise UnreadableModel(f"{path} cannot be read ({exc.strerror}); check its permissions.") from exc
    found = hashlib.sha256(content).hexdigest()
    if sha256 is not None and found != sha256.lower():
        raise UnreadableModel(f"{path.name} has sha256 {found}, expected {sha256.lower()}; download it again, or give the digest of this file.")
    model = _read(path.name, content)
    _load_external_data(model, path, status.st_size)
    with refusing_malformed(path.name):
        check_extent(path.name, model)
        check_operators(path.name, model)
        check_structure(path.name, model)
    weights = {tensor.name for tensor in model.graph.initializer} | {tensor.values.name for tensor in model.graph.sparse_initializer}
    inputs = tuple(_info(path.name, value) for value in model.graph.input if value.name not in weights)
    return Network(path.name, found, model, inputs, tuple(_info(path.name, value) for value in model.graph.output))


def _read(name: str, content: bytes) -> onnx.ModelProto:
    if is_tflite(content):
        return _read_tflite(name, content)
    return read_dlib(name, content) if is_dlib(content) else _parse(name, content)


def _read_tflite(name: str, content: bytes) -> onnx.ModelProto:
    try:
        return TfliteNetwork(content).to_onnx()
    except UnsuitableModel as exc:
        raise UnsuitableModel(f"{name}: {exc}") from exc
    except (struct.error, ValueError, KeyError, IndexError, TypeError) as exc:
        raise UnreadableModel(f"{name} is a damaged TFLite model; download it again.") from exc


def _check_size(name: str, size_bytes: int) -> None:
    if size_bytes > MAX_NETWORK_BYTES:
        raise LimitExceeded(
            f"{name} is {size_bytes / 2**30:.1f} GiB with its data, more than the {MAX_NETWORK_BYTES / 2**30:.2f} GiB one ONNX file can hold; "
            "export it in FP16, or another variant of the model."
        )


def _parse(name: str, content: bytes) -> onnx.ModelProto:
    advice = "it is no ONNX file, or damaged or truncated; download or export it again"
    try:
        model = onnx.load_model_from_string(content)
    except (DecodeError, ValueError, RuntimeError) as exc:
        raise UnreadableModel(f"{name} cannot be parsed: {advice}.") from exc
    if not (0 < model.ir_version < 64 and model.opset_import and model.graph.node and model.graph.output):
        raise UnreadableModel(f"{name} holds no ONNX graph: {advice}.")
    return model


def _load_external_data(model: onnx.ModelProto, path: Path, file_bytes: int) -> None:
    """Load tensors kept beside the file, after checking that every one of them lies there, complete.

    Raises:
        UnreadableModel: a location leads out of the folder, is no file, or is shorter than the tensor.
        LimitExceeded: all together is too large.
    """
    folder = path.parent.resolve()
    total_bytes = file_bytes
    outside = [tensor for tensor in all_tensors(model) if tensor.data_location == TensorProto.EXTERNAL]
    for tensor in outside:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        parts = PurePosixPath(location.replace("\\", "/"))
        place = (folder / parts).resolve()
        if not location or parts.is_absolute() or ".." in parts.parts or not place.is_relative_to(folder):
            raise UnreadableModel(f"{path.name} refers to data outside its own folder ({location!r}); only data beside the file is read.")
        if not place.is_file():
            raise UnreadableModel(f"{path.name} keeps weights in {location!r}, which does not lie beside it; put both files into one folder.")
        try:
            offset, length = int(entries.get("offset", 0)), int(entries.get("length", 0) or place.stat().st_size - int(entries.get("offset", 0)))
        except ValueError as exc:
            raise UnreadableModel(f"{path.name} describes the data in {location!r} wrongly; export it again.") from exc
        if offset < 0 or length < 0 or offset + length > place.stat().st_size:
            raise UnreadableModel(f"{location!r} beside {path.name} is shorter than the weights it should hold; copy or download it again.")
        total_bytes += length
        _check_size(path.name, total_bytes)
    for tensor in outside:
        external_data_helper.load_external_data_for_tensor(tensor, str(folder))
        tensor.ClearField("data_location")
        del tensor.external_data[:]


def _info(name: str, value: onnx.ValueInfoProto) -> TensorInfo:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        raise UnsuitableModel(f"{name} has {value.name!r} of type {kind}, expected a tensor; it is not an image or lip model.")
    tensor = value.type.tensor_type
    if tensor.elem_type not in TensorProto.DataType.values():
        raise UnreadableModel(f"{name} is damaged: {value.name!r} has element type {tensor.elem_type}, which ONNX does not have; download it again.")
    shape = tuple(axis.dim_value if axis.WhichOneof("value") == "dim_value" else axis.dim_param or "?" for axis in tensor.shape.dim)
    return TensorInfo(value.name, tensor.elem_type, shape)
