"""A program, not a module: runs ONNX files for the proof of a model, in a process of its own and in the environment of Triton's backend.

It reads requests as JSON lines from standard input, {"model": path, "feeds": path of an .npz, "results": path of an .npz to write, "names":
outputs or null, "processor_s": seconds}, and answers each with {"error": null or text}. A file that makes ONNX Runtime crash, or that asks for
more memory or processor time than allowed, ends this process and nothing else.
"""

import json
import math
import resource
import sys

import numpy as np
import onnxruntime as ort

NUMPY_TYPES = {"tensor(float16)": np.float16, "tensor(double)": np.float64, "tensor(int64)": np.int64, "tensor(int32)": np.int32}
"""Types that requests do not have to care about: they send float32."""


def limit(kind: int, value: int) -> None:
    """Limit a resource of this process; a limit that it was started under (`ulimit`) stays."""
    _, most = resource.getrlimit(kind)
    resource.setrlimit(kind, (value if most == resource.RLIM_INFINITY else min(value, most), most))


def main(max_memory_bytes: int) -> None:
    """Answer requests until standard input ends."""
    limit(resource.RLIMIT_AS, max_memory_bytes)
    ort.set_default_logger_severity(4)
    options = ort.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # waiting would count as work
    opened, session = "", None
    print(json.dumps({"runtime": f"onnxruntime {ort.__version__}"}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        spent = resource.getrusage(resource.RUSAGE_SELF)
        limit(resource.RLIMIT_CPU, math.ceil(spent.ru_utime + spent.ru_stime + request["processor_s"]))
        try:
            if request["model"] != opened or session is None:
                session = None
                session = ort.InferenceSession(request["model"], options, providers=["CPUExecutionProvider"])
                opened = request["model"]
            with np.load(request["feeds"]) as feeds:
                types = {tensor.name: tensor.type for tensor in session.get_inputs()}
                inputs = {name: feeds[name].astype(NUMPY_TYPES.get(types.get(name, ""), feeds[name].dtype)) for name in feeds.files}
            names = request["names"] or [tensor.name for tensor in session.get_outputs()]
            np.savez(request["results"], **dict(zip(names, session.run(names, inputs), strict=True)))
            error = None
        except Exception as exc:  # noqa: BLE001 - whatever the runtime raises is the answer
            error = " ".join(str(exc).split())[:600] or type(exc).__name__
        print(json.dumps({"error": error}), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
