"""Files that cannot be rendered: the right error, in one sentence that says what to do, at once."""

import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from orchestrator.errors import EmptyStream, InputError, LimitExceeded, MissingFile, MissingStream, UnreadableMedia
from orchestrator.media.audio import read_samples, read_speech
from orchestrator.media.probe import probe_video
from tests.clips import Clip, Sound, make_clip, make_sound, number_of, write_wav

AAC = Sound("aac", 48_000, sample_format="fltp", duration_s=Fraction(12, 5))
ACTIONS = ("check", "convert", "copy", "export", "give", "scale", "upload", "use", "must have")
"""What a message may tell the user to do."""

Read = Callable[[Path], object]
READS: dict[str, Read] = {"video": probe_video, "audio": read_speech}


@contextmanager
def refused(error: type[InputError], name: str, match: str | None = None) -> Iterator[None]:
    """Expect an error of exactly this class, with a good message, for little work: as seconds of this process, which no busy machine makes more."""
    started_s = time.process_time()
    with pytest.raises(InputError, match=match) as caught:
        yield
    assert time.process_time() - started_s < 3.0
    assert type(caught.value) is error
    message = str(caught.value)
    assert name in message
    assert message[0].isupper() or message.startswith(name)
    assert message.endswith(".") and not re.search(r"[.!?]\s+[A-Z]", message), f"one sentence: {message}"
    assert "\n" not in message and "Traceback" not in message
    assert any(action in message for action in ACTIONS), f"says what to do: {message}"


@pytest.fixture(params=READS)
def read(request: pytest.FixtureRequest) -> Read:
    return READS[request.param]


def cut(path: Path, share: float) -> Path:
    """Return a copy of a file that ends early."""
    data = path.read_bytes()
    short = path.with_name(f"cut{path.suffix}")
    short.write_bytes(data[: int(len(data) * share)])
    return short


def test_missing_file(tmp_path: Path, read: Read) -> None:
    with refused(MissingFile, "none.mp4"):
        read(tmp_path / "none.mp4")


def test_folder_is_no_file(tmp_path: Path, read: Read) -> None:
    with refused(MissingFile, tmp_path.name):
        read(tmp_path)


def test_pictures_that_ffmpeg_has_no_decoder_for(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4")
    clip.write_bytes(clip.read_bytes().replace(b"avc1", b"zzz1"))
    with refused(UnreadableMedia, "clip.mp4", "Decoder not found"):
        probe_video(clip)


def test_empty_file(tmp_path: Path, read: Read) -> None:
    (tmp_path / "empty.mp4").touch()
    with refused(UnreadableMedia, "empty.mp4", "0 bytes"):
        read(tmp_path / "empty.mp4")


@pytest.mark.parametrize("name", ["text.mp4", "text.wav", "text.txt", "text.srt", "text.svg"])
def test_text_file(tmp_path: Path, read: Read, name: str) -> None:
    contents = {
        "text.srt": "1\n00:00:00,000 --> 00:00:01,000\nhello\n",
        "text.svg": '<svg xmlns="http://www.w3.org/2000/svg" width="100" height="100"/>',
    }
    (tmp_path / name).write_text(contents.get(name, "This is no video.\n" * 200))
    with refused(UnreadableMedia, name):
        read(tmp_path / name)


@pytest.mark.parametrize("name", ["noise.mp4", "noise.wav", "noise.bin"])
@pytest.mark.parametrize("seed", range(5))
def test_random_bytes(tmp_path: Path, read: Read, name: str, seed: int) -> None:
    (tmp_path / name).write_bytes(random.Random(seed).randbytes(200_000))
    with refused(UnreadableMedia, name):
        read(tmp_path / name)


def test_random_bytes_that_call_themselves_mp3(tmp_path: Path) -> None:
    """FFmpeg believes the name, and then finds no frame."""
    path = tmp_path / "noise.mp3"
    path.write_bytes(random.Random(1).randbytes(200_000))
    with refused(MissingStream, "noise.mp3"):
        probe_video(path)
    with refused(EmptyStream, "noise.mp3"):
        read_speech(path)


@pytest.mark.parametrize("options", [{"movflags": "+faststart"}, {}], ids=["header first", "header last"])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.6])
def test_truncated_mp4(tmp_path: Path, read: Read, options: dict[str, str], share: float) -> None:
    whole = make_clip(tmp_path / "clip.mp4", Clip(frame_count=60, container_options=options), AAC)
    read(whole)
    with refused(UnreadableMedia, "cut.mp4"):
        read(cut(whole, share))


@pytest.mark.parametrize("name", ["clip.mkv", "clip.webm"])
def test_truncated_matroska(tmp_path: Path, name: str) -> None:
    codec = (
        Clip(frame_count=60) if name.endswith("mkv") else Clip(codec="libvpx-vp9", options={"cpu-used": "8", "deadline": "realtime"}, frame_count=60)
    )
    with refused(UnreadableMedia, "cut", "truncated"):
        probe_video(cut(make_clip(tmp_path / name, codec), 0.6))


def test_truncated_wav(tmp_path: Path) -> None:
    with refused(UnreadableMedia, "cut.wav", "truncated"):
        read_speech(cut(write_wav(tmp_path / "speech.wav", np.zeros(80_000, np.float32), 16_000), 0.6))


def test_truncated_flac(tmp_path: Path) -> None:
    with refused(UnreadableMedia, "cut.flac", "truncated"):
        read_speech(cut(make_sound(tmp_path / "speech.flac", Sound("flac", duration_s=Fraction(5))), 0.6))


@pytest.mark.parametrize("name", ["speech.wav", "speech.flac"])
def test_sound_without_a_sample(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith("wav"):
        write_wav(path, np.zeros(0, np.float32), 16_000)
    else:
        make_sound(path, Sound("flac", duration_s=Fraction(0)))
    with refused(EmptyStream, name):
        read_speech(path)


@pytest.mark.parametrize("name", ["speech.wav", "speech.mp3", "speech.m4a"])
def test_sound_where_a_video_is_wanted(tmp_path: Path, name: str) -> None:
    sounds = {"speech.wav": Sound(), "speech.mp3": Sound("libmp3lame", sample_format="s16p"), "speech.m4a": Sound("aac", sample_format="fltp")}
    with refused(MissingStream, name, "no video"):
        probe_video(make_sound(tmp_path / name, sounds[name]))


@pytest.mark.parametrize("name", ["clip.mp4", "clip.png"])
def test_video_without_sound_where_speech_is_wanted(tmp_path: Path, name: str) -> None:
    clip = Clip() if name.endswith("mp4") else Clip(codec="png", pix_fmt="rgb24", options={}, frame_count=1)
    path = make_clip(tmp_path / name, clip)
    with refused(MissingStream, name, "no audio"):
        read_speech(path)
    with refused(MissingStream, name, "no audio"):
        list(read_samples(path, "mono", 16_000))


@pytest.mark.parametrize("size_wh", [(16, 16), (96, 30), (30, 96)])
def test_picture_too_small_for_a_face(tmp_path: Path, size_wh: tuple[int, int]) -> None:
    with refused(LimitExceeded, "small.mp4", f"{size_wh[0]}x{size_wh[1]}"):
        probe_video(make_clip(tmp_path / "small.mp4", Clip(size_wh=size_wh)))


def test_picture_too_large(tmp_path: Path) -> None:
    """A few kilobytes of PNG that would be 150 MB decoded."""
    path = make_clip(tmp_path / "large.png", Clip(codec="png", pix_fmt="gray", size_wh=(8200, 4400), options={}, frame_count=1))
    started_s = time.process_time()
    with pytest.raises(LimitExceeded, match="8200x4400"):
        probe_video(path)
    assert time.process_time() - started_s < 5.0


SCRIPTS = {
    "concat.txt": "ffconcat version 1.0\nfile 'other.mp4'\n",
    "concat.mp4": "ffconcat version 1.0\nfile other.mp4\n",
    "list.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nother.ts\n#EXT-X-ENDLIST\n",
    "list.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
    "list.mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><AdaptationSet><Representation><BaseURL>other.mp4</BaseURL>'
    "</Representation></AdaptationSet></Period></MPD>",
    "call.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_that_names_other_files_is_refused(tmp_path: Path, read: Read, name: str) -> None:
    make_clip(tmp_path / "other.mp4", Clip(), AAC)
    make_clip(tmp_path / "other.ts", Clip(), AAC)
    (tmp_path / name).write_text(SCRIPTS[name])
    with refused(UnreadableMedia, name):
        read(tmp_path / name)


@pytest.mark.parametrize("name", ["still%03d.png", "still%d.png", "concat:a|b.png", "a b#c?.png", "标题.png", "pipe:0.png", "still*.png", "-i.png"])
def test_name_of_a_file_means_that_file_and_no_other(tmp_path: Path, name: str) -> None:
    """FFmpeg takes `still%03d.png` for a sequence, and reads `still001.png`."""
    make_clip(tmp_path / "still001.png", Clip(codec="png", pix_fmt="rgb24", options={}, frame_count=1, size_wh=(200, 200)))
    make_clip(tmp_path / "still1.png", Clip(codec="png", pix_fmt="rgb24", options={}, frame_count=1, size_wh=(200, 200)))
    own = make_clip(tmp_path / "own.png", Clip(codec="png", pix_fmt="rgb24", options={}, frame_count=1))
    own.rename(tmp_path / name)
    assert probe_video(tmp_path / name).size_wh == (96, 64)


def test_cover_picture_of_a_song_is_no_video(tmp_path: Path) -> None:
    song = make_sound(tmp_path / "song.mp3", Sound("libmp3lame", sample_format="s16p"))
    cover = make_clip(tmp_path / "cover.png", Clip(codec="png", pix_fmt="rgb24", options={}, frame_count=1)).read_bytes()
    body = b"\x00image/png\x00\x03\x00" + cover
    frame = b"APIC" + len(body).to_bytes(4, "big") + b"\x00\x00" + body
    size = len(frame)
    tag = b"ID3\x03\x00\x00" + bytes((size >> shift) & 0x7F for shift in (21, 14, 7, 0))
    audio = song.read_bytes()
    song.write_bytes(tag + frame + audio[audio.index(b"\xff\xfb") if b"\xff\xfb" in audio else 0 :])
    assert read_speech(song).info.codec.startswith("mp3")
    with refused(MissingStream, "song.mp3", "no video"):
        probe_video(song)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_damage_anywhere_gives_frames_or_one_of_our_errors(tmp_path: Path, codec: str) -> None:
    """Whatever FFmpeg makes of a damaged file, nothing but our own errors comes out."""
    whole = make_clip(tmp_path / "whole.mp4", Clip(codec=codec, options={}, frame_count=20), AAC).read_bytes()
    path = tmp_path / "damaged.mp4"
    dice = random.Random(11)
    outcomes = set()
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(dice.randint(1, 5)):
            start = dice.randrange(len(data))
            data[start : start + 20] = dice.randbytes(min(20, len(data) - start))
        path.write_bytes(data)
        for read in READS.values():
            try:
                read(path)
                outcomes.add("read")
            except InputError as exc:
                outcomes.add(exc.code)
    assert {"read", "unreadable_media"} <= outcomes <= {"read", "unreadable_media", "missing_stream", "empty_stream", "limit_exceeded"}


def test_numbers_in_test_pictures_can_be_told_apart() -> None:
    """The tool the other tests stand on."""
    from tests.clips import numbered_planes

    assert [number_of(numbered_planes(number, (97, 65))[0]) for number in range(64)] == list(range(64))


def test_speech_that_is_longer_than_its_header_says_is_not_read_to_its_end(tmp_path: Path) -> None:
    """An ADTS file has no length in its header, so only decoding tells."""
    path = tmp_path / "long.aac"
    with av.open(str(path), "w", format="adts") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16_000 * 20), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    pieces = []
    with pytest.raises(LimitExceeded, match="longer than 2 s"):
        read_speech(path, lambda: pieces.append(1), max_duration_s=2)
    assert 0 < len(pieces) < 40  # of about 312
    assert float(read_speech(path, max_duration_s=21).info.duration_s) == pytest.approx(20, abs=0.2)
