"""Run ONNX models inside the pip-packaged Triton: a Python-based backend named `onnxruntime`.

Triton starts one process per model instance with this file in it. It reads the same model repository as the native backend of that name
in the official container, and takes the same settings: `parameters` for threads and memory, `optimization` for graph level and
accelerators. What differs: it never runs on another execution provider than the one asked for, it proves that with a trial run whose result
is in Triton's metrics, and it serves no strings.
"""

import ctypes
import json
import math
import os
import re
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]

TRITON_TYPES = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(uint64)": "TYPE_UINT64",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
}
"""Triton's name for each ONNX element type that numpy can hold."""

GRAPH_LEVELS = {
    -1: ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    1: ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
"""What `optimization { graph { level } }` means to the native backend (its README); anything else is all optimisations."""

TENSORRT_NAMES = {
    "max_workspace_size_bytes": "trt_max_workspace_size",
    "int8_calibration_table_name": "trt_int8_calibration_table_name",
    "int8_use_native_calibration_table": "trt_int8_use_native_calibration_table",
}
"""Accelerator parameters that the native backend renames (its README's table); `trt_*` pass through, precision_mode is a switch."""

TENSORRT_SWITCHES = frozenset(
    {
        "trt_bf16_enable",
        "trt_build_heuristics_enable",
        "trt_context_memory_sharing_enable",
        "trt_cuda_graph_enable",
        "trt_detailed_build_log",
        "trt_dla_enable",
        "trt_dump_ep_context_model",
        "trt_dump_subgraphs",
        "trt_engine_cache_enable",
        "trt_engine_decryption_enable",
        "trt_engine_hw_compatible",
        "trt_force_sequential_engine_build",
        "trt_force_timing_cache",
        "trt_fp16_enable",
        "trt_int8_enable",
        "trt_int8_use_native_calibration_table",
        "trt_layer_norm_fp32_fallback",
        "trt_sparsity_enable",
        "trt_timing_cache_enable",
        "trt_weight_stripped_engine_enable",
    }
)
"""Options that ONNX Runtime's Python interface refuses unless they are `True` or `False` (1.24 and 1.31); the native backend takes 1 and true."""

CACHE_FOLDERS = ("trt_engine_cache_path", "trt_timing_cache_path")
"""Options that name a folder. Instances on several GPUs load side by side, and an engine's name has nothing of which GPU it is for."""

STALE_ENGINE = re.compile(r"could not deserialize engine from cache: (\S+)")
"""What ONNX Runtime says of a kept engine that TensorRT does not read: one of another release of it, or one whose writing was cut off."""

NUMPY_2 = int(np.__version__.split(".")[0]) >= 2
"""Triton's stub is compiled for numpy 1: with numpy 2 its own conversion gives wrong data without an error, but DLPack is exact
(every type tried). With numpy 1 it is the other way round: its conversion is exact, and DLPack crashes the stub."""

CPU_OUTPUT_LIMIT_BYTES = 64 << 10
"""What an operator may put out on the CPU for one item while the model is on a GPU. ONNX Runtime computes shapes there, which is right; an
operator above this works on pictures or features, and each copy to and fro stalls the GPU."""

TRIALS_OF_EACH = 4
"""Batches that a single thread runs as they are, and as many that it runs item by item, before it keeps to what was faster. That depends on the
network, whose weights and features stay in a core's cache together or do not, and on the cache: the same networks of 3 and 7 MB took 13 to 25 %
less time item by item on one processor, and 10 to 15 % more on another. The result is the same to the bit."""

ALLOW_CPU_OPERATORS = "allow_cpu_operators"
"""Parameter of the configuration: "true" accepts operators above that limit, for a model that has one without a GPU version."""

PROVIDER_LIBRARIES = {
    "CUDAExecutionProvider": "libonnxruntime_providers_cuda.so",
    "TensorrtExecutionProvider": "libonnxruntime_providers_tensorrt.so",
}

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Config: TypeAlias = dict[str, Any]
Provider: TypeAlias = tuple[str, dict[str, str]]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Placement:
    """Where ONNX Runtime ran the operators of a model, by its own profile of a trial run."""

    operators: dict[str, int]
    """How many ran on each execution provider."""
    duration_us: dict[str, int]
    """How long they took on each. The first run of a model: kernels are chosen and memory is allocated in it."""
    large_on_cpu: list[str]
    """Operators on the CPU with an output above `CPU_OUTPUT_LIMIT_BYTES`."""


class TritonPythonModel:
    """One instance of one model: a session of ONNX Runtime."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model and compare it with its configuration.

        Raises:
            pb_utils.TritonModelException: the file is missing, it is not what the configuration says, or it cannot run where it should.
        """
        config: Config = json.loads(args["model_config"])
        file = Path(args["model_repository"]) / args["model_version"] / (config["default_model_filename"] or "model.onnx")
        if not file.is_file():
            raise pb_utils.TritonModelException(f"{file} does not exist: install a model pack, or put the model there.")
        providers = wanted_providers(config, args["model_instance_kind"], args["model_instance_device_id"])
        options = session_options(config)
        with tempfile.TemporaryDirectory(prefix="onnxruntime-profile-") as folder:
            options.enable_profiling, options.profile_file_prefix = True, f"{folder}/profile"
            self.session = open_session(file, options, providers)
            self._check_config(config, file)
            self.pace = BatchPace(options.enable_cpu_mem_arena) if self.batches and leaves_batches_open(config, providers, options) else None
            trial, placement = try_out(self.session, config)
        self.trial = None if providers[0][0] == "CPUExecutionProvider" else trial
        if problem := misplaced(placement, [name for name, _ in providers], config):
            raise pb_utils.TritonModelException(f"{file} {problem}.")
        publish(placement, args)
        pb_utils.Logger.log_info(
            f"{args['model_name']}: instance {args['model_instance_name']} runs on {self.session.get_providers()[0]}, "
            f"{options.intra_op_num_threads} intra-op threads, operators {placement.operators}"
        )

    def _check_config(self, config: Config, file: Path) -> None:
        self.batches = config["max_batch_size"] > 0
        self.output_names = [output["name"] for output in config["output"]]
        if differences := compare_with_config(config, self.session.get_inputs(), self.session.get_outputs()):
            raise pb_utils.TritonModelException(f"{file} does not match config.pbtxt: {'; '.join(differences)}.")
        self.input_names = [found.name for found in self.session.get_inputs()]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the requests that Triton put into one batch, in their order; one that fails does not fail the others."""
        if self.batches:
            return self._run_together(requests)
        return [response for request in requests for response in self._run_together([request])]

    def _run_together(self, requests: list[Any]) -> list[Any]:
        """Run requests as one batch. What the model refuses as a batch is tried one by one, to find whose fault it is."""
        wanted = {name for request in requests for name in request.requested_output_names()}
        names = [name for name in self.output_names if name in wanted]
        try:
            feeds = [[read(pb_utils.get_input_tensor_by_name(request, name)) for name in self.input_names] for request in requests]
            arrays = feeds[0] if len(feeds) == 1 else [np.concatenate(parts) for parts in zip(*feeds, strict=True)]
            results = self._run(names, arrays)
            shares = split_results(results, [feed[0].shape[0] for feed in feeds]) if self.batches else [results]
        except Exception as error:  # noqa: BLE001 - whatever ONNX Runtime raises is the answer to these requests
            if len(requests) > 1:
                return [response for request in requests for response in self._run_together([request])]
            if self._lost_gpu():
                pb_utils.Logger.log_error(f"The GPU does not work for this process any more, so it ends: {error}")
                os._exit(1)
            return [pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))]
        return [respond(request, dict(zip(names, share, strict=True))) for request, share in zip(requests, shares, strict=True)]

    def _lost_gpu(self) -> bool:
        """Tell whether what ran when the model was loaded fails now: after some errors a GPU refuses all to a process, and works for a new one."""
        if self.trial is None:
            return False
        try:
            self.session.run(None, self.trial)
        except Exception:  # noqa: BLE001 - whatever ONNX Runtime raises
            return True
        return False

    def _run(self, names: list[str], inputs: list[Array]) -> list[Array]:
        """Run a batch and return the outputs with these names."""
        feed = dict(zip(self.input_names, inputs, strict=True))
        if self.pace is None or len(inputs[0]) < 2:
            return list(self.session.run(names, feed))
        return self.pace.run(self.session, names, feed)


class BatchPace:
    """Runs batches on one thread, and finds out by the first ones whether it is faster to run them item by item."""

    def __init__(self, keeps_memory: bool) -> None:
        """Begin; `keeps_memory` tells whether the session has an arena."""
        self.keeps_memory = keeps_memory
        self.item_s: dict[bool, list[float]] = {True: [], False: []}
        """Computing time that an item took, one by one and in batches, s."""
        self.is_item_by_item: bool | None = None
        """What was faster; None until it is known."""

    def run(self, session: ort.InferenceSession, names: list[str], feed: dict[str, Array]) -> list[Array]:
        """Run a batch and return the outputs with these names."""
        if self.is_item_by_item is not None:
            return run_batch(session, names, feed, item_by_item=self.is_item_by_item)
        item_by_item = len(self.item_s[True]) == len(self.item_s[False])  # first, so that the warm-up takes no memory for a batch
        began_s = time.thread_time()  # of this thread, which is the one that computes
        try:
            results = run_batch(session, names, feed, item_by_item=item_by_item)
        except Exception:
            if item_by_item:
                raise
            self.is_item_by_item = True  # it refuses batches
            return run_batch(session, names, feed, item_by_item=True)
        self.item_s[item_by_item].append((time.thread_time() - began_s) / len(results[0]))
        if len(self.item_s[False]) == TRIALS_OF_EACH:
            self.is_item_by_item = min(self.item_s[True]) < min(self.item_s[False])
            if self.is_item_by_item and self.keeps_memory:
                session.run(names, {name: array[:1] for name, array in feed.items()}, giving_memory_back())
        return results


def run_batch(session: ort.InferenceSession, names: list[str], feed: dict[str, Array], *, item_by_item: bool) -> list[Array]:
    """Run a batch in one go or in as many as it has items."""
    if not item_by_item:
        return list(session.run(names, feed))
    count = len(next(iter(feed.values())))
    items = [session.run(names, {name: array[i : i + 1] for name, array in feed.items()}) for i in range(count)]
    return [np.concatenate(parts) for parts in zip(*items, strict=True)]


def giving_memory_back() -> ort.RunOptions:
    """Return options of a run after which the session keeps no memory that larger runs needed."""
    options = ort.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def read(tensor: Any) -> Array:
    """View a tensor of a request as an array, without a copy."""
    return np.from_dlpack(tensor) if NUMPY_2 else tensor.as_numpy()


def make_tensor(name: str, array: Array) -> Any:
    """Make a tensor for a response from an array."""
    return pb_utils.Tensor.from_dlpack(name, array) if NUMPY_2 else pb_utils.Tensor(name, array)


def respond(request: Any, outputs: dict[str, Array]) -> Any:
    """Make the response to a request from its share of the results: the outputs it asked for and no others."""
    return pb_utils.InferenceResponse([make_tensor(name, outputs[name]) for name in request.requested_output_names()])


def split_results(results: list[Array], batch_sizes: list[int]) -> list[list[Array]]:
    """Cut every output of a batch into one part per request.

    Raises:
        ValueError: an output does not have one row per item, so cutting it would hand one request another's rows.
    """
    rows = sum(batch_sizes)
    for result in results:
        if result.ndim == 0 or result.shape[0] != rows:
            raise ValueError(f"The model answered {rows} items with an output of shape {list(result.shape)}: its batch axis is not dynamic.")
    if len(batch_sizes) == 1:
        return [results]
    cuts = np.cumsum(batch_sizes)[:-1]
    return [list(share) for share in zip(*(np.split(result, cuts) for result in results), strict=True)]


def compare_with_config(config: Config, inputs: list[Any], outputs: list[Any]) -> list[str]:
    """List every difference between a model's tensors and its configuration, with what was expected and what was found.

    The configuration may leave outputs out, but no inputs.
    """
    differences = []
    for direction, declared, found_tensors in (("input", config["input"], inputs), ("output", config["output"], outputs)):
        found = {tensor.name: tensor for tensor in found_tensors}
        expected = {tensor["name"]: tensor for tensor in declared}
        differences += [f"expected an {direction} {name!r}, found {sorted(found)}" for name in expected.keys() - found.keys()]
        if direction == "input":
            differences += [f"expected inputs {sorted(expected)}, found also {name!r}" for name in found.keys() - expected.keys()]
        for name in expected.keys() & found.keys():
            differences += compare_tensor(f"{direction} {name!r}", expected[name], found[name], config["max_batch_size"])
    return differences


def compare_tensor(label: str, expected: Config, found: Any, max_batch_size: int) -> list[str]:
    """List the differences between one tensor of the configuration and the model's."""
    if "reshape" in expected:
        return [f"{label} has a reshape, which this backend does not do; give the model's own dims"]
    differences = []
    found_type = TRITON_TYPES.get(found.type, found.type)
    if expected["data_type"] != found_type:
        differences.append(f"{label} expected {expected['data_type']}, found {found_type}")
    found_dims = [dim if isinstance(dim, int) else -1 for dim in found.shape]
    if max_batch_size > 0 and found_dims[:1] != [-1]:
        return [*differences, f"max_batch_size is {max_batch_size}, but {label} has no dynamic batch axis: found {found_dims}"]
    batch_dims = [-1] if max_batch_size > 0 else []
    expected_dims = [*batch_dims, *(int(dim) for dim in expected["dims"])]
    if len(expected_dims) != len(found_dims) or any(f not in (-1, e) for e, f in zip(expected_dims, found_dims, strict=True)):
        differences.append(f"{label} expected dims {expected_dims}, found {found_dims}")
    return differences


def session_options(config: Config) -> ort.SessionOptions:
    """Translate the configuration's parameters into options for ONNX Runtime."""
    parameters = {name: str(value["string_value"]) for name, value in config.get("parameters", {}).items()}
    options = ort.SessionOptions()
    options.intra_op_num_threads = int(parameters.get("intra_op_thread_count", 0)) or default_thread_count(config)
    options.inter_op_num_threads = int(parameters.get("inter_op_thread_count", 0))
    if parameters.get("execution_mode") == "1":
        options.execution_mode = ort.ExecutionMode.ORT_PARALLEL
    options.enable_cpu_mem_arena = parameters.get("enable_mem_arena", "1") != "0"
    options.enable_mem_pattern = parameters.get("enable_mem_pattern", "1") != "0"
    for name, value in parameters.items():
        if name.startswith("session."):  # ONNX Runtime's own keys, as `session.intra_op.allow_spinning`
            options.add_session_config_entry(name, value)
    level = int(config.get("optimization", {}).get("graph", {}).get("level", 0))
    options.graph_optimization_level = GRAPH_LEVELS.get(level, ort.GraphOptimizationLevel.ORT_ENABLE_ALL)
    return options


def default_thread_count(config: Config) -> int:
    """Share the cores among the model's instances, so that together they have one thread a core."""
    instances = sum(int(group.get("count", 1)) for group in config.get("instance_group", []))
    return max(1, available_cores() // max(1, instances))


def leaves_batches_open(config: Config, providers: list[Provider], options: ort.SessionOptions) -> bool:
    """Tell whether it is open in what batches a model is fastest: on one thread of a CPU, and without a size that was found by measuring.

    Triton itself adds the largest size to a configuration that prefers none.
    """
    has_size = any(int(size) < config["max_batch_size"] for size in config.get("dynamic_batching", {}).get("preferred_batch_size", []))
    return providers[0][0] == "CPUExecutionProvider" and options.intra_op_num_threads == 1 and not has_size


def available_cores(root: Path = Path("/")) -> int:
    """Count the cores this process may use: its affinity, and in a container its CPU quota (cgroup v2 or v1), a part of a core as a whole one."""
    cores = len(os.sched_getaffinity(0))
    group = root / "sys/fs/cgroup"
    for files in (["cpu.max"], ["cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"]):
        with suppress(OSError, ValueError):  # other files, or `max`
            quota, period = (int(number) for file in files for number in (group / file).read_text().split())
            if quota > 0:
                cores = min(cores, math.ceil(quota / period))
    return cores


def wanted_providers(config: Config, kind: str, device_id: str) -> list[Provider]:
    """Name the execution providers that the instance's kind and the configured accelerators ask for, best first."""
    if kind != "GPU":
        return [("CPUExecutionProvider", {})]
    accelerators = config.get("optimization", {}).get("execution_accelerators", {}).get("gpu_execution_accelerator", [])
    options = {accelerator["name"]: dict(accelerator.get("parameters", {})) for accelerator in accelerators}
    providers: list[Provider] = []
    if "tensorrt" in options:
        tensorrt = tensorrt_options(options["tensorrt"])
        of_its_own = {name: f"{tensorrt[name]}-{device_id}" for name in CACHE_FOLDERS if name in tensorrt and device_id != "0"}
        providers.append(("TensorrtExecutionProvider", {"device_id": device_id, **tensorrt, **of_its_own}))
    providers.append(("CUDAExecutionProvider", {"device_id": device_id, **options.get("cuda", {})}))
    return providers


def tensorrt_options(parameters: dict[str, str]) -> dict[str, str]:
    """Translate the accelerator's parameters into the provider's options."""
    options = {TENSORRT_NAMES.get(name, name): value for name, value in parameters.items() if name != "precision_mode"}
    precision = parameters.get("precision_mode", "FP32")
    if precision in ("FP16", "INT8"):
        options[f"trt_{precision.lower()}_enable"] = "1"
    return {name: str(value in ("1", "true")) if name in TENSORRT_SWITCHES else value for name, value in options.items()}


def try_out(session: ort.InferenceSession, config: Config) -> tuple[dict[str, Array] | None, Placement]:
    """Run a model once on zeros, and end the profile that its session was opened with. Open sizes are those of its first warm-up.

    Returns the zeros and where it ran. A model that fails on zeros has neither; Triton's own warm-up says whether it works.
    """
    leading = [1] if config["max_batch_size"] > 0 else []
    warm_up = (config.get("model_warmup") or [{}])[0].get("inputs", {})
    dims = {tensor["name"]: [*leading, *(max(1, int(dim)) for dim in tensor["dims"])] for tensor in config["input"]}
    dims |= {name: [*leading, *map(int, tensor["dims"])] for name, tensor in warm_up.items() if name in dims}
    try:
        feed = {found.name: np.zeros(dims[found.name], numpy_type(found.type)) for found in session.get_inputs()}
        without_stale_engines(lambda: session.run(None, feed))
    except Exception as error:  # noqa: BLE001 - whatever ONNX Runtime raises
        pb_utils.Logger.log_warn(f"The trial run failed, so where the model runs is not known: {error}")
        session.end_profiling()
        return None, Placement({}, {}, [])
    return feed, read_profile(Path(session.end_profiling()))


def numpy_type(onnx_type: str) -> Any:
    """Translate an ONNX element type that is in `TRITON_TYPES`."""
    name = TRITON_TYPES[onnx_type].removeprefix("TYPE_")
    return {"BOOL": np.bool_, "FP16": np.float16, "FP32": np.float32, "FP64": np.float64}.get(name) or np.dtype(name.lower())


def read_profile(file: Path) -> Placement:
    """Sum up a profile of ONNX Runtime by execution provider."""
    operators: dict[str, int] = {}
    duration_us: dict[str, int] = {}
    large_on_cpu = []
    for event in json.loads(file.read_text()):
        facts = event.get("args", {})
        if event.get("cat") != "Node" or "provider" not in facts or not event["name"].endswith("_kernel_time"):
            continue
        provider = facts["provider"]
        operators[provider] = operators.get(provider, 0) + 1
        duration_us[provider] = duration_us.get(provider, 0) + int(event["dur"])
        if provider == "CPUExecutionProvider" and int(facts.get("output_size", 0)) > CPU_OUTPUT_LIMIT_BYTES:
            large_on_cpu.append(f"{facts['op_name']} {event['name'].removesuffix('_kernel_time')}")
    return Placement(operators, duration_us, large_on_cpu)


def misplaced(placement: Placement, providers: list[str], config: Config) -> str | None:
    """Tell what of a model for a GPU ran elsewhere; None for a model for the CPU, and where all is well."""
    wanted = providers[0]
    if wanted == "CPUExecutionProvider" or not placement.operators:
        return None
    if wanted not in placement.operators:
        return f"was accepted by {wanted}, which then ran none of its operators: {placement.operators}"
    parameters = config.get("parameters", {})
    if placement.large_on_cpu and parameters.get(ALLOW_CPU_OPERATORS, {}).get("string_value") != "true":
        return (
            f"has operators that {' and '.join(providers)} cannot run and that would work on the CPU: {', '.join(placement.large_on_cpu[:5])}; "
            f'replace them, or accept that with the parameter {ALLOW_CPU_OPERATORS} "true" in config.pbtxt'
        )
    return None


def publish(placement: Placement, args: dict[str, str]) -> None:
    """Put a placement into Triton's metrics.

    A metric is to be seen for as long as its object lives, and the stub crashes when one dies with it: so these never do.
    """
    families = (
        ("lipsync_model_operators", "Operators that ran on each execution provider in the trial run of a model instance", placement.operators),
        ("lipsync_model_operator_us", "Time the operators took there in the trial run, us", placement.duration_us),
    )
    for name, description, values in families:
        family = pb_utils.MetricFamily(name=name, description=description, kind=pb_utils.MetricFamily.GAUGE)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(family))
        for provider, value in values.items():
            labels = {"model": args["model_name"], "version": args["model_version"], "instance": args["model_instance_name"], "provider": provider}
            metric = family.Metric(labels=labels)
            metric.set(value)
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(metric))


def open_session(file: Path, options: ort.SessionOptions, providers: list[Provider]) -> ort.InferenceSession:
    """Open a model on exactly these providers, for all its runs.

    ONNX Runtime itself goes on with another provider, CPUs' last, 20 to 100 times slower, when one cannot start, or fails in a run.

    Raises:
        pb_utils.TritonModelException: a provider is not in this build of ONNX Runtime, or it did not start.
    """
    advice = "install onnxruntime-gpu with its CUDA libraries into Triton's environment, or serve on the CPU with --model-config-name=cpu"
    names = [name for name, _ in providers]
    if missing := [name for name in names if name not in ort.get_available_providers()]:
        raise pb_utils.TritonModelException(f"{missing[0]} is not in the installed ONNX Runtime {ort.__version__}: {advice}.")
    if names != ["CPUExecutionProvider"]:
        ort.preload_dlls()
    try:
        session = without_stale_engines(lambda: ort.InferenceSession(file, options, providers=providers, enable_fallback=0))
    except (ValueError, RuntimeError) as error:
        if names == ["CPUExecutionProvider"]:
            raise
        cause = " ".join(str(error).split()).rstrip(". ")
        raise pb_utils.TritonModelException(f"{file} cannot be opened on {' and '.join(names)}: {cause}{why_not(names[0])}.") from error
    if stopped := [name for name in names if name not in session.get_providers()]:
        raise pb_utils.TritonModelException(f"{stopped[0]} did not start{why_not(stopped[0])}: {advice}.")
    return session


def without_stale_engines(action: Callable[[], Result]) -> Result:
    """Do what may take engines that were kept; those that TensorRT does not read are removed, and built anew."""
    while True:
        try:
            return action()
        except Exception as error:
            found = STALE_ENGINE.search(str(error))
            if found is None or not Path(found[1]).is_file():
                raise
            pb_utils.Logger.log_warn(
                f"TensorRT does not read the engine {found[1]}, which is built anew: another release of it made it, or not to the end."
            )
            Path(found[1]).unlink()


def why_not(provider: str) -> str:
    """Tell what keeps a provider's library from being loaded; nothing if it loads, and then ONNX Runtime's own log says more."""
    folder = Path(ort.__file__).parent / "capi"
    try:
        ctypes.CDLL(str(folder / PROVIDER_LIBRARIES[provider]))
    except OSError as error:
        return f", {error}"
    return ""
