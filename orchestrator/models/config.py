"""Model configurations, written from what a pack says about its model: for GPUs, for TensorRT on GPUs, and for CPUs.

The same files serve the official container (native ONNX Runtime backend) and the embedded Triton (`deploy/local`), so only what both know
may stand in them. The native backend refuses a model with a parameter that it does not know.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import onnx

from deploy.local.home import ENGINES
from orchestrator.models.gpu_graph import GraphTraits, graph_traits

Device = Literal["gpu", "tensorrt", "cpu"]

CONFIG_FILES: Mapping[Device, str] = MappingProxyType({"gpu": "config.pbtxt", "tensorrt": "configs/tensorrt.pbtxt", "cpu": "configs/cpu.pbtxt"})
"""Where each device's configuration lies in the model's folder. Triton takes `config.pbtxt` unless `--model-config-name=NAME` names one of
`configs/`."""

MAX_QUEUE_SIZE = 256
"""Requests that may wait for a model before further ones are turned away at once."""

QUEUE_TIMEOUT_S = 60
"""How long a request may wait in the queue before it is turned away, s."""

CPU_BATCH_SIZE = 8
"""Largest batch on a CPU: larger ones are no faster there and make others wait."""

INSTANCE_COUNT = 2
"""Instances of a model on each device. With one, and a queue policy or priority levels, Triton's batcher can miss that a request came while the
instance was about to become free, and leaves it for 500 ms (its idle wait; Triton 2.51): measured with 8 one-item requests in flight, 64 of 473
stalled so, and none of 861 with two instances. Two also overlap one batch's copies with the next one's computing."""

TENSORRT_WORKSPACE_BYTES = 2 << 30
"""GPU memory TensorRT may use while it chooses and runs kernels. 1 GiB, the native backend's default, is little for convolutions at 512 px."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output of a model, without its batch axis."""

    name: str
    data_type: str
    """Triton's name, such as TYPE_UINT8."""
    dims: tuple[int, ...]
    """-1 where any size may come."""
    shapes: tuple[tuple[int, ...], ...] = ()
    """Where sizes are open: what may come at least, then shapes that come often, the most frequent one first, then what may come at most."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What a pack says about its model."""

    role: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    max_batch_size: int
    """On a GPU; a CPU gets at most `CPU_BATCH_SIZE`."""
    queue_delay_us: int
    """How long Triton waits for a batch to fill while an instance is free."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """What the role's contract asks for, and whatever else the model says about itself."""

    def at_each_shape(self) -> "list[ModelConfig]":
        """Return the model as one for each of the shapes that its open sizes name; itself alone where none is open."""
        count = max((len(tensor.shapes) for tensor in self.inputs), default=0)
        if not count:
            return [self]

        def fixed(tensor: Tensor, index: int) -> Tensor:
            return Tensor(tensor.name, tensor.data_type, tensor.shapes[index]) if tensor.shapes else tensor

        return [replace(self, inputs=tuple(fixed(tensor, index) for tensor in self.inputs)) for index in range(count)]

    def files(self, *, pack: str, licence: str, model: Path) -> dict[str, str]:
        """Return every configuration of the model by its path in the model's folder.

        Args:
            pack: the pack's name, which Triton then tells whoever asks for the model's configuration.
            licence: the licence of the weights, as `pack`.
            model: the ONNX file. Its hash also keeps TensorRT from taking an engine that was built from other weights: the engine cache of
                ONNX Runtime goes by the graph alone.
        """
        with model.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        about = {"pack": pack, "licence": licence, "model_sha256": digest}
        traits = graph_traits(onnx.load(model, load_external_data=False))
        return {path: self.to_pbtxt(device, about, traits) for device, path in CONFIG_FILES.items()}

    def to_pbtxt(self, device: Device, about: Mapping[str, str] = MappingProxyType({}), traits: GraphTraits | None = None) -> str:
        """Return the configuration for a device, with `about` among its parameters, for a graph with such traits (default: plain)."""
        batch = min(self.max_batch_size, CPU_BATCH_SIZE) if device == "cpu" else self.max_batch_size
        parameters = {**self.parameters, **about}
        blocks = [
            f"name: {_quoted(self.role)}",
            'backend: "onnxruntime"',
            'default_model_filename: "model.onnx"',
            f"max_batch_size: {batch}",
            *(_tensor("input", tensor) for tensor in self.inputs),
            *(_tensor("output", tensor) for tensor in self.outputs),
            # TensorRT crashes when two instances build engines side by side (onnxruntime issue 20089): one, and then no policy, see INSTANCE_COUNT.
            _instances("KIND_CPU" if device == "cpu" else "KIND_GPU", 1 if device == "tensorrt" else INSTANCE_COUNT),
            _batching(self.queue_delay_us, has_policy=device != "tensorrt"),
            *self._accelerators(device, about.get("model_sha256", ""), traits or GraphTraits()),
            *(block for size in sorted({1, batch}) for block in self._warmups(size, device)),
            *(f"parameters {{ key: {_quoted(key)} value {{ string_value: {_quoted(value)} }} }}" for key, value in sorted(parameters.items())),
        ]
        return "\n".join(blocks) + "\n"

    def _warmups(self, batch: int, device: Device) -> list[str]:
        """Return warm-ups with batches of one size: of the largest shape, and for GPUs, which choose kernels by shape, of every one."""
        shapes = self.at_each_shape()
        return [one._warmup(batch) for one in (shapes[-1:] if device == "cpu" else shapes)]

    def _warmup(self, batch: int) -> str:
        inputs = "".join(
            f"\n  inputs {{ key: {_quoted(tensor.name)} value {{ data_type: {tensor.data_type}, dims: {list(tensor.dims)}, zero_data: true }} }}"
            for tensor in self.inputs
        )
        shape = "-".join("x".join(map(str, tensor.dims)) for tensor in self.inputs)
        return f'model_warmup {{\n  name: "batch-{batch}-of-{shape}"\n  batch_size: {batch}{inputs}\n}}'

    def _accelerators(self, device: Device, model_sha256: str, traits: GraphTraits) -> list[str]:
        """Settings of ONNX Runtime's GPU providers, where they differ from its own."""
        accelerators: dict[str, dict[str, str]] = {}
        if device == "tensorrt":
            accelerators["tensorrt"] = self._tensorrt(model_sha256, traits.fits_one_engine)
        if device != "cpu" and traits.samples_grid:
            accelerators["cuda"] = {"prefer_nhwc": "1"}
        if not accelerators:
            return []
        blocks = []
        for name, parameters in accelerators.items():
            lines = "".join(f"\n    parameters {{ key: {_quoted(key)} value: {_quoted(value)} }}" for key, value in parameters.items())
            blocks.append(f"{{\n    name: {_quoted(name)}{lines}\n  }}")
        return [f"optimization {{ execution_accelerators {{\n  gpu_execution_accelerator [ {', '.join(blocks)} ]\n}} }}"]

    def _tensorrt(self, model_sha256: str, one_engine: bool) -> dict[str, str]:
        """Engines for every batch size from 1 to the largest.

        One engine gets a profile, tuned for the largest batch, which is what a render sends. Where the graph takes several, ONNX Runtime refuses
        profiles that do not name the tensors between them, and finds the range itself: the warm-up goes to both its ends.
        """
        profiles = {
            "trt_profile_min_shapes": self._shapes(1, 0),
            "trt_profile_opt_shapes": self._shapes(self.max_batch_size, 1),
            "trt_profile_max_shapes": self._shapes(self.max_batch_size, -1),
        }
        return {
            "precision_mode": "FP16",
            "max_workspace_size_bytes": str(TENSORRT_WORKSPACE_BYTES),
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": ENGINES,  # in the working directory of the server: the model repository may be read-only
            "trt_engine_cache_prefix": f"{self.role}_{model_sha256[:16]}",
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": ENGINES,
            **(profiles if one_engine else {}),
        }

    def _shapes(self, batch: int, which: int) -> str:
        inputs = {tensor.name: tensor.shapes[which] if tensor.shapes else tensor.dims for tensor in self.inputs}
        return ",".join(f"{name}:{'x'.join(map(str, (batch, *dims)))}" for name, dims in inputs.items())


@dataclass(frozen=True, slots=True)
class Batching:
    """How Triton makes batches for a model: what is chosen by measuring."""

    instance_count: int
    queue_delay_us: int
    """How long Triton waits for a batch to fill while an instance is free."""
    preferred_size: int | None = None
    """Items of the batches that it makes when it can, and of a render's requests; None for as many as the model takes."""

    def __str__(self) -> str:
        return f"{self.instance_count} instances, batches of {self.preferred_size or 'any size'}, {self.queue_delay_us} us"


def batching_of(config: str) -> Batching | None:
    """Return the batching of a configuration that was written here; None for one without, as of an ensemble."""
    count, delay, size = _COUNT.search(config), _DELAY.search(config), _PREFERRED.search(config)
    return Batching(int(count[2]), int(delay[2]), int(size[1]) if size else None) if count and delay else None


def with_batching(config: str, batching: Batching) -> str:
    """Return a configuration that was written here with another batching.

    Raises:
        ValueError: it has none.
    """
    if batching_of(config) is None:
        raise ValueError("expected a configuration with an instance group and dynamic batching")
    config = _DELAY.sub(rf"\g<1>{batching.queue_delay_us}", _COUNT.sub(rf"\g<1>{batching.instance_count}", _PREFERRED.sub("", config)))
    preferred = "" if batching.preferred_size is None else f"\n  preferred_batch_size: [ {batching.preferred_size} ]"
    return config.replace("dynamic_batching {", f"dynamic_batching {{{preferred}", 1)


def max_batch_size_of(config: str) -> int:
    """Return the largest batch of a configuration that was written here."""
    return int(_MAX_BATCH.findall(config)[0])


_COUNT = re.compile(r"(instance_group \[ \{ count: )(\d+)")
_DELAY = re.compile(r"(max_queue_delay_microseconds: )(\d+)")
_PREFERRED = re.compile(r"\n  preferred_batch_size: \[ (\d+) \]")
_MAX_BATCH = re.compile(r"^max_batch_size: (\d+)$", re.MULTILINE)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _tensor(kind: str, tensor: Tensor) -> str:
    return f"{kind} [ {{ name: {_quoted(tensor.name)}, data_type: {tensor.data_type}, dims: {list(tensor.dims)} }} ]"


def _instances(kind: str, count: int) -> str:
    return f"instance_group [ {{ count: {count}, kind: {kind} }} ]"


def _batching(queue_delay_us: int, has_policy: bool) -> str:
    if not has_policy:
        return f"dynamic_batching {{\n  max_queue_delay_microseconds: {queue_delay_us}\n}}"
    # Two priority levels: 1 for a user who waits, 2 (the default) for batches of renders.
    policy = f"timeout_action: REJECT, default_timeout_microseconds: {QUEUE_TIMEOUT_S * 1_000_000}, max_queue_size: {MAX_QUEUE_SIZE}"
    return f"""dynamic_batching {{
  max_queue_delay_microseconds: {queue_delay_us}
  priority_levels: 2
  default_priority_level: 2
  default_queue_policy {{ {policy} }}
}}"""
