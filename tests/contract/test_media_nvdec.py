"""Decoding on a GPU: the same pictures as software, which goes on where NVDEC cannot. A stand-in hands pictures out as NVDEC does, in NV12."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.container import InputContainer

from deploy.local.gpu import gpu_expected
from orchestrator.cores import available_cores
from orchestrator.errors import GpuUnavailable, UnreadableMedia
from orchestrator.media import encoders, nvdec
from orchestrator.media import reader as reader_module
from orchestrator.media.container import open_media, packets_of
from orchestrator.media.nvdec import accelerator, chosen_decoder, nvdec_problem
from orchestrator.media.probe import VideoInfo, probe_video, video_stream
from orchestrator.media.reader import FrameIndex, VideoReader
from orchestrator.settings import Settings
from orchestrator.tuned import TUNED_FILE, Tuned
from tests.clips import Clip, make_clip, planes_of

B_FRAMES = {"preset": "veryfast", "crf": "20", "x264-params": "b-adapt=0:scenecut=0"}
CLIPS = {
    "h264 mp4": ("clip.mp4", Clip(b_frames=3, options=B_FRAMES)),
    "h264 mp4, odd-sized": ("clip.mp4", Clip(b_frames=3, options=B_FRAMES, size_wh=(98, 66))),
    "h264 ts": ("clip.ts", Clip(b_frames=2, options=B_FRAMES, first_tick=35)),
    "hevc mp4": ("clip.mp4", Clip(codec="libx265", options={"preset": "ultrafast", "x265-params": "log-level=none:pools=1:keyint=12:bframes=3"})),
    "vp9 webm": ("clip.webm", Clip(codec="libvpx-vp9", options={"cpu-used": "8", "deadline": "realtime"})),
}
SOFTWARE = {
    "10 bits": ("clip.mp4", Clip(pix_fmt="yuv420p10le")),
    "4:2:2": ("clip.mp4", Clip(pix_fmt="yuv422p")),
    "interlaced": ("clip.mp4", Clip(b_frames=2, options={**B_FRAMES, "flags": "+ildct+ilme"})),
    "mpeg2": ("clip.ts", Clip(codec="mpeg2video", options={}, b_frames=2)),
}
without_gpu = pytest.mark.skipif(gpu_expected() is not None, reason="an NVIDIA GPU shows, which may well decode")


class Gpu:
    """A decoder that hands out what the real one does as NVDEC would, as long as there are `packets` left."""

    def __init__(self, decoder: Any, packets: Iterator[int], pix_fmt: str) -> None:
        self._decoder, self._packets, self._pix_fmt = decoder, packets, pix_fmt

    def decode(self, packet: Any) -> list[av.VideoFrame]:
        if next(self._packets, None) is None:
            raise av.ExternalError(0x58455445, "Generic error in an external library")
        pictures = []
        for picture in self._decoder.decode(packet):
            handed = picture.reformat(format=self._pix_fmt)
            handed.pts, handed.time_base, handed.key_frame = picture.pts, picture.time_base, picture.key_frame
            pictures.append(handed)
        return pictures

    def flush_buffers(self) -> None:
        self._decoder.flush_buffers()


class Stream:
    """A stream that is decoded by `Gpu`."""

    def __init__(self, real: Any, packets: Iterator[int], pix_fmt: str) -> None:
        self.real, self.codec_context = real, Gpu(real.codec_context, packets, pix_fmt)


class Opened:
    """The file that is read, and how often it was opened with and without a GPU."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, packets: int = 1 << 30, pix_fmt: str = "nv12", *, has_context: bool = True) -> None:
        self.on_gpu: list[bool] = []
        left = iter(range(packets))

        @contextmanager
        def opening(path: Path, hwaccel: Any) -> Iterator[InputContainer]:
            self.on_gpu.append(hwaccel is not None)
            if hwaccel is not None and not has_context:
                raise UnreadableMedia("clip cannot be read (Cannot allocate memory).")
            with open_media(path) as container:
                yield container

        def stream_of(container: InputContainer, index: int) -> Any:
            real = video_stream(container, index)
            return Stream(real, left, pix_fmt) if self.on_gpu[-1] else real

        monkeypatch.setattr(reader_module, "open_media", opening)
        monkeypatch.setattr(reader_module, "video_stream", stream_of)
        monkeypatch.setattr(reader_module, "decoder_of", lambda stream: stream.codec_context)
        monkeypatch.setattr(reader_module, "packets_of", lambda container, stream: packets_of(container, stream.real if self.on_gpu[-1] else stream))


@pytest.fixture(params=CLIPS)
def info(request: pytest.FixtureRequest, tmp_path: Path) -> VideoInfo:
    name, clip = CLIPS[request.param]
    return probe_video(make_clip(tmp_path / name, clip))


def everything(info: VideoInfo) -> list[Any]:
    """Return the pictures of a video from its start, then some forwards and backwards, with their numbers."""
    with VideoReader(info) as reader:
        frames = [(frame.index, frame.is_key, frame.picture.pts, planes_of(frame.picture)) for frame in reader.decode_from_start()]
        index = FrameIndex(np.array([pts for _, _, pts, _ in frames], np.int64), np.array([is_key for _, is_key, _, _ in frames], np.bool_))
        orders = ([*range(5, 30)], [*range(29, 10, -1)], [3, 3, 17, 25], [0])
        found = [(frame.index, planes_of(frame.picture)) for order in orders for frame in reader.decode_order(index, np.array(order))]
        assert reader.damaged_packet_count == 0
    return [*frames, *found]


def assert_same(found: list[Any], expected: list[Any]) -> None:
    assert [row[:-1] for row in found] == [row[:-1] for row in expected]
    for (*_, ours), (*_, planes) in zip(found, expected, strict=True):
        for one, other in zip(ours, planes, strict=True):
            np.testing.assert_array_equal(one, other)


def test_pictures_are_those_of_software(info: VideoInfo, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    expected = everything(info)
    opened = Opened(monkeypatch)
    assert_same(everything(replace(info, decoder="nvdec")), expected)
    assert all(opened.on_gpu) and not caplog.records


@pytest.mark.parametrize("packets", [0, 1, 20, 45])
def test_software_goes_on_where_nvdec_fails(info: VideoInfo, packets: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    expected = everything(info)
    opened = Opened(monkeypatch, packets)
    assert_same(everything(replace(info, decoder="nvdec")), expected)
    assert opened.on_gpu[0] and not opened.on_gpu[-1], "and not once more on the GPU"
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


@pytest.mark.parametrize("trouble", [{"has_context": False}, {"pix_fmt": "yuv420p"}], ids=["no context", "decoded in software"])
def test_software_decodes_what_the_gpu_does_not_take(
    info: VideoInfo, trouble: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = everything(info)
    opened = Opened(monkeypatch, **trouble)
    assert_same(everything(replace(info, decoder="nvdec")), expected)
    assert opened.on_gpu[:2] == [True, False] and not any(opened.on_gpu[2:])
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_only_what_is_the_same_to_the_bit_goes_to_the_gpu(info: VideoInfo, tmp_path: Path) -> None:
    assert accelerator(info) is None, "unless it is asked for"
    assert accelerator(replace(info, decoder="nvdec")) is not None
    for name, (file, clip) in SOFTWARE.items():
        assert accelerator(replace(probe_video(make_clip(tmp_path / f"{name[:2]}-{file}", clip)), decoder="nvdec")) is None, name


@without_gpu
def test_without_a_driver_it_is_an_error_if_set_and_a_warning_if_tuned(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    problem = nvdec_problem()
    assert problem is not None and "libnvcuvid.so.1" in problem
    assert chosen_decoder(Settings(data=tmp_path)) == "software"
    with pytest.raises(GpuUnavailable, match=r"NVDEC cannot be used .* leave LIPSYNC_DECODER unset"):
        chosen_decoder(Settings(data=tmp_path, decoder="nvdec"))
    tuned = Tuned(cores=available_cores(), device="gpu", encoder_threads=1, concurrent_renders=2, decoder="nvdec")
    (tmp_path / TUNED_FILE).write_text(tuned.model_dump_json())
    assert chosen_decoder(Settings(data=tmp_path, decoder="software")) == "software" and not caplog.records
    assert chosen_decoder(Settings(data=tmp_path)) == "software"
    assert "software decodes" in caplog.text


def test_decoder_that_gives_other_pictures_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    real = encoders.decoded_packets
    missing: list[str] = []

    def decoded(codec: str, packets: list[bytes], hwaccel: object = None) -> list[av.VideoFrame]:
        pictures = real(codec, packets)
        if hwaccel is None:
            return pictures
        return [picture.reformat(format="nv12") for picture in pictures[len(missing) :]]

    monkeypatch.setattr(nvdec, "decoded_packets", decoded)
    assert nvdec_problem.__wrapped__() is None
    missing.append("a picture")
    assert nvdec_problem.__wrapped__() == "its pictures are not those of software"
    monkeypatch.setattr(nvdec, "decoded_packets", lambda codec, packets, *_: real(codec, packets))
    assert nvdec_problem.__wrapped__() == "it decodes no H.264"
