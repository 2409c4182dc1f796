"""The proof of a model before it is installed: its batch axis is real, and it answers what its network plus plain array code answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from orchestrator.errors import UnsuitableModel
from orchestrator.models.config import ModelConfig
from orchestrator.models.detection import CANDIDATES, MIN_SCORE, Detector, choose_faces
from orchestrator.models.runner import OnnxRunner
from orchestrator.models.samples import sample_items
from orchestrator.models.wrapping import Arrays, Wrapping

BATCHES = (1, 2, 4)
"""Batch sizes tried."""

MAX_DIFFERENCE = 2e-3
"""Largest difference between two ways of computing one float, relative to the largest value there (kernels sum in another order)."""

MAX_LEVELS = 2
"""Largest difference between two ways of computing one 8-bit sample; a value half-way may round either way."""

MAX_OFF_SHARE = 0.002
"""Share of 8-bit samples that may differ by more than one level."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What was tried, and how far answers were apart: 8-bit levels for pictures, parts of the largest value for floats."""

    runtime: str
    batches: tuple[int, ...]
    batch_difference: float
    """Between an item in a batch and the item alone."""
    reference_difference: float | None
    """Between the model and its network with plain array code around it; None for a model that the project draws itself."""


def prove(model: Path, config: ModelConfig, wrapping: Wrapping | None, runner: OnnxRunner) -> Proof:
    """Prove a finished model file; where its network is not at hand, its batches only.

    Raises:
        UnsuitableModel: it does not run, mixes the items of a batch, answers something that is no number, or answers something else than
            its network does.
    """
    proofs = [_prove_at(model, one, wrapping, runner) for one in config.at_each_shape()]
    references = [proof.reference_difference for proof in proofs if proof.reference_difference is not None]
    return Proof(runner.runtime, BATCHES, max(proof.batch_difference for proof in proofs), max(references, default=None))


def _prove_at(model: Path, config: ModelConfig, wrapping: Wrapping | None, runner: OnnxRunner) -> Proof:
    items = sample_items(config, max(BATCHES))
    alone = [{name: array[0] for name, array in runner.run(model, _batch([item])).items()} for item in items]
    _check_answers(config, alone)
    difference = 0.0
    for count in BATCHES:
        together = runner.run(model, _batch(items[:count]), items=count)
        for name, array in together.items():
            if array.shape[:1] != (count,):
                raise UnsuitableModel(
                    f"The model answers a batch of {count} with {name} {list(array.shape)}, expected [{count}, ...]; it cannot be served."
                )
            for index in range(count):
                apart = _difference(array[index], alone[index][name])
                if apart is None:
                    raise UnsuitableModel(
                        f"The model's {name} for an item depends on the other {count - 1} items of its batch or on chance; it cannot be served."
                    )
                difference = max(difference, apart)
    reference = None if wrapping is None else _compare_with_network(model, wrapping, items, runner)
    return Proof(runner.runtime, BATCHES, difference, reference)


def _batch(items: Sequence[Arrays]) -> Arrays:
    return {name: np.stack([item[name] for item in items]) for name in items[0]}


def _check_answers(config: ModelConfig, answers: Sequence[Arrays]) -> None:
    for tensor in config.outputs:
        for answer in answers:
            if tensor.name not in answer or answer[tensor.name].shape != tensor.dims:
                found = {name: list(array.shape) for name, array in answer.items()}
                raise UnsuitableModel(f"The model should answer {tensor.name} {list(tensor.dims)}, found {found}; it is not what the pack is for.")
            if not np.isfinite(answer[tensor.name]).all():
                raise UnsuitableModel(f"The model's {tensor.name} is not a number for a plain picture; its weights are damaged.")


def _compare_with_network(model: Path, wrapping: Wrapping, items: Sequence[Arrays], runner: OnnxRunner) -> float:
    """Return the largest difference between the model and its untouched network with plain array code around it."""
    original = runner.folder / "original.onnx"
    onnx.save(_with_declared_shapes(wrapping), original)
    references = [_reference(wrapping, _run_network(original, wrapping, item, runner)) for item in items]
    names = sorted(references[0])
    probe = runner.folder / "probe.onnx"
    onnx.save(_with_outputs(onnx.load(model), names), probe)
    wanted = [*names, "faces"] if isinstance(wrapping, Detector) else names
    largest = 0.0
    for item, reference in zip(items, references, strict=True):
        found = runner.run(probe, _batch([item]), wanted)
        for name, expected in reference.items():
            apart = _difference(found[name][0], expected)
            if apart is None:
                raise UnsuitableModel(f"The model's {name} differs from what its network computes; the network cannot be brought into the contract.")
            largest = max(largest, apart)
        if isinstance(wrapping, Detector):
            _check_choice(wrapping, found[CANDIDATES][0], found["faces"][0])
    return largest


def _run_network(original: Path, wrapping: Wrapping, item: Arrays, runner: OnnxRunner) -> Arrays:
    """Run the network on everything it computes for one item, one at a time, and return its outputs joined."""
    feed = wrapping.feed(item)
    rows = {name: shape[0] for name, shape in wrapping.input_shapes.items() if name not in wrapping.shared_inputs}
    count = max(len(feed[name]) // size for name, size in rows.items())
    runs = []
    for index in range(count):
        part = {name: feed[name][index * rows[name] : (index + 1) * rows[name]] if name in rows else feed[name] for name in feed}
        runs.append(runner.run(original, part, [tensor.name for tensor in wrapping.network.outputs]))
    return {name: np.concatenate([run[name] for run in runs]) if count > 1 else runs[0][name] for name in runs[0]}


def _reference(wrapping: Wrapping, outputs: Arrays) -> dict[str, NDArray[Any]]:
    for name, array in outputs.items():
        if not np.isfinite(array).all():
            raise UnsuitableModel(f"The network's {name} is not a number for a plain picture; its weights are damaged.")
    try:
        return dict(wrapping.read(outputs))
    except ValueError as exc:
        shapes = {name: list(array.shape) for name, array in outputs.items()}
        raise UnsuitableModel(f"The network answers {shapes}, which is not what the pack is for ({exc}).") from exc


def _check_choice(detector: Detector, candidates: NDArray[np.float32], faces: NDArray[np.float32]) -> None:
    expected = choose_faces(candidates, 0.0, detector.max_overlap)
    if not np.allclose(faces, expected, rtol=1e-5, atol=1e-4):
        raise UnsuitableModel("The model chooses other faces among its candidates than it should; the network cannot be brought into the contract.")


def _difference(found: NDArray[Any], expected: NDArray[Any]) -> float | None:
    """Return how far two answers are apart, None for too far."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return None
    if found.dtype == np.uint8:
        apart = np.abs(found.astype(np.int16) - expected.astype(np.int16))
        return None if (apart > MAX_LEVELS).any() or (apart > 1).mean() > MAX_OFF_SHARE else float(apart.max())
    scale = max(1.0, float(np.abs(expected).max()))
    apart = np.abs(found - expected) / scale
    return float(apart.max()) if np.isfinite(apart).all() and apart.max() <= MAX_DIFFERENCE else None


def _with_declared_shapes(wrapping: Wrapping) -> onnx.ModelProto:
    """Return the network with nothing changed but what it says about its inputs' sizes."""
    model = onnx.ModelProto()
    model.CopyFrom(wrapping.network.model)
    for value in model.graph.input:
        if value.name in wrapping.input_shapes:
            shape: list[int | str | None] = [*wrapping.input_shapes[value.name]]
            if any(tensor.shapes for tensor in wrapping.config.inputs):
                shape[2:] = "H", "W"
            value.CopyFrom(helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, shape))
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    return model


def _with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Return a model that also gives out values inside it, and whose detector leaves nothing out for its score."""
    known = {output.name for output in model.graph.output}
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names if name not in known)
    for tensor in model.graph.initializer:
        if tensor.name == MIN_SCORE:
            tensor.CopyFrom(numpy_helper.from_array(np.asarray(0.0, np.float32), MIN_SCORE))
    return model
