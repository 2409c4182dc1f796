"""Triton ensembles: a role made of several models that pass tensors on inside the server."""

from dataclasses import dataclass

from orchestrator.models.config import ModelConfig


@dataclass(frozen=True, slots=True)
class EnsembleStep:
    """One model of an ensemble. Tensors have the same name in the ensemble as in the model."""

    model: str
    inputs: tuple[str, ...]
    output: str


@dataclass(frozen=True, slots=True)
class Ensemble:
    """A role as an ensemble."""

    config: ModelConfig
    """The role's view from outside. Queues and instances are the members' own."""
    steps: tuple[EnsembleStep, ...]

    def to_pbtxt(self, config: ModelConfig) -> str:
        """Return the configuration, with `config` in place of the ensemble's own; it is the same on every device."""
        lines = [f'name: "{config.role}"', 'platform: "ensemble"', f"max_batch_size: {config.max_batch_size}"]
        for kind, tensors in (("input", config.inputs), ("output", config.outputs)):
            lines += [f'{kind} [ {{ name: "{tensor.name}", data_type: {tensor.data_type}, dims: {list(tensor.dims)} }} ]' for tensor in tensors]
        lines.append("ensemble_scheduling {")
        for step in self.steps:
            maps = " ".join(f'input_map {{ key: "{name}" value: "{name}" }}' for name in step.inputs)
            maps += f' output_map {{ key: "{step.output}" value: "{step.output}" }}'
            lines.append(f'  step [ {{ model_name: "{step.model}" model_version: -1 {maps} }} ]')
        lines.append("}")
        lines += [f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}' for key, value in sorted(config.parameters.items())]
        return "\n".join(lines) + "\n"
