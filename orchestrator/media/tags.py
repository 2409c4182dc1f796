"""What a file says of itself, as far as it still holds for the result: the work's title and makers, the language, the chapters."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.video.stream import VideoStream

_WORK = ("title", "artist", "album_artist", "author", "composer", "performer", "publisher", "album", "show", "genre", "date", "copyright")
_ABOUT = ("keywords", "comment", "description", "synopsis")
"""FFmpeg's names of what is carried over. Where, when and with which device it was recorded is not: a result goes where that is nobody's business."""

MAX_CHARACTERS = 4000
"""Longest text that is kept of an entry."""

MAX_CHAPTERS = 1000

_CHAPTER_TICKS_HZ = 1000


@dataclass(frozen=True, slots=True)
class Chapter:
    """A chapter; it ends where the next one begins."""

    start_s: Fraction
    title: str


@dataclass(frozen=True, slots=True)
class Tags:
    """What a file says of itself."""

    work: Mapping[str, str] = field(default_factory=dict)
    """By FFmpeg's names."""
    video_language: str | None = None
    sound_language: str | None = None
    """As the file has it, which is an ISO 639-2 code as a rule; None where it says none."""
    chapters: tuple[Chapter, ...] = ()
    """In order."""


NO_TAGS = Tags()


def tags_of(container: InputContainer, stream_index: int, first_s: Fraction, *, is_still: bool) -> Tags:
    """Return a file's tags, except its sound's language.

    Args:
        container: the file.
        stream_index: of its pictures.
        first_s: when the first one is shown, s of the file's clock; chapters' times are counted from there.
        is_still: whether it is a single picture, which has no chapters.
    """
    work = {name.lower(): _text(value) for name, value in container.metadata.items() if name.lower() in (*_WORK, *_ABOUT)}
    chapters = []
    for chapter in () if is_still else container.chapters()[:MAX_CHAPTERS]:
        start_s = max(Fraction(0), chapter["start"] * Fraction(chapter["time_base"] or 0) - first_s)
        chapters.append(Chapter(start_s, _text(chapter["metadata"].get("title", ""))))
    language = language_of(container.streams[stream_index].metadata)
    return Tags({name: text for name, text in work.items() if text}, language, None, tuple(sorted(chapters, key=lambda chapter: chapter.start_s)))


def write_tags(container: OutputContainer, video: VideoStream, audio: AudioStream, tags: Tags, duration_s: Fraction) -> None:
    """Give a file that has no packet yet its tags; `duration_s` is where its last chapter ends."""
    container.metadata.update(tags.work)
    for stream, language in ((video, tags.video_language), (audio, tags.sound_language)):
        if language is not None:
            stream.metadata["language"] = language
    starts = [round(chapter.start_s * _CHAPTER_TICKS_HZ) for chapter in tags.chapters]
    ends = [*starts, round(duration_s * _CHAPTER_TICKS_HZ)][1:]
    container.set_chapters(
        [
            {"id": number, "start": start, "end": end, "time_base": Fraction(1, _CHAPTER_TICKS_HZ), "metadata": {"title": chapter.title}}
            for number, (chapter, start, end) in enumerate(zip(tags.chapters, starts, ends, strict=True), 1)
            if end > start
        ]
    )


def language_of(metadata: Mapping[str, str]) -> str | None:
    """Return the language that a stream says it has."""
    language = _text(metadata.get("language", ""))
    return language if language != "und" and re.fullmatch(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8}){0,2}", language) else None


def _text(value: str) -> str:
    """Return a text as it can stand in any container: of bounded length, and without control characters but line breaks."""
    return "".join(character for character in value[:MAX_CHARACTERS] if character.isprintable() or character == "\n").strip()
