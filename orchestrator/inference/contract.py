"""The contract of each role: what a model must look like on Triton, and the check against what is really there."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import Any

from orchestrator.errors import ContractMismatch
from orchestrator.inference.client import TritonClient


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output; a letter stands for any size, the same wherever it appears in the role."""

    name: str
    datatype: str
    dims: tuple[int | str, ...]
    """Without the batch axis. `...` stands for any dimensions."""

    def __str__(self) -> str:
        return f"{self.name} {self.datatype} [{', '.join(map(str, self.dims))}]"


@dataclass(frozen=True, slots=True)
class RoleContract:
    """What a role needs."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    parameters: tuple[str, ...] = ()
    largest: str = ""
    """Parameter that says how large a size may be that the model leaves open (-1); empty where all have to be fixed."""


MAX_REQUEST_BYTES = 12 * 1024 * 1024
"""Input of one request; gRPC slows down above about 15 MB a message."""

FACE_DETECTOR = "face_detector"
LIP_SYNC = "lip_sync"
FACE_LANDMARKS = "face_landmarks"
FACE_ENHANCER = "face_enhancer"
FACE_OCCLUDER = "face_occluder"
FACE_EMBEDDER = "face_embedder"
AUDIO_ENCODER = "audio_encoder"
VOICE_ACTIVITY = "voice_activity"
VOICE_SEPARATOR = "voice_separator"

CONTRACTS: Mapping[str, RoleContract] = MappingProxyType(
    {
        FACE_DETECTOR: RoleContract(
            inputs=(TensorSpec("image", "UINT8", ("S", "S", 3)),),
            outputs=(TensorSpec("faces", "FP32", ("K", 15)),),
            largest="largest_px",
        ),
        LIP_SYNC: RoleContract(
            inputs=(TensorSpec("face", "UINT8", ("S", "S", 3)), TensorSpec("audio", "FP32", ("...",))),
            outputs=(TensorSpec("mouth", "UINT8", ("S", "S", 3)),),
            parameters=("crop_template", "audio_frontend", "paste_region"),
        ),
    }
)
"""The roles every render needs, by the name of their model on Triton."""

OPTIONAL_CONTRACTS: Mapping[str, RoleContract] = MappingProxyType(
    {
        FACE_LANDMARKS: RoleContract(
            inputs=(TensorSpec("face", "UINT8", ("S", "S", 3)),),
            outputs=(TensorSpec("landmarks", "FP32", ("P", 2)),),
            parameters=("scheme", "crop_scale"),
        ),
        FACE_ENHANCER: RoleContract(
            inputs=(TensorSpec("face", "UINT8", ("S", "S", 3)),),
            outputs=(TensorSpec("enhanced", "UINT8", ("S", "S", 3)),),
            parameters=("crop_template",),
        ),
        FACE_OCCLUDER: RoleContract(
            inputs=(TensorSpec("face", "UINT8", ("S", "S", 3)),),
            outputs=(TensorSpec("mask", "FP32", ("S", "S")),),
            parameters=("crop_template",),
        ),
        FACE_EMBEDDER: RoleContract(
            inputs=(TensorSpec("face", "UINT8", ("S", "S", 3)),),
            outputs=(TensorSpec("embedding", "FP32", ("D",)),),
            parameters=("crop_template",),
        ),
        AUDIO_ENCODER: RoleContract(
            inputs=(TensorSpec("audio", "FP32", ("A", "B")),),
            outputs=(TensorSpec("features", "FP32", ("F", "D")),),
            parameters=("audio_frontend", "features_per_s"),
        ),
        VOICE_ACTIVITY: RoleContract(
            inputs=(TensorSpec("samples", "FP32", ("A",)),),
            outputs=(TensorSpec("voice", "FP32", ("T",)),),
            parameters=("sample_rate_hz", "chunk_samples", "context_samples", "warm_up_chunks"),
        ),
        VOICE_SEPARATOR: RoleContract(
            inputs=(TensorSpec("samples", "FP32", ("A",)),),
            outputs=(TensorSpec("voice", "FP32", ("V",)),),
            parameters=("sample_rate_hz", "context_samples"),
        ),
    }
)
"""Roles that are used where a model for them is there."""


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """A model that was checked against its role's contract."""

    role: str
    version: str
    sizes: Mapping[str, int]
    """What the contract's letters stand for: `S` side of the square input, or the longest side of an open one, px; `K` faces; `P` landmarks;
    `F` features of size `D`, as embeddings have; `T` chunks of sound; `V` samples of a voice."""
    input_dims: Mapping[str, tuple[int, ...]]
    """Input shapes without the batch axis; the largest where sizes are open."""
    is_open: bool
    """Whether an input's sizes are open, up to `input_dims`."""
    max_batch_size: int
    preferred_batch_size: int
    """What Triton is told to make batches of; `max_batch_size` where it is told nothing."""
    parameters: Mapping[str, str]
    instance_kinds: tuple[str, ...]
    """Triton's KIND_CPU or KIND_GPU for each instance group."""
    identity: str
    """Digest of version and configuration, which packs put the model file's own digest into: another model has another identity."""

    @property
    def request_batch_size(self) -> int:
        """Items that one request of many carries."""
        item_bytes = max(prod(dims) for dims in self.input_dims.values())  # pictures, one byte a sample, outweigh the speech beside them
        return max(1, min(self.preferred_batch_size, MAX_REQUEST_BYTES // item_bytes))


def contract_of(role: str) -> RoleContract:
    """Return what a role needs."""
    return CONTRACTS[role] if role in CONTRACTS else OPTIONAL_CONTRACTS[role]


def output_of(role: str) -> str:
    """Return the name of a role's output."""
    return contract_of(role).outputs[0].name


def describe_model(client: TritonClient, role: str) -> ModelDescription:
    """Read a role's model from Triton and check it.

    Raises:
        InferenceUnavailable: Triton cannot be reached.
        ContractMismatch: there is no such model, or it differs; the message has expected and found.
    """
    contract = contract_of(role)
    metadata, config = client.metadata(role), client.config(role)
    max_batch_size = int(config.get("max_batch_size", 0))
    parameters = {name: str(value.get("string_value", "")) for name, value in config.get("parameters", {}).items()}
    problems: list[str] = []
    sizes: dict[str, int] = {}
    said = parameters.get(contract.largest, "")
    largest = int(said) if said.isdecimal() else -1
    if max_batch_size < 2:
        problems.append(f"expected max_batch_size of at least 2, found {max_batch_size}")
    for kind, specs in (("input", contract.inputs), ("output", contract.outputs)):
        found = {tensor["name"]: tensor for tensor in metadata.get(f"{kind}s", ())}
        for spec in specs:
            problems.extend(_compare(kind, spec, found.get(spec.name), sizes, largest, batched=max_batch_size > 0))
    problems.extend(f"expected config parameter {name!r}, found none" for name in contract.parameters if not parameters.get(name))
    if problems:
        raise ContractMismatch(f"Model {role} on {client.address} does not fit its role: {'; '.join(problems)}. Install a model for this role again.")
    versions = metadata.get("versions", ())
    return ModelDescription(
        role=role,
        version=str(versions[-1]) if versions else "",
        sizes=MappingProxyType(sizes),
        input_dims=MappingProxyType({tensor["name"]: _closed(_dims(tensor, batched=True), largest) for tensor in metadata["inputs"]}),
        is_open=any(-1 in _dims(tensor, batched=True) for tensor in metadata["inputs"]),
        max_batch_size=max_batch_size,
        preferred_batch_size=max(map(int, config.get("dynamic_batching", {}).get("preferred_batch_size", ())), default=max_batch_size),
        parameters=MappingProxyType(parameters),
        instance_kinds=instance_kinds(config),
        identity=hashlib.sha256(json.dumps([versions, config], sort_keys=True).encode()).hexdigest(),
    )


def mismatch(role: str, expected: str, found: str) -> ContractMismatch:
    """Return the error of a role's model that says of itself what cannot be used."""
    return ContractMismatch(f"Model {role} does not fit its role: expected {expected}, found {found}. Install a model for this role again.")


def whole_numbers(description: ModelDescription, *names: str) -> list[int]:
    """Return what a model says in some of its parameters; 0 where that is no whole number."""
    texts = (description.parameters[name] for name in names)
    return [int(text) if text.isdecimal() else 0 for text in texts]


def instance_kinds(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return Triton's KIND_CPU or KIND_GPU for each instance group of a model's configuration."""
    return tuple(str(group.get("kind", "KIND_AUTO")) for group in config.get("instance_group", ()))


def _compare(kind: str, spec: TensorSpec, found: Mapping[str, Any] | None, sizes: dict[str, int], largest: int, batched: bool) -> list[str]:
    """Return how a tensor differs from its spec, binding the spec's letters to the sizes met, open ones to the largest."""
    if found is None:
        return [f"expected {kind} {spec}, found none of that name"]
    dims = _closed(_dims(found, batched), largest)
    fits = found["datatype"] == spec.datatype and (spec.dims == ("...",) or len(dims) == len(spec.dims))
    if fits and spec.dims != ("...",):
        for expected, actual in zip(spec.dims, dims, strict=True):
            if isinstance(expected, str):
                fits &= actual > 0 and sizes.setdefault(expected, actual) == actual
            else:
                fits &= actual == expected
    elif fits:
        fits = all(size > 0 for size in dims)
    return [] if fits else [f"expected {kind} {spec}, found {found['name']} {found['datatype']} [{', '.join(map(str, dims))}]"]


def _closed(dims: tuple[int, ...], largest: int) -> tuple[int, ...]:
    return tuple(largest if size == -1 else size for size in dims)


def _dims(tensor: Mapping[str, Any], batched: bool) -> tuple[int, ...]:
    shape = tuple(int(size) for size in tensor.get("shape", ()))
    return shape[1:] if batched else shape
