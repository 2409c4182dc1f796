"""Groups of pictures copied beside encoded ones: FFmpeg decodes the whole without an error, and what is copied to the source's own bits."""

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from orchestrator.errors import InvalidOption
from orchestrator.media.assembly import assemble
from orchestrator.media.audio import AudioInfo, read_speech
from orchestrator.media.clock import OutputClock
from orchestrator.media.encoding import Encoding
from orchestrator.media.gops import Gop, closed_gops
from orchestrator.media.output import choose_output
from orchestrator.media.probe import VideoInfo, probe_video
from orchestrator.media.sound import SpeechEncoder
from orchestrator.pipeline.parts import Part, copies_in, parts_of
from orchestrator.pipeline.segments import SegmentFolder, SegmentWriter
from orchestrator.pipeline.watch import Watch
from tests.clips import Clip, Sound, boxes, decoded, decoded_sound, info_of, make_clip, make_sound, number_of, numbered_planes, picture_of, planes_of

FRAMES = 63
GOP = 12

SOURCES = {
    "h264 mp4": ("clip.mp4", Clip(frame_count=FRAMES, gop=GOP, b_frames=3, options={"preset": "medium", "crf": "30"})),
    "h264 mp4 without B frames": ("clip.mp4", Clip(frame_count=FRAMES, gop=GOP, options={"preset": "ultrafast", "crf": "30", "tune": "zerolatency"})),
    "h264 mkv": ("clip.mkv", Clip(frame_count=FRAMES, gop=GOP, b_frames=2, options={"preset": "fast", "crf": "30"})),
    "hevc mp4": (
        "clip.mp4",
        Clip(
            codec="libx265",
            frame_count=FRAMES,
            gop=GOP,
            options={"preset": "fast", "x265-params": f"log-level=none:open-gop=0:keyint={GOP}:min-keyint={GOP}:scenecut=0:bframes=4"},
        ),
    ),
}


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> AudioInfo:
    return read_speech(make_sound(tmp_path_factory.mktemp("speech") / "speech.wav", Sound(duration_s=Fraction(FRAMES, 25)))).info


def luma(path: Path) -> NDArray[np.uint8]:
    return np.stack([planes_of(frame)[0] for frame in decoded(path)])


def write(
    folder: Path, info: VideoInfo, encoding: Encoding, speech: AudioInfo, copies: list[Part], source: NDArray[np.int64], stop_at: int = -1
) -> Path:
    """Write an output whose encoded pictures are those of test clips, but with 7 for the number of none of them."""
    clock, output, segments = OutputClock.constant(Fraction(25)), choose_output(encoding, info), SegmentFolder(folder, {})
    copied = {frame for part in copies for frame in range(part.first, part.stop)}
    with SegmentWriter(segments, info, clock, SpeechEncoder(speech, sound=output.sound), output, len(source), Watch(), copies) as writer:
        for place in range(segments.frame_count, len(source)):
            if place == stop_at:
                raise KeyboardInterrupt
            if place not in copied:
                writer.write(picture_of(numbered_planes(int(source[place]), info.size_wh)), is_edited=True)
        writer.copy_what_is_next()
    out = folder.with_suffix(output.container.suffixes[0])
    assemble([segment.file for segment in segments.finished], out, info, clock, output)
    assert list(segments.copied()) == merged(copies)
    return out


def merged(parts: list[Part]) -> list[tuple[int, int]]:
    flags = np.zeros(200, bool)
    for part in parts:
        flags[part.first : part.stop] = True
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(int)))
    return [(int(first), int(stop)) for first, stop in edges.reshape(-1, 2)]


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("untouched", [(0, 24), (20, 50), (36, FRAMES), (0, FRAMES)], ids=str)
def test_copied_and_encoded_pictures_are_one_video(tmp_path: Path, speech: AudioInfo, name: str, untouched: tuple[int, int]) -> None:
    file, clip = SOURCES[name]
    info = probe_video(make_clip(tmp_path / file, clip))
    frame_pts = np.array([frame.pts for frame in decoded(info.path)], np.int64)
    gops = closed_gops(info, frame_pts)
    assert [(gop.first, gop.frame_count) for gop in gops] == [(first, min(GOP, FRAMES - first)) for first in range(0, FRAMES, GOP)]
    is_untouched = np.zeros(FRAMES, np.bool_)
    is_untouched[slice(*untouched)] = True
    source = np.arange(FRAMES)
    copies = copies_in(source, is_untouched, gops, 50)
    assert merged(copies) == [(-(-untouched[0] // GOP) * GOP, untouched[1] if untouched[1] == FRAMES else untouched[1] // GOP * GOP)]
    encoding = Encoding(codec="hevc" if "hevc" in name else "h264", smart=True, thread_count=2)
    out = write(tmp_path / "once", info, encoding, speech, copies, source)
    assert boxes(out).index("moov") < boxes(out).index("mdat")
    frames = decoded(out)
    assert [number_of(planes_of(frame)[0]) for frame in frames] == list(range(FRAMES))
    assert [(frame.pts or 0) * Fraction(frame.time_base or 0) for frame in frames] == [Fraction(number, 25) for number in range(FRAMES)]
    original, found = luma(info.path), luma(out)
    for first, stop in merged(copies):
        assert np.array_equal(found[first:stop], original[first:stop])
    sound, first_s = decoded_sound(out)
    assert first_s == 0 and 0 <= len(sound) - FRAMES / 25 * 16_000 <= 2 * 1024
    if untouched == (20, 50):
        for stop_at in (10, 55):
            with pytest.raises(KeyboardInterrupt):
                write(tmp_path / "twice", info, encoding, speech, copies, source, stop_at)
        assert write(tmp_path / "twice", info, encoding, speech, copies, source).read_bytes() == out.read_bytes()


def test_every_copied_group_can_be_jumped_to(tmp_path: Path, speech: AudioInfo) -> None:
    file, clip = SOURCES["h264 mp4"]
    info = probe_video(make_clip(tmp_path / file, clip))
    copies = [Part(12, 36, closed_gops(info, np.array([frame.pts for frame in decoded(info.path)], np.int64))[1].pts)]
    out = write(tmp_path / "out", info, Encoding(smart=True), speech, copies, np.arange(FRAMES))
    with av.open(str(out)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.codec_tag == "avc3"
        for wanted in (40, 14, 2, 20, 62, 37, 26):
            container.seek(round(Fraction(wanted, 25) / Fraction(stream.time_base or 1)), stream=stream)
            numbers = []
            for frame in container.decode(stream):
                numbers.append(number_of(planes_of(frame)[0]))
                if numbers[-1] >= wanted:
                    break
            assert numbers[-1] == wanted and numbers == list(range(numbers[0], wanted + 1))


@pytest.mark.parametrize("container", ["clip.ts", "clip.mp4"])
def test_groups_that_others_refer_to_are_not_taken(tmp_path: Path, container: str) -> None:
    """HEVC with open groups (CRA) is one group as a whole; a stream without its parameter sets in a header has none."""
    options = {"preset": "fast", "x265-params": f"log-level=none:open-gop=1:keyint={GOP}:min-keyint={GOP}:scenecut=0:bframes=4"}
    clip = Clip(codec="libx265", frame_count=FRAMES, gop=GOP, options=options) if container == "clip.mp4" else SOURCES["h264 mp4"][1]
    info = probe_video(make_clip(tmp_path / container, clip))
    gops = closed_gops(info, np.array([frame.pts for frame in decoded(info.path)], np.int64))
    assert [(gop.first, gop.frame_count) for gop in gops] == ([(0, FRAMES)] if container == "clip.mp4" else [])


def test_parts_cover_an_output_once() -> None:
    assert parts_of(104, 50) == [Part(0, 50), Part(50, 54)]
    assert parts_of(105, 50) == [Part(0, 50), Part(50, 50), Part(100, 5)]
    copies = [Part(60, 20, 7), Part(80, 60, 9)]
    assert parts_of(105, 50, opening_frames=12) == [Part(0, 12), Part(12, 50), Part(62, 43)], "the first one is there soon"
    assert parts_of(16, 50, opening_frames=12) == [Part(0, 16)] and parts_of(60, 50, [Part(0, 60, 1)], 12) == [Part(0, 60, 1)]
    parts = parts_of(200, 50, copies)
    assert [part.first for part in parts] == list(np.cumsum([0, *(part.frame_count for part in parts)])[:-1]) and parts[-1].stop == 200
    assert [part for part in parts if part.source_pts is not None] == copies
    assert parts_of(140, 50, copies)[-1] == copies[-1] and parts_of(60, 50, [Part(0, 60, 1)]) == [Part(0, 60, 1)]


def test_copies_are_whole_groups_shown_forwards_and_untouched() -> None:
    gops = [Gop(0, 10, 100), Gop(10, 10, 200), Gop(20, 4, 300)]
    forwards_and_back = np.concatenate([np.arange(24), np.arange(22, -1, -1), np.arange(1, 24)])
    everything = np.ones(len(forwards_and_back), np.bool_)
    assert copies_in(forwards_and_back, everything, gops, 50) == [Part(0, 24, 100), Part(46, 24, 100)]
    assert copies_in(forwards_and_back, everything, gops, 10) == [Part(0, 10, 100), Part(10, 14, 200), Part(46, 10, 100), Part(56, 14, 200)]
    touched = everything.copy()
    touched[15] = False
    assert copies_in(forwards_and_back, touched, gops, 50) == [Part(0, 10, 100), Part(46, 24, 100)]


def refused() -> Iterator[tuple[Encoding, dict[str, object], str]]:
    smart = Encoding(smart=True)
    yield smart, {"codec": "hevc"}, "is hevc and the output h264"
    yield smart, {"container": "mpegts"}, "remux it"
    yield smart, {"pix_fmt": "bgr24"}, "have to be converted"
    yield smart, {"size_wh": (97, 65)}, "have to be converted"
    yield smart, {"is_interlaced": True}, "have to be converted"
    yield replace(smart, codec="hevc"), {"codec": "h264"}, "is h264 and the output hevc"


@pytest.mark.parametrize(("encoding", "changes", "sentence"), list(refused()))
def test_source_that_cannot_be_copied_from_is_refused(encoding: Encoding, changes: dict[str, object], sentence: str) -> None:
    info = info_of(container="mov,mp4,m4a,3gp,3g2,mj2")
    assert Encoding(smart=True).is_live is False
    with pytest.raises(InvalidOption, match=sentence):
        choose_output(encoding, replace(info, **changes))  # type: ignore[arg-type]


def test_smart_goes_with_codecs_and_containers_that_take_it() -> None:
    for values in ({"codec": "vp9"}, {"codec": "h264", "container": "mkv"}, {"codec": "prores"}):
        with pytest.raises(InvalidOption, match="give h264, hevc in mp4 or mov"):
            Encoding(smart=True, **values)  # type: ignore[arg-type]
