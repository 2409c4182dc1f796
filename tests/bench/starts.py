"""(g) Cold against warm: the command line with a Triton of its own, and a video whose faces are not known yet."""

import subprocess
import sys
from collections.abc import Iterator

from orchestrator.pipeline.options import RenderOptions
from tests.bench.scores import Figure
from tests.bench.workbench import Workbench, ratios, side_by_side, timed

START_LIMIT = "Starting Python and its libraries, Triton, and loading the models, for a render of a second: all of it is fixed time."
ANALYSIS_LIMIT = "Decoding the video once more is a part of it that no detector makes cheaper."


def measure(bench: Workbench) -> Iterator[Figure]:
    """Measure the shortest render both ways, then a new video against a known one."""
    effort = bench.effort
    size, options = effort.sizes[-1], RenderOptions(preset="ultrafast")
    video, speech = bench.media.video(size, 1), bench.media.speech(1)
    bench.render(bench.client, video, speech, options)
    command = [sys.executable, "-m", "orchestrator.cli", "render", "--video", str(video), "--audio", str(speech), "--preset", "ultrafast"]
    out = str(bench.folder / "g.mp4")

    def cold() -> float:
        return timed(lambda: subprocess.run([*command, "-o", out], check=True, capture_output=True, env=bench.environment))

    start, warm = side_by_side(effort.rounds, cold, lambda: timed(lambda: bench.render(bench.client, video, speech, options)))
    detail = {"cold_s": [round(seconds, 2) for seconds in start], "warm_s": [round(seconds, 3) for seconds in warm]}
    yield Figure("g/cold-over-warm-start", ratios(start, warm), "lower", None, START_LIMIT, detail)

    size = effort.sizes[0]
    video, speech = bench.media.video(size, effort.clip_s), bench.media.speech(effort.clip_s)
    options = RenderOptions(preset="veryfast")
    bench.render(bench.client, video, speech, options)
    new, known = side_by_side(
        max(1, effort.rounds - 1),
        lambda: timed(lambda: bench.render(bench.client, video, speech, options, cached=False)),
        lambda: timed(lambda: bench.render(bench.client, video, speech, options)),
    )
    detail = {"new_s": [round(seconds, 2) for seconds in new], "known_s": [round(seconds, 2) for seconds in known]}
    yield Figure(f"g/{size}/new-over-known-video", ratios(new, known), "lower", 1 / 0.75, ANALYSIS_LIMIT, detail)
