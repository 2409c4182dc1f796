"""The MP4 that comes out: exact frames, clock, colour and sound, complete or not there at all."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from orchestrator.errors import EncodeError, StorageFull
from orchestrator.media.assembly import assemble
from orchestrator.media.audio import AudioInfo, read_speech
from orchestrator.media.clock import OutputClock
from orchestrator.media.encoding import Encoding
from orchestrator.media.formats import PRESETS
from orchestrator.media.output import choose_output
from orchestrator.media.planes import plane_view
from orchestrator.media.probe import ColourTags, VideoInfo, probe_video
from orchestrator.media.segment import SegmentEncoder
from orchestrator.media.sound import SpeechEncoder
from orchestrator.pipeline.segments import SegmentFolder, SegmentWriter, finished_segments
from orchestrator.pipeline.watch import Watch
from preprocess.orientation import Orientation
from tests.clips import Sound, boxes, decoded, decoded_sound, info_of, make_sound, number_of, numbered_planes, picture_of, write_wav

FAST = Encoding(preset="ultrafast")
LOSSLESS = Encoding(preset="ultrafast", lossless=True)

RATES = [Fraction(25), Fraction(24000, 1001), Fraction(30000, 1001), Fraction(60), Fraction(12), Fraction(30000, 1121), Fraction(1)]


@pytest.fixture
def speech(tmp_path: Path) -> AudioInfo:
    """A second of tone, 16 kHz."""
    return read_speech(make_sound(tmp_path / "speech.wav")).info


def numbered(frame_count: int, info: VideoInfo) -> Iterator[av.VideoFrame]:
    for number in range(frame_count):
        yield picture_of(numbered_planes(number % 64, info.working_size_wh, info.working_pix_fmt), info.working_pix_fmt)


def write_movie(
    path: Path, info: VideoInfo, speech: AudioInfo, encoding: Encoding, frame_count: int = 25, pictures: Iterable[av.VideoFrame] = ()
) -> Path:
    folder = SegmentFolder(path.with_suffix(".segments"), {})
    output, clock = choose_output(encoding, info), OutputClock.constant(info.frame_rate)
    with SegmentWriter(folder, info, clock, SpeechEncoder(speech, sound=output.sound), output, frame_count, Watch()) as writer:
        for picture in pictures or numbered(frame_count, info):
            writer.write(picture, is_edited=False)
    assemble([segment.file for segment in folder.finished], path, info, clock, output)
    return path


@pytest.mark.parametrize("frame_rate", RATES)
def test_frames_and_rate_are_exact(tmp_path: Path, speech: AudioInfo, frame_rate: Fraction) -> None:
    out = write_movie(tmp_path / "out.mp4", info_of(frame_rate=frame_rate), speech, Encoding(preset="veryfast", thread_count=2), 121)
    frames = decoded(out)
    assert [number_of(plane_view(frame.planes[0])) for frame in frames] == [number % 64 for number in range(121)]
    with av.open(str(out)) as container:
        stream = container.streams.video[0]
        assert stream.frames == 121
        assert stream.average_rate == frame_rate
    # Every frame stands where the rate puts it, within a tick of the file's clock, so nothing adds up.
    for number, frame in enumerate(frames):
        assert frame.pts is not None and frame.time_base is not None
        assert abs(frame.pts * Fraction(frame.time_base) - number / frame_rate) <= Fraction(frame.time_base)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_writes_the_exact_frame_count(tmp_path: Path, speech: AudioInfo, preset: str) -> None:
    out = write_movie(tmp_path / "out.mp4", info_of(), speech, Encoding(preset=preset))
    assert len(decoded(out)) == 25


@pytest.mark.parametrize("tags", [ColourTags(1, 1, 1, 1), ColourTags(1, 6, 6, 6), ColourTags(1, 9, 16, 9), ColourTags(0, 2, 2, 2)])
def test_colour_tags_are_carried(tmp_path: Path, speech: AudioInfo, tags: ColourTags) -> None:
    assert probe_video(write_movie(tmp_path / "out.mp4", info_of(colour=tags), speech, FAST)).colour == tags


@pytest.mark.parametrize(("pix_fmt", "colour_range"), [("yuvj420p", 2), ("yuv420p", 2)])
def test_full_range_is_carried_however_the_source_says_it(tmp_path: Path, speech: AudioInfo, pix_fmt: str, colour_range: int) -> None:
    info = info_of(pix_fmt=pix_fmt, colour=ColourTags(colour_range, 1, 1, 1))
    found = probe_video(write_movie(tmp_path / "out.mp4", info, speech, FAST))
    assert found.colour.range == 2
    assert found.pix_fmt == "yuvj420p", "FFmpeg's name for 4:2:0 that says it is full range"


@pytest.mark.parametrize("is_mirrored", [False, True])
@pytest.mark.parametrize("turn_deg", [0, 90, 180, 270])
def test_rotation_and_pixel_shape_are_carried(tmp_path: Path, speech: AudioInfo, turn_deg: int, is_mirrored: bool) -> None:
    info = info_of(orientation=Orientation(turn_deg, is_mirrored), sample_aspect_ratio=Fraction(4, 3))
    found = probe_video(write_movie(tmp_path / "out.mp4", info, speech, FAST))
    assert found.orientation == Orientation(turn_deg, is_mirrored)
    assert found.sample_aspect_ratio == Fraction(4, 3)
    assert found.size_wh == (96, 64)


def test_header_stands_before_the_pictures_so_that_browsers_start_at_once(tmp_path: Path, speech: AudioInfo) -> None:
    names = boxes(write_movie(tmp_path / "out.mp4", info_of(), speech, FAST))
    assert names.index("moov") < names.index("mdat")


def test_sources_key_frames_do_not_become_the_outputs(tmp_path: Path, speech: AudioInfo) -> None:
    pictures = list(numbered(25, info_of()))
    for picture in pictures:
        picture.pict_type = av.video.frame.PictureType.I
    write_movie(tmp_path / "out.mp4", info_of(), speech, FAST, pictures=pictures)
    keys = [number for number, frame in enumerate(decoded(tmp_path / "out.mp4")) if frame.key_frame]
    assert keys == [0, FAST.opening_frame_count(Fraction(25))], "one a segment"


@pytest.mark.parametrize("source_rate_hz", [8_000, 16_000, 22_050, 44_100, 48_000, 6_000, 192_000])
@pytest.mark.parametrize("channel_count", [1, 2])
def test_click_is_heard_when_its_frame_is_seen(tmp_path: Path, source_rate_hz: int, channel_count: int) -> None:
    """Frame 10 of 25 a second begins at 0.4 s, and so does the click."""
    samples = np.zeros(source_rate_hz, np.float32)
    tone = np.sin(2 * np.pi * 1000 / source_rate_hz * np.arange(source_rate_hz // 100)).astype(np.float32)
    samples[source_rate_hz * 2 // 5 :][: len(tone)] = 0.9 * tone
    path = write_wav(tmp_path / "click.wav", np.tile(samples[:, None], (1, channel_count)), source_rate_hz)
    out = write_movie(tmp_path / "out.mp4", info_of(), read_speech(path).info, Encoding(preset="veryfast"))
    heard, first_s = decoded_sound(out)
    with av.open(str(out)) as container:
        assert container.streams.audio[0].codec_context.channels == channel_count
        rate_hz = container.streams.audio[0].codec_context.sample_rate
    tenth = decoded(out)[10]
    assert tenth.pts is not None and tenth.time_base is not None
    seen_s = tenth.pts * Fraction(tenth.time_base)
    click_s = float(first_s) + int(np.flatnonzero(np.abs(heard) > 0.25)[0]) / rate_hz
    assert abs(click_s - float(seen_s)) < 0.005
    assert abs(first_s) < Fraction(5, 1000)


def test_sound_is_the_speech_at_its_level_and_of_its_length(tmp_path: Path) -> None:
    sound = Sound(sample_rate_hz=48_000, duration_s=Fraction(3))
    speech = read_speech(make_sound(tmp_path / "speech.wav", sound)).info
    heard, _ = decoded_sound(write_movie(tmp_path / "out.mp4", info_of(), speech, FAST, 75))
    assert abs(len(heard) - 3 * 48_000) <= 2 * 1024, "AAC comes in frames of 1024"
    middle = heard[20_000:120_000]
    assert abs(float(np.sqrt((middle**2).mean())) - 0.5 / np.sqrt(2)) < 0.01


def test_speech_longer_than_the_pictures_is_kept_whole(tmp_path: Path) -> None:
    """The last frame's share of a second may fall short of the sound's end by half a frame; the sound must not be cut."""
    speech = read_speech(make_sound(tmp_path / "speech.wav", Sound(duration_s=Fraction(13, 10)))).info
    heard, _ = decoded_sound(write_movie(tmp_path / "out.mp4", info_of(), speech, FAST, 32))
    assert len(heard) >= 1.3 * 16_000


def test_sound_and_pictures_are_interleaved(tmp_path: Path) -> None:
    speech = read_speech(make_sound(tmp_path / "speech.wav", Sound(duration_s=Fraction(8)))).info
    with av.open(str(write_movie(tmp_path / "out.mp4", info_of(), speech, FAST, 200))) as container:
        packets = [(packet.pos, packet.stream.type, packet.pts * packet.time_base) for packet in container.demux() if packet.pts is not None]
    latest = {"video": Fraction(0), "audio": Fraction(0)}
    for _, kind, time in sorted(packets, key=lambda packet: packet[0] or 0):
        latest[kind] = max(latest[kind], time)
        assert abs(latest["video"] - latest["audio"]) < Fraction(3, 2), "a player that streams never waits long for the other"


def open_encoder(path: Path, speech: AudioInfo, encoding: Encoding = FAST) -> SegmentEncoder:
    return SegmentEncoder(path, info_of(), OutputClock.constant(Fraction(25)), choose_output(encoding, info_of()), SpeechEncoder(speech), 0, 0)


def test_encoder_failure_is_an_encode_error(tmp_path: Path, speech: AudioInfo) -> None:
    encoder = open_encoder(tmp_path / "no folder" / "out.mp4", speech)
    with pytest.raises(EncodeError, match="could not be encoded"):
        for picture in numbered(60, info_of()):
            encoder.write(picture)
        encoder.finish()
    encoder.abandon()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_is_an_error_of_its_own_and_not_a_short_file(tmp_path: Path, speech: AudioInfo) -> None:
    encoder = open_encoder(Path("/dev/full"), speech, LOSSLESS)
    for picture in numbered(60, info_of()):
        encoder.write(picture)
    with pytest.raises(StorageFull, match="space"):
        encoder.finish()
    movie = write_movie(tmp_path / "out.mp4", info_of(), speech, LOSSLESS)
    segments = [segment.file for segment in finished_segments(movie.with_suffix(".segments"))]
    with pytest.raises(StorageFull, match="space"):
        assemble(segments, Path("/dev/full"), info_of(), OutputClock.constant(Fraction(25)), choose_output(LOSSLESS, info_of()))


class Stop(Exception):
    """Something fails in the middle of a render."""


@pytest.mark.parametrize("frame_count", [0, 1, 60])
def test_writing_that_fails_half_way_leaves_only_whole_segments_and_keeps_the_first_error(
    tmp_path: Path, speech: AudioInfo, frame_count: int
) -> None:
    def failing() -> Iterator[av.VideoFrame]:
        yield from numbered(frame_count, info_of())
        raise Stop

    with pytest.raises(Stop):
        write_movie(tmp_path / "out.mp4", info_of(), speech, FAST, 100, failing())
    names = {path.name for path in (tmp_path / "out.segments").iterdir()}
    assert names == {"plan.json"} | ({"00000.mp4", "00000.json"} if frame_count >= 50 else set())
