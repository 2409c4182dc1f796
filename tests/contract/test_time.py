"""Sound and pictures of an output, measured: clips whose every frame carries its number, speech that clicks, in every mode and at many rates.

Everything between the two files and the one is real here but for the mouths, which have no say in time.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import get_args

import av
import numpy as np
import pytest

from orchestrator.media.assembly import assemble, read_init_bytes
from orchestrator.media.audio import AudioInfo, read_speech
from orchestrator.media.encoding import Encoding
from orchestrator.media.output import choose_output
from orchestrator.media.probe import probe_video
from orchestrator.media.reader import VideoReader
from orchestrator.media.sound import SpeechEncoder
from orchestrator.media.times import SourceTimes
from orchestrator.pipeline.analyse import times_of
from orchestrator.pipeline.options import RenderOptions
from orchestrator.pipeline.segments import SegmentFolder, SegmentWriter
from orchestrator.pipeline.timeline import SyncMode, Timeline, lay_out
from orchestrator.pipeline.watch import Watch
from tests.clips import Clip, Sound, frames_of, make_clip, make_sound, number_of, planes_of
from tests.contract.test_media_audio import onsets_s
from tests.contract.test_media_reader import index_of

SPEECH_S = Fraction(31, 10)
CLICKS_S = tuple(Fraction(click) for click in ("0.31", "1.13", "1.97", "2.503", "2.9"))
JITTER_MS = [*accumulate([0, *[33, 34, 33, 50, 17, 33, 100, 33, 40, 30] * 5])]
"""Starts of 51 frames of a variable rate, 30 a second for the greater part, ms."""


@dataclass(frozen=True)
class Source:
    file: str
    clip: Clip
    rate: Fraction
    """What `source` makes of it."""
    starts_s: tuple[Fraction, ...] = ()
    """When each frame begins, from the first; by the rate if empty."""

    def frame_at(self, time_s: Fraction) -> int:
        """Return the number of the frame on screen at a time."""
        if not self.starts_s:
            return min(int(time_s * self.rate), self.clip.frame_count - 1)
        return max(number for number, start in enumerate(self.starts_s) if start <= time_s)

    @property
    def duration_s(self) -> Fraction:
        return self.starts_s[-1] + 1 / self.rate if self.starts_s else self.clip.frame_count / self.rate


def constant(file: str, rate: str, **more: object) -> Source:
    return Source(file, Clip(frame_rate=Fraction(rate), frame_count=50, **more), Fraction(rate))  # type: ignore[arg-type]


MS_STARTS = tuple(Fraction(ms, 1000) for ms in JITTER_MS)
SOURCES = {
    "film": constant("clip.mkv", "24000/1001"),
    "pal, late": constant("clip.mp4", "25", first_tick=40),
    "ntsc": constant("clip.ts", "30000/1001", first_tick=35),
    "sport": constant("clip.mkv", "50"),
    "double": constant("clip.mp4", "60000/1001"),
    "fast": constant("clip.mkv", "120"),
    "phone": Source("clip.mp4", Clip(frame_rate=Fraction(1000), ticks=JITTER_MS), Fraction(30), MS_STARTS),
    "browser": Source("clip.mkv", Clip(frame_rate=Fraction(1000), ticks=JITTER_MS, first_tick=480), Fraction(30), MS_STARTS),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> "Made":
    return Made(tmp_path_factory.mktemp("time"))


class Made:
    """Sources and speech, each made when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.speech: AudioInfo = read_speech(
            make_sound(folder / "speech.wav", Sound(sample_rate_hz=48_000, duration_s=SPEECH_S, clicks_s=CLICKS_S))
        ).info  # fmt: skip
        self.source = cache(self._source)

    def _source(self, name: str) -> Path:
        folder = self._folder / name.replace(" ", "_").replace(",", "")
        folder.mkdir()
        return make_clip(folder / SOURCES[name].file, SOURCES[name].clip)


def output(video: Path, speech: AudioInfo, options: RenderOptions, out: Path) -> tuple[Timeline, SourceTimes]:
    """Write what a render writes, without faces."""
    info = probe_video(video)
    index = index_of(info)
    times = times_of(index.pts, info)
    shown = lay_out(options.sync_mode, options.rate, times, speech.duration_s, is_whole=True)
    folder = SegmentFolder(out.with_suffix(".segments"), {"timeline": shown.digest()})
    stored = choose_output(Encoding(preset="veryfast", crf=23, thread_count=1, container=options.container), info)
    with (
        VideoReader(info) as reader,
        SegmentWriter(folder, info, shown.clock, SpeechEncoder(speech, duration_s=shown.sound_s), stored, shown.frame_count, Watch()) as writer,
    ):
        for frame in reader.decode_order(index, shown.source[folder.frame_count :]):
            writer.write(frame.picture, is_edited=False)
    assemble([segment.file for segment in folder.finished], out, info, shown.clock, stored)
    live = [segment.file.path.read_bytes() for segment in folder.finished]
    inits = [read_init_bytes(segment.file.path) for segment in folder.finished]
    out.with_suffix(".live.mp4").write_bytes(live[0][: inits[0]] + b"".join(data[init:] for data, init in zip(live, inits, strict=True)))
    return shown, times


def seen(path: Path) -> list[tuple[Fraction, int]]:
    """Return when each frame of a file begins, and its number, in order of presentation."""
    stamped = [(Fraction(frame.pts or 0) * Fraction(frame.time_base or 0), number_of(planes_of(frame)[0])) for frame in frames_of(path)]
    assert stamped == sorted(stamped, key=lambda frame: frame[0])
    return stamped


def heard(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
    assert frames[0].pts == 0
    return onsets_s(np.concatenate([frame.to_ndarray()[0] for frame in frames]), frames[0].sample_rate)


def folded(mode: SyncMode, place: int, source_count: int) -> int:
    """Return which of a source's frames is shown at a place, step by step."""
    if mode in ("cut_off", "silence"):
        return min(place, source_count - 1)
    if mode == "loop":
        return place % source_count
    there_and_back: list[int] = [*range(source_count), *range(source_count - 2, 0, -1)]
    return there_and_back[place % len(there_and_back)]


CONVERSIONS = [*((name, "source") for name in SOURCES), ("film", "29.97"), ("double", "25"), ("phone", "25"), ("browser", "29.97")]


@pytest.mark.parametrize(("name", "rate"), CONVERSIONS)
def test_every_frame_is_in_its_place_and_every_click_under_it(made: Made, tmp_path: Path, name: str, rate: str) -> None:
    source = SOURCES[name]
    hz = {"source": source.rate, "25": Fraction(25), "29.97": Fraction(30000, 1001)}[rate]
    source_count = round(source.duration_s * hz)
    for mode in get_args(SyncMode):
        out = tmp_path / f"{mode}.mp4"
        output(made.source(name), made.speech, RenderOptions(sync_mode=mode, frame_rate=rate), out)
        speech_count = round(SPEECH_S * hz)
        frame_count = {"cut_off": min(source_count, speech_count), "silence": max(source_count, speech_count)}.get(mode, speech_count)
        if mode == "remap":
            expected = [source.frame_at(source.duration_s * Fraction(2 * k + 1, 2 * frame_count)) for k in range(frame_count)]
        else:
            expected = [source.frame_at((folded(mode, k, source_count) + Fraction(1, 2)) / hz) for k in range(frame_count)]
        for path in (out, out.with_suffix(".live.mp4")):
            frames = seen(path)
            assert [number for _, number in frames] == expected, (mode, path)
            assert all(abs(start - k / hz) <= Fraction(1, 20_000) for k, (start, _) in enumerate(frames)), "on the tick"
        clicks = [float(click) for click in CLICKS_S if click < frame_count / hz - Fraction(1, 100)]
        np.testing.assert_allclose(heard(out), clicks, atol=float(1 / hz / 2) / 5)


@pytest.mark.parametrize("mode", get_args(SyncMode))
@pytest.mark.parametrize("name", ["phone", "browser"])
def test_kept_times_are_the_source_s_own_to_the_tick(made: Made, tmp_path: Path, name: str, mode: SyncMode) -> None:
    out = tmp_path / "out.mp4"
    shown, times = output(made.source(name), made.speech, RenderOptions(sync_mode=mode, frame_rate="keep"), out)
    lengths = [b - a for a, b in pairwise(MS_STARTS)]
    lengths.append(Fraction(33, 1000))  # as long as most, to the tick
    assert not times.is_constant
    for path in (out, out.with_suffix(".live.mp4")):
        frames = seen(path)
        assert len(frames) == shown.frame_count
        stretch = SPEECH_S / sum(lengths) if mode == "remap" else 1
        for (start, number), (behind, _) in pairwise(frames):
            if mode != "silence" or number != len(lengths) - 1:
                assert abs(behind - start - stretch * lengths[number]) <= Fraction(2, 1000), (mode, start)
    numbers, count = [number for _, number in frames], len(lengths)
    if mode == "remap":
        assert numbers == [*range(count)]
    else:
        assert numbers == [folded(mode, k, count) for k in range(len(frames))]
    assert abs(shown.duration_s - (SPEECH_S if mode != "cut_off" else sum(lengths))) <= Fraction(1, 20)
    np.testing.assert_allclose(heard(out), [float(click) for click in CLICKS_S if click < shown.duration_s], atol=0.003)


def test_matroska_says_of_each_kept_frame_how_long_it_is_shown(made: Made, tmp_path: Path) -> None:
    out = tmp_path / "out.mkv"
    shown, _ = output(made.source("phone"), made.speech, RenderOptions(frame_rate="keep", container="mkv"), out)
    with av.open(str(out)) as container:
        packets = sorted((packet.pts or 0, packet.duration or 0) for packet in container.demux(video=0) if packet.size)
        assert abs(Fraction(container.duration or 0, av.time_base) - shown.duration_s) < Fraction(1, 20)
    assert all(abs(pts + duration - behind) <= 1 for (pts, duration), (behind, _) in pairwise(packets))


def test_output_that_keeps_its_times_is_the_same_bits_wherever_it_was_begun_again(made: Made, tmp_path: Path) -> None:
    options = RenderOptions(frame_rate="keep")
    output(made.source("phone"), made.speech, options, tmp_path / "once.mp4")
    output(made.source("phone"), made.speech, options, tmp_path / "twice.mp4")
    folder = tmp_path / "twice.segments"
    for segment in sorted(folder.glob("*.mp4"))[1:]:
        segment.unlink()
    output(made.source("phone"), made.speech, options, tmp_path / "twice.mp4")
    assert (tmp_path / "once.mp4").read_bytes() == (tmp_path / "twice.mp4").read_bytes()
    assert (tmp_path / "once.live.mp4").read_bytes() == (tmp_path / "twice.live.mp4").read_bytes()


@pytest.mark.parametrize("offset_s", [Fraction(1, 2), Fraction(-1, 2)])
def test_speech_begins_later_or_without_its_beginning(made: Made, tmp_path: Path, offset_s: Fraction) -> None:
    speech = read_speech(made.speech.path, offset_s=offset_s).info
    assert speech.duration_s == SPEECH_S + offset_s
    out = tmp_path / "out.mp4"
    shown, _ = output(made.source("pal, late"), speech, RenderOptions(), out)
    assert shown.frame_count == round((SPEECH_S + offset_s) * 25)
    np.testing.assert_allclose(heard(out), [float(click + offset_s) for click in CLICKS_S if click + offset_s > 0], atol=0.003)
