"""Triton without Docker: the `tritonserver` of the pip wheel, installed, started, watched and removed without a trace.

`install` builds a Triton home, `server` starts Triton from it, `guard` is the small process between the two that
ends Triton whenever its owner ends, and `backends/onnxruntime` is what Triton runs ONNX models with.
"""
