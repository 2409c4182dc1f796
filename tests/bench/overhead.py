"""(h) What the orchestrator computes outside codec and model, as a share of everything that is computed.

Measured with CPU clocks and not with a profiler: the process that renders, less a process that only decodes and encodes the same video with
the same settings and encodes the same speech, over the first plus what Triton's processes used meanwhile. Cropping, pasting, requests,
segments and the interpreter are in it.
"""

from collections.abc import Iterator

from tests.bench.media import FRAME_RATE
from tests.bench.scores import Figure
from tests.bench.workbench import Workbench, side_by_side

LIMIT = (
    "Measured with the clocks of the threads at 720p, of 3.8 ms a frame beyond the floor on a quiet machine: cutting a face out and putting it back "
    "2.0, masks, requests and copies 0.9, segments, container and hand-overs 0.9; a new encoder for each segment costs nothing that could be "
    "measured. On a busy machine the same codec takes longer beside a model on the same cores. A dearer model or codec makes the share smaller."
)


def measure(bench: Workbench) -> Iterator[Figure]:
    """Measure each size with the default preset."""
    effort = bench.effort
    preset = effort.presets[0]
    for size in effort.sizes:
        yield _share(bench, size, preset)


def _share(bench: Workbench, size: str, preset: str) -> Figure:
    clip_s = bench.effort.clip_s
    video, speech, frames = bench.media.video(size, clip_s), bench.media.speech(clip_s), clip_s * FRAME_RATE
    bench.know_faces(bench.client, video, clip_s)
    model_s: list[float] = []

    def product() -> float:
        before_s = bench.triton_cpu_s(bench.client)
        arguments = {"address": bench.client.address, "video": video, "speech": speech, "out": bench.folder / "h.mp4", "preset": preset}
        done = bench.in_fresh_process("render", tracks=bench.folder / "tracks", **arguments)
        model_s.append(bench.triton_cpu_s(bench.client) - before_s)
        return float(done["cpu_s"])

    def floor() -> float:
        arguments = {"video": video, "speech": speech, "out": bench.folder / "floor.mp4", "preset": preset, "frame_count": frames}
        done = bench.in_fresh_process("floor", **arguments)
        return float(done["cpu_s"])

    ours, codec = side_by_side(bench.effort.rounds, product, floor)
    rounds = tuple((own - bare) / (own + model) for own, bare, model in zip(ours, codec, model_s, strict=True))
    detail = {
        "orchestrator_cpu_ms_per_frame": [round(1e3 * seconds / frames, 2) for seconds in ours],
        "codec_cpu_ms_per_frame": [round(1e3 * seconds / frames, 2) for seconds in codec],
        "model_cpu_ms_per_frame": [round(1e3 * seconds / frames, 2) for seconds in model_s],
    }
    return Figure(f"h/{size}/{preset}", rounds, "lower", 0.08, LIMIT, detail)
