"""Model packs: published or generated ONNX graphs brought into the repository's contract (onnx and numpy only)."""
