"""Media that a run makes for itself: a presenter in a landscape frame, as long as wanted, and as much speech."""

from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from deploy.demo.clip import make_clip
from orchestrator.media.audio import read_samples
from tests.clips import SPEECH_RATE_HZ, speech_like, write_wav

SHARED = Path(__file__).resolve().parents[3] / "shared" / "media"
"""Real presenters and speech, where they lie beside the checkout; else the demo's photograph and a made-up buzz are taken."""

FRAME_RATE = 25
NOISE_DEVIATION = 2.0
"""Of 255 levels."""

NOISE_PICTURES = 7

BASE_S = 10
"""Length of the clip that longer ones repeat, s."""

SIZES_WH = {"1080p": (1920, 1080), "720p": (1280, 720), "360p": (640, 360)}


class Media:
    """A folder of clips and speech, each made when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.presenter = SHARED / "presenter_man_talking.mp4"
        self.speaker = SHARED / "speech_jfk_en.flac"
        if not self.presenter.is_file():
            self.presenter = folder / "photograph.mp4"
            make_clip(self.presenter, duration_s=4)

    @property
    def source(self) -> str:
        """What the clips are made of."""
        return f"{self.presenter.name} and {self.speaker.name if self.speaker.is_file() else 'a made-up buzz'}"

    def video(self, size: str, duration_s: int) -> Path:
        """Return a clip of a size of `SIZES_WH`: the presenter at full height in front of a stretched copy, with the noise of a camera.

        25 frames/s, H.264. Without the noise an encoder has far less to do than with footage of a camera, and the floor would lie too low.
        """
        path = self._folder / f"{size}-{duration_s}s.mp4"
        if path.exists():
            return path
        if duration_s > BASE_S:
            repeat(self.video(size, BASE_S), path, duration_s // BASE_S)
            return path
        pictures = list(_presented(self.presenter, SIZES_WH[size], duration_s * FRAME_RATE))
        there_and_back = [*pictures, *pictures[-2:0:-1]] if len(pictures) > 2 else pictures
        noises = list(_camera_noise(pictures[0].shape))
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=FRAME_RATE, options={"crf": "20", "preset": "veryfast"})
            stream.width, stream.height = SIZES_WH[size]
            stream.pix_fmt = "yuv420p"
            stream.codec_context.gop_size = 2 * FRAME_RATE
            for index in range(duration_s * FRAME_RATE):
                picture = cv2.add(there_and_back[index % len(there_and_back)], noises[index % len(noises)], dtype=cv2.CV_8U)
                frame = av.VideoFrame.from_ndarray(np.asarray(picture, np.uint8), format="yuv420p")
                frame.pts, frame.time_base = index, Fraction(1, FRAME_RATE)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    def speech(self, duration_s: int) -> Path:
        """Return so much speech, 16 kHz mono."""
        path = self._folder / f"speech-{duration_s}s.wav"
        if path.exists():
            return path
        samples = _waveform(self.speaker) if self.speaker.is_file() else speech_like(10.0)
        count = duration_s * SPEECH_RATE_HZ
        return write_wav(path, np.resize(samples, count), SPEECH_RATE_HZ)


def repeat(clip: Path, out: Path, times: int) -> None:
    """Write a clip several times in a row by copying its packets; every copy begins with a key frame."""
    with av.open(str(clip)) as source, av.open(str(out), "w") as target:
        template = source.streams.video[0]
        stream = target.add_stream_from_template(template)
        tick = 1 / (FRAME_RATE * Fraction(template.time_base or 0))
        packets = [packet for packet in source.demux(template) if packet.size]
        step = round(tick) * len(packets)
        for copy in range(times):
            for original in packets:
                packet = av.Packet(bytes(original))
                packet.pts = (original.pts or 0) + copy * step
                packet.dts = (original.dts or 0) + copy * step
                packet.duration, packet.time_base, packet.is_keyframe = original.duration, original.time_base, original.is_keyframe
                packet.stream = stream
                target.mux(packet)


def _camera_noise(shape: tuple[int, ...]) -> Iterator[NDArray[np.int8]]:
    """Yield a few pictures of noise, as a camera makes indoors."""
    random = np.random.default_rng(0)
    for _ in range(NOISE_PICTURES):
        yield np.clip(np.round(random.standard_normal(shape, np.float32) * NOISE_DEVIATION), -127, 127).astype(np.int8)


def _presented(presenter: Path, size_wh: tuple[int, int], count: int) -> Iterator[NDArray[np.uint8]]:
    """Yield the presenter's first pictures as (h * 3 / 2, w) I420 of another size."""
    width, height = size_wh
    with av.open(str(presenter)) as container:
        for frame in islice(container.decode(video=0), count):
            image = frame.to_ndarray(format="bgr24")
            inner_width = round(image.shape[1] * height / image.shape[0])
            inner = cv2.resize(image, (inner_width, height), interpolation=cv2.INTER_CUBIC)
            canvas = cv2.resize(image, (width, height))
            left = (width - inner_width) // 2
            canvas[:, left : left + inner_width] = inner
            yield np.asarray(cv2.cvtColor(canvas, cv2.COLOR_BGR2YUV_I420), np.uint8)


def _waveform(path: Path) -> NDArray[np.float32]:
    """Return a sound as (n,) mono samples, 16 kHz, -1..1."""
    pieces = list(read_samples(path, "mono", SPEECH_RATE_HZ))
    return np.asarray(np.concatenate(pieces, axis=1)[0], np.float32)
