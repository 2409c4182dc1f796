"""(c) Against a straightforward script in the manner of Wav2Lip's `inference.py`: the same model, the same faces, the same encoder settings.

The script reads every frame into memory, resizes face boxes, calls the model in batches inside its own process, pastes rectangles, writes a
temporary MPEG-4 Part 2 file with OpenCV and encodes that again with x264 beside the sound. It is spared what the product spares with a cached
analysis: it is told where the faces are.
"""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from orchestrator.media.audio import mel_blocks, read_speech
from preprocess.face_track import FaceTrack
from preprocess.mel import MelWindows, clipped
from tests.bench.floor import encode_speech
from tests.bench.media import FRAME_RATE
from tests.bench.scores import Figure
from tests.bench.workbench import Workbench, ratios, side_by_side

LIMIT = "The script's own floor is two encodes, two decodes and full-frame colour conversions, one after the other; its memory grows with the video."
BATCH = 8


def measure(bench: Workbench) -> Iterator[Figure]:
    """Measure one size, both in processes of their own."""
    effort = bench.effort
    size, preset = ("720p", "veryfast") if "720p" in effort.sizes else (effort.sizes[-1], effort.presets[0])
    video, speech = bench.media.video(size, effort.clip_s), bench.media.speech(effort.clip_s)
    boxes = bench.folder / "boxes.npy"
    np.save(boxes, face_boxes(bench.know_faces(bench.client, video, effort.clip_s)))
    model = next((bench.settings.model_repository / "lip_sync").glob("*/model.onnx"))
    costs: dict[str, list[float]] = {"product": [], "script": []}

    def product() -> float:
        arguments = {"address": bench.client.address, "video": video, "speech": speech, "out": bench.folder / "c.mp4", "preset": preset}
        done = bench.in_fresh_process("render", tracks=bench.folder / "tracks", **arguments)
        costs["product"].append(done["peak_rss_mb"])
        return float(done["wall_s"])

    def script() -> float:
        arguments = {"model": model, "video": video, "speech": speech, "boxes": boxes, "out": bench.folder / "script.mp4", "preset": preset}
        done = bench.in_fresh_process("script", **arguments)
        costs["script"].append(done["peak_rss_mb"])
        return float(done["wall_s"])

    ours, theirs = side_by_side(effort.rounds, product, script)
    frames = effort.clip_s * FRAME_RATE
    detail = {
        "product_ms_per_frame": [round(1e3 * seconds / frames, 2) for seconds in ours],
        "script_ms_per_frame": [round(1e3 * seconds / frames, 2) for seconds in theirs],
        "product_peak_mb": round(max(costs["product"])),
        "script_peak_mb": round(max(costs["script"])),
    }
    yield Figure(f"c/{size}/script-over-product", ratios(theirs, ours), "higher", 3.0, LIMIT, detail)


def face_boxes(track: FaceTrack) -> NDArray[np.int64]:
    """Return (N, 4) boxes xyxy around eyes, mouth and chin."""
    low, high = track.landmarks5.min(1), track.landmarks5.max(1)
    side = (high - low).max(1, keepdims=True)
    return np.concatenate([low - 0.6 * side, high + 0.6 * side], axis=1).round().astype(np.int64)


def run_script(model: Path, video: Path, speech: Path, boxes: Path, out: Path, preset: str) -> None:
    """Render as the script does."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    size_px = session.get_inputs()[0].shape[1]
    capture = cv2.VideoCapture(str(video))
    frames = []
    while True:
        is_there, frame = capture.read()
        if not is_there:
            break
        frames.append(frame)
    capture.release()
    hear = MelWindows([clipped(np.concatenate(list(mel_blocks(read_speech(speech).info)), axis=1))], Fraction(0))
    places = np.load(boxes)
    height, width = frames[0].shape[:2]
    temporary = out.with_name("temporary.mp4")
    writer = cv2.VideoWriter(str(temporary), cv2.VideoWriter.fourcc(*"mp4v"), FRAME_RATE, (width, height))
    for first in range(0, len(frames), BATCH):
        batch = frames[first : first + BATCH]
        corners = [np.clip(box, 0, (width, height, width, height)) for box in places[first : first + BATCH]]
        faces = [
            cv2.cvtColor(cv2.resize(frame[y1:y2, x1:x2], (size_px, size_px)), cv2.COLOR_BGR2RGB)
            for frame, (x1, y1, x2, y2) in zip(batch, corners, strict=True)
        ]
        windows = [hear(Fraction(first + index, FRAME_RATE))[None] for index in range(len(batch))]
        mouths = session.run(["mouth"], {"face": np.stack(faces), "audio": np.stack(windows)})[0]
        for frame, mouth, (x1, y1, x2, y2) in zip(batch, mouths, corners, strict=True):
            edited = frame.copy()
            edited[y1:y2, x1:x2] = cv2.resize(cv2.cvtColor(mouth, cv2.COLOR_RGB2BGR), (int(x2 - x1), int(y2 - y1)))
            writer.write(edited)
    writer.release()
    _encode_again(temporary, speech, out, preset)
    temporary.unlink()


def _encode_again(temporary: Path, speech: Path, out: Path, preset: str) -> None:
    """Do what `ffmpeg -i temporary -i speech out` does."""
    with av.open(str(temporary)) as source, av.open(str(out), "w") as target:
        stream = target.add_stream("libx264", rate=FRAME_RATE, options={"preset": preset, "crf": "18"})
        template = source.streams.video[0]
        template.thread_type = "AUTO"
        stream.width, stream.height, stream.pix_fmt = template.width, template.height, "yuv420p"
        stream.codec_context.thread_type = "FRAME"
        audio = target.add_stream("aac", rate=16_000, layout="mono")
        for index, frame in enumerate(source.decode(template)):
            frame.pts, frame.time_base, frame.pict_type = index, Fraction(1, FRAME_RATE), av.video.frame.PictureType.NONE
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
        encode_speech(target, audio, speech)
