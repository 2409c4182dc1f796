"""Model configurations: `config.pbtxt` for GPUs and `configs/cpu.pbtxt`, written from what a pack says about its model."""

from collections.abc import Mapping
from dataclasses import dataclass, field

MAX_QUEUE_SIZE = 256
"""Requests that may wait for a model before further ones are turned away at once."""

QUEUE_TIMEOUT_S = 60
"""How long a request may wait in the queue before it is turned away, s."""

CPU_BATCH_SIZE = 8
"""Largest batch on a CPU: larger ones are no faster there and make others wait."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output of a model, without its batch axis."""

    name: str
    data_type: str
    """Triton's name, such as TYPE_UINT8."""
    dims: tuple[int, ...]


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

    def to_pbtxt(self, device: str) -> str:
        """Return the configuration for `device`, "gpu" or "cpu"."""
        is_gpu = device == "gpu"
        batch = self.max_batch_size if is_gpu else min(self.max_batch_size, CPU_BATCH_SIZE)
        blocks = [
            f'name: "{self.role}"',
            'backend: "onnxruntime"',
            'default_model_filename: "model.onnx"',
            f"max_batch_size: {batch}",
            *(_tensor("input", tensor) for tensor in self.inputs),
            *(_tensor("output", tensor) for tensor in self.outputs),
            f"instance_group [ {{ count: 1, kind: KIND_{device.upper()} }} ]",
            _batching(self.queue_delay_us),
            *(self._warmup(size) for size in sorted({1, batch})),
            *(f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}' for key, value in sorted(self.parameters.items())),
        ]
        return "\n".join(blocks) + "\n"

    def _warmup(self, batch: int) -> str:
        inputs = "".join(
            f'\n  inputs {{ key: "{tensor.name}" value {{ data_type: {tensor.data_type}, dims: {list(tensor.dims)}, zero_data: true }} }}'
            for tensor in self.inputs
        )
        return f'model_warmup {{\n  name: "batch-{batch}"\n  batch_size: {batch}{inputs}\n}}'


def _tensor(kind: str, tensor: Tensor) -> str:
    return f'{kind} [ {{ name: "{tensor.name}", data_type: {tensor.data_type}, dims: {list(tensor.dims)} }} ]'


def _batching(queue_delay_us: int) -> str:
    # Two priority levels: 1 for a user who waits, 2 (the default) for batches of renders.
    policy = f"timeout_action: REJECT, default_timeout_microseconds: {QUEUE_TIMEOUT_S * 1_000_000}, max_queue_size: {MAX_QUEUE_SIZE}"
    return f"""dynamic_batching {{
  max_queue_delay_microseconds: {queue_delay_us}
  priority_levels: 2
  default_priority_level: 2
  default_queue_policy {{ {policy} }}
}}"""
