"""Model packs: published or generated ONNX graphs brought into the repository's contract (ONNX Runtime runs in a process of its own)."""
