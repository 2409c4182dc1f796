"""(d) Peak memory of a fresh orchestrator process by length of the video."""

from collections.abc import Iterator

from tests.bench.media import BASE_S
from tests.bench.scores import Figure
from tests.bench.workbench import Workbench

GROWTH_LIMIT = "What is kept per frame: its faces, times and the speech's level, some 200 bytes in all, and the segments' names; no pictures."
PEAK_LIMIT = (
    "x264's look-ahead and reference pictures, the decoder's, the frames under way (3 MB each at 1080p) and the libraries themselves (about 130 MB)."
)
NEW_LIMIT = "As above, and a second decoder with its pictures: a new video is analysed while it is rendered."
MAX_MB = 450.0


def measure(bench: Workbench) -> Iterator[Figure]:
    """Render each length in a process of its own: the longest two with a preset that takes the least time, the shortest also with the default."""
    size, effort = bench.effort.sizes[0], bench.effort
    peaks = {}
    for duration_s in effort.long_s:
        peaks[duration_s] = _peak_mb(bench, size, duration_s, "ultrafast")
    longest, before = effort.long_s[-1], effort.long_s[-2]
    detail: dict[str, object] = {"preset": "ultrafast", **{f"peak_mb_{duration_s}_s": round(peak) for duration_s, peak in peaks.items()}}
    yield Figure(f"d/{size}/growth-{before}s-{longest}s", (peaks[longest] / peaks[before],), "lower", 1.05, GROWTH_LIMIT, detail)
    default_mb = _peak_mb(bench, size, effort.long_s[0], "veryfast")
    highest = max(default_mb, *peaks.values())
    yield Figure(
        f"d/{size}/peak-mb", (highest,), "lower", MAX_MB, PEAK_LIMIT, {**detail, f"peak_mb_{effort.long_s[0]}_s_veryfast": round(default_mb)}
    )
    new_mb = _peak_mb(bench, size, before, "veryfast", is_known=False)
    yield Figure(f"d/{size}/new-video-peak-mb", (new_mb,), "lower", MAX_MB, NEW_LIMIT, {"duration_s": before, "preset": "veryfast"})


def _peak_mb(bench: Workbench, size: str, duration_s: int, preset: str, *, is_known: bool = True) -> float:
    video, speech = bench.media.video(size, duration_s), bench.media.speech(duration_s)
    arguments = {"address": bench.client.address, "video": video, "speech": speech, "out": bench.folder / "d.mp4", "preset": preset}
    if is_known:
        bench.know_faces(bench.client, video, duration_s, base=bench.media.video(size, min(BASE_S, duration_s)))
        arguments["tracks"] = bench.folder / "tracks"
    return float(bench.in_fresh_process("render", **arguments)["peak_rss_mb"])
