"""Model packs: published or generated ONNX graphs brought into the repository's contract (onnx and numpy only)."""

from pathlib import Path


def onnx_runner_path() -> Path:
    """Return the program that runs ONNX files for proofs, in the environment that has ONNX Runtime."""
    return Path(__file__).with_name("onnx_runner.py")
