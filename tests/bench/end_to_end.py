"""(a) The whole render over its floor: what decoding and encoding cost by themselves, or the lip model where that is dearer."""

from collections.abc import Iterator
from statistics import median

from orchestrator.inference.lip_model import LipModel
from orchestrator.pipeline.options import RenderOptions
from tests.bench.calls import call_for
from tests.bench.floor import decode_encode
from tests.bench.media import FRAME_RATE
from tests.bench.scores import Figure
from tests.bench.workbench import Workbench, ratios, side_by_side, timed

CODEC_LIMIT = (
    "The floor is the codec on every core. On a CPU the model takes its time from the same cores, so the limit is (codec + model) / codec "
    "(`limit_of_shared_cores`); what is above that is crop, paste, requests, and the render's beginning and end. 1 is reached only where a GPU "
    "runs the model."
)
MODEL_LIMIT = (
    "The floor is the model alone. On a CPU the codec takes its time from the same cores, so the limit is (model + codec) / model "
    "(`limit_of_shared_cores`); 1 is reached only where a GPU runs the model."
)


def measure(bench: Workbench) -> Iterator[Figure]:
    """Measure every size and preset with a model cheaper than the codec, then one size with a dearer one."""
    for size in bench.effort.sizes:
        for preset in bench.effort.presets:
            yield _cheap(bench, size, preset)
    yield _dear(bench)


def _cheap(bench: Workbench, size: str, preset: str) -> Figure:
    effort = bench.effort
    video, speech = bench.media.video(size, effort.clip_s), bench.media.speech(effort.clip_s)
    frames, options = effort.clip_s * FRAME_RATE, RenderOptions(preset=preset)
    bench.know_faces(bench.client, video, effort.clip_s)
    product, floor = side_by_side(
        effort.rounds,
        lambda: timed(lambda: bench.render(bench.client, video, speech, options)),
        lambda: timed(lambda: decode_encode(video, speech, bench.folder / "floor.mp4", options.encoding(), frames)),
    )
    model_s = call_for(LipModel(bench.client), effort.model_s / 4)
    limit = 1 + model_s * frames / min(floor)
    detail = {
        "product_ms_per_frame": [round(1e3 * seconds / frames, 2) for seconds in product],
        "floor_ms_per_frame": [round(1e3 * seconds / frames, 2) for seconds in floor],
        "model_ms_per_frame": round(1e3 * model_s, 2),
        "limit_of_shared_cores": round(limit, 3),
        "product_over_that_limit": round(median(ratios(product, floor)) / limit, 3),
    }
    return Figure(f"a/{size}/{preset}", ratios(product, floor), "lower", 1.10, CODEC_LIMIT, detail)


def _dear(bench: Workbench) -> Figure:
    effort = bench.effort
    size, frames = effort.sizes[-1], effort.dear_s * FRAME_RATE
    video, speech = bench.media.video(size, effort.dear_s), bench.media.speech(effort.dear_s)
    options = RenderOptions(preset="ultrafast")
    bench.know_faces(bench.dear_client, video, effort.dear_s)
    model = LipModel(bench.dear_client)
    product, alone = side_by_side(
        effort.rounds,
        lambda: timed(lambda: bench.render(bench.dear_client, video, speech, options)),
        lambda: frames * call_for(model, min(2.0, effort.model_s), frames),
    )
    floor_s = timed(lambda: decode_encode(video, speech, bench.folder / "floor.mp4", options.encoding(), frames))
    detail = {
        "model": "Wav2Lip's shape, 96 px, 36 M parameters, random weights",
        "product_ms_per_frame": [round(1e3 * seconds / frames, 2) for seconds in product],
        "model_ms_per_frame": [round(1e3 * seconds / frames, 2) for seconds in alone],
        "limit_of_shared_cores": round(1 + floor_s / min(alone), 3),
    }
    return Figure(f"a/{size}/dear-model", ratios(product, alone), "lower", 1.05, MODEL_LIMIT, detail)
