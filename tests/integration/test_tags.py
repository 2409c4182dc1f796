"""What a source says of itself is said by the result, too."""

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import av
import pytest

from orchestrator.inference.client import TritonClient
from orchestrator.media.probe import probe_video
from orchestrator.media.tags import MAX_CHARACTERS, language_of
from orchestrator.pipeline.options import RenderOptions
from orchestrator.pipeline.plan import plan_render
from orchestrator.pipeline.render import render
from tests.clips import write_speech

WORK = {
    "title": "Rede – 演说",
    "artist": "Anna",
    "album": "Reden",
    "date": "2024",
    "genre": "Rede",
    "copyright": "© Anna",
    "comment": "x\x07y\nz",
}
PRIVATE = {"location": "+48.2082+016.3738/", "com.apple.quicktime.model": "Phone"}
CHAPTERS = [(0, "Anfang"), (400, "Mitte\x00\x1b"), (880, "Ende")]
"""ms, and titles."""


def tagged(path: Path, clip: Path, about: Mapping[str, str] = WORK | PRIVATE, language: str = "ger") -> Path:
    """Return a second of the clip, with all that a file may say of itself."""
    with av.open(str(clip)) as source, av.open(str(path), "w", options={"movflags": "use_metadata_tags"} if path.suffix == ".mp4" else {}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        stream.metadata["language"] = language
        target.metadata.update(about)
        target.set_chapters(
            [
                {"id": number, "start": start, "end": start + 100, "time_base": Fraction(1, 1000), "metadata": {"title": title}}
                for number, (start, title) in enumerate(CHAPTERS)
            ]
        )
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    return path


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second and a half of Spanish in Matroska."""
    folder = tmp_path_factory.mktemp("speech")
    bare = write_speech(folder / "speech.wav", 1.5)
    with av.open(str(bare)) as source, av.open(str(folder / "speech.mka"), "w") as target:
        stream = target.add_stream_from_template(source.streams.audio[0])
        stream.metadata["language"] = "spa"
        for packet in source.demux(source.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    return folder / "speech.mka"


def said(path: Path) -> tuple[dict[str, str], list[str | None], list[tuple[float, str]]]:
    """Return a file's tags by lower-case name, the languages of picture and sound, and its chapters."""
    with av.open(str(path)) as container:
        chapters = [(float(one["start"] * Fraction(one["time_base"] or 0)), one["metadata"]["title"]) for one in container.chapters()]
        languages = [language_of(stream.metadata) for stream in (container.streams.video[0], container.streams.audio[0])]
        return {name.lower(): value for name, value in container.metadata.items()}, languages, chapters


@pytest.mark.parametrize(("source", "result"), [("a.mp4", "b.mp4"), ("a.mkv", "b.mkv"), ("a.mkv", "b.mov"), ("a.mp4", "b.webm")])
def test_result_says_what_the_source_does(source: str, result: str, clip: Path, speech: Path, client: TritonClient, tmp_path: Path) -> None:
    plan = plan_render(tagged(tmp_path / source, clip), speech, tmp_path / result, RenderOptions(preset="ultrafast"))
    render(plan, client)
    work, languages, chapters = said(tmp_path / result)
    assert {name: work.get(name) for name in WORK} == WORK | {"comment": "xy\nz"}
    assert not [name for name in work if "location" in name or "apple" in name]
    assert languages == ["ger", "spa"]
    assert chapters == [(0.0, "Anfang"), (0.4, "Mitte"), (0.88, "Ende")], "where they are seen first; then the video goes back"
    assert probe_video(tmp_path / result).expected_frame_count == 38


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"sync_mode": "remap"}, [0.0, 0.6, 1.32]),
        ({"frame_rate": "50"}, [0.0, 0.4, 0.88]),
        ({"segments": [{"start": 0.2, "end": 0.6, "sync_mode": "remap"}]}, [0.0, 0.96, 1.98]),
        ({"segments": [{"start": 0.2, "end": 0.6, "sync_mode": "loop", "audio_end": 0.1}]}, [0.0, 0.3, 0.58]),
    ],
)
def test_chapters_begin_where_their_pictures_do(
    options: dict[str, object], expected: list[float], clip: Path, speech: Path, client: TritonClient, tmp_path: Path
) -> None:
    plan = plan_render(tagged(tmp_path / "a.mkv", clip), speech, tmp_path / "b.mp4", RenderOptions.model_validate({"preset": "ultrafast", **options}))
    render(plan, client)
    _, languages, chapters = said(tmp_path / "b.mp4")
    assert [start for start, _ in chapters] == pytest.approx(expected, abs=0.0205)
    assert languages[1] == (None if "segments" in options else "spa"), "segments mix the source's sound with it"


def test_chapters_behind_the_end_of_the_result_are_left_out(clip: Path, client: TritonClient, tmp_path: Path) -> None:
    speech = write_speech(tmp_path / "speech.wav", 0.6)
    render(plan_render(tagged(tmp_path / "a.mp4", clip), speech, tmp_path / "b.mp4", RenderOptions(preset="ultrafast")), client)
    with av.open(str(tmp_path / "b.mp4")) as container:
        spans = [(one["start"], one["end"]) for one in container.chapters()]
        assert language_of(container.streams.audio[0].metadata) is None
    assert spans == [(0, 400), (400, 600)]


def test_what_no_container_takes_is_left_out(clip: Path, tmp_path: Path) -> None:
    path = tagged(tmp_path / "a.mkv", clip, {"title": "t" * 100_000, "artist": "\x01\x02", "comment": "late"}, "a language")
    data = path.read_bytes()
    assert data.count(b"late") == 1
    path.write_bytes(data.replace(b"late", b"\xff\xfe\x80e"))
    tags = probe_video(path).tags
    assert (len(tags.work["title"]), "artist" in tags.work, tags.work["comment"][-1], tags.video_language) == (MAX_CHARACTERS, False, "e", None)
