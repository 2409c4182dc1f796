"""Segments: what is asked for, what they take of which track, and how far each frame's mouth is theirs."""

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from orchestrator.errors import InvalidOption
from orchestrator.media.audio import AudioInfo, Passage
from orchestrator.media.times import SourceTimes
from orchestrator.pipeline.options import RenderOptions
from orchestrator.pipeline.passages import check_segments, placed, said_in, speaking_shares, stretches_of
from orchestrator.pipeline.speakers import voices_of
from orchestrator.pipeline.timeline import Timeline, constant_timeline

TRACK = AudioInfo(Path("speech.wav"), 16_000, 1, "pcm_s16le", Fraction(4))


def options(*segments: dict[str, Any], **others: Any) -> RenderOptions:
    return RenderOptions.model_validate({"segments": segments, **others})


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("[]", "at least one segment"),
        ("from 2 to 5", "must be JSON"),
        ('{"start": 2, "end": 5}', "must be JSON, a list"),
        (json.dumps([{"start": k, "end": k + 1} for k in range(1001)]), "1001 segments; at most 1000"),
        ('[{"start": 5, "end": 5}]', "number 1; its end has to come behind its start"),
        ('[{"start": 0, "end": 1}, {"start": 5, "end": 6, "audio_start": 3, "audio_end": 2}]', "nothing of the audio for segment 2"),
        ('[{"start": -1, "end": 5}]', "greater than or equal to 0"),
        ('[{"start": 0, "end": NaN}]', "finite"),
        ('[{"start": 0, "end": 1, "speed": 2}]', "Extra inputs"),
        ('[{"start": 0, "end": 1, "sync_mode": "stretch"}]', "sync_mode"),
    ],
)
def test_segments_that_mean_nothing_are_refused(given: str, complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        RenderOptions.model_validate({"segments": given})


@pytest.mark.parametrize(
    ("others", "complaint"),
    [
        ({"sync_mode": "remap"}, "give it there"),
        ({"sync_mode": "silence"}, "give it there"),
        ({"audio_offset": 1.0}, "leave audio_offset out"),
        ({"frame_rate": "keep"}, "leave one of them out"),
    ],
)
def test_what_does_not_go_with_segments_is_refused(others: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidOption, match=complaint):
        options({"start": 0, "end": 1, "sync_mode": "remap"}, **others).check()


def test_whole_video_is_shown() -> None:
    chosen = options({"start": 0, "end": 1}, frame_rate="keep")
    chosen.check()
    assert chosen.mode == "silence"


def test_track_without_a_speaker_is_one_more_of_the_first_ones() -> None:
    assert voices_of("auto", ["", "10,20", "", "10,20"]) == [0, 0, 1, 0, 1]
    assert voices_of("30,40", ["10,20", "30,40"]) == [0, 1, 0]


@pytest.mark.parametrize(
    ("segments", "speakers", "complaint"),
    [
        ([(0, 1, 2)], [], "takes audio 2, and the last one has the number 1"),
        ([(0, 1, 1)], [""], "Audio 2 is in no segment"),
        ([(3, 5, 1), (0, 3.5, 2)], [""], "from 0 and from 3 s overlap"),
        ([(0, 2, 1), (1, 3, 1)], [], "from 0 and from 1 s overlap"),
    ],
)
def test_segments_that_do_not_fit_the_tracks_are_refused(segments: list[tuple[float, float, int]], speakers: list[str], complaint: str) -> None:
    asked = options(*({"start": start, "end": end, "audio": audio} for start, end, audio in segments)).segments
    assert asked is not None
    with pytest.raises(InvalidOption, match=complaint):
        check_segments(asked, voices_of("auto", speakers))


@pytest.mark.parametrize(("first", "second"), [({}, {"sync_mode": "remap"}), ({"sync_mode": "bounce"}, {}), ({"sync_mode": "loop"}, {"start": 3})])
def test_segment_that_changes_the_length_overlaps_no_other(first: dict[str, Any], second: dict[str, Any]) -> None:
    asked = options({"start": 0, "end": 2.5, **first}, {"start": 0.5, "end": 1, "audio": 3}, {"start": 2, "end": 4, "audio": 2, **second}).segments
    assert asked is not None
    with pytest.raises(InvalidOption, match=r"The segment from (0\.5|2) s overlaps one before it"):
        check_segments(asked, [0, 1, 2])


def test_segments_that_follow_each_other_may_change_the_length() -> None:
    asked = options({"start": 0, "end": 2, "sync_mode": "remap"}, {"start": 2, "end": 4, "audio": 2, "sync_mode": "bounce"}).segments
    assert asked is not None
    check_segments(asked, [0, 1])


def test_several_speakers_may_speak_at_once() -> None:
    asked = options({"start": 0, "end": 2}, {"start": 1, "end": 3, "audio": 2}).segments
    assert asked is not None
    check_segments(asked, [0, 1])


def test_passages_are_cut_to_their_place_the_track_and_the_video() -> None:
    asked = options(
        {"start": 1, "end": 2.5, "audio_start": 0.5},
        {"start": 4, "end": 9, "audio_start": 3, "audio_end": 8},
        {"start": 9.5, "end": 12, "audio_end": 1},
        {"start": 3, "end": 4, "audio": 2},
    ).segments
    assert asked is not None
    about_s = Fraction(90, 11)  # which may be ten seconds
    first, second = placed(asked, said_in(asked, [TRACK, TRACK], about_s), [TRACK, TRACK], [0, 1], about_s)
    assert [(float(one.start_s), float(one.end_s), float(one.from_s), float(one.said_s), float(one.cut_s)) for one in first] == [
        (1, 2.5, 0.5, 1.5, 2),
        (4, 9, 3, 1, 0),
        (9.5, 10, 0, 0.5, 0.5),
    ]
    assert [float(one.start_s) for one in second] == [3]


@pytest.mark.parametrize(("mode", "lasts"), [("bounce", (3, 1)), ("loop", (3, 1)), ("remap", (3, 1)), ("cut_off", (2, 1)), ("silence", (3, 1.5))])
def test_segment_lasts_as_long_as_its_mode_says_and_what_follows_comes_so_much_later(mode: str, lasts: tuple[float, float]) -> None:
    """Of 10 s, two seconds with 3 s of speech, and 1.5 s with one second; then a segment that is as long as it is, of another voice."""
    asked = options(
        {"start": 1, "end": 3, "audio_end": 3, "sync_mode": mode},
        {"start": 5, "end": 6.5, "audio_start": 3, "sync_mode": mode},
        {"start": 8, "end": 12, "audio": 2},
    ).segments
    assert asked is not None
    said_s = said_in(asked, [TRACK, TRACK], Fraction(10))
    assert said_s == [3, 1, 4]
    first, second = placed(asked, said_s, [TRACK, TRACK], [0, 1], Fraction(10))
    starts = (1, 5 - 2 + lasts[0], 8 - 2 - 1.5 + sum(lasts))
    assert [(float(one.start_s), float(one.end_s), float(one.asked_s)) for one in (*first, *second)] == [
        (starts[0], starts[0] + lasts[0], 1),
        (starts[1], starts[1] + lasts[1], 5),
        (starts[2], starts[2] + 4, 8),
    ]
    assert [float(one.said_s) for one in first] == [min(3, lasts[0]), 1]
    assert [(float(one.from_s), float(one.source_s), float(one.lasts_s), one.mode) for one in stretches_of(asked, said_s, Fraction(10))] == [
        (0, 1, 1, None),
        (1, 2, lasts[0], mode),
        (3, 2, 2, None),
        (5, 1.5, lasts[1], mode),
        (6.5, 3.5, 3.5, None),
    ]


def test_segment_behind_the_end_of_video_or_track_is_refused() -> None:
    asked = options({"start": 6.5, "end": 7, "audio_start": 4}).segments
    assert asked is not None
    with pytest.raises(InvalidOption, match=r"begins at 6\.5 s, and the video ends at 5\.00 s"):
        said_in(asked, [TRACK], Fraction(5))
    with pytest.raises(InvalidOption, match=r"from 4 s on, and speech\.wav has 4\.00 s"):
        said_in(asked, [TRACK], None)


def shown(frame_count: int) -> Timeline:
    times = SourceTimes(np.arange(frame_count), Fraction(1, 25), Fraction(25), is_constant=True)
    return constant_timeline("silence", times, Fraction(25), Fraction(1), is_whole=True, loop_crossfade_s=Fraction(0))


def passages(*places: tuple[float, float]) -> AudioInfo:
    return replace(TRACK, passages=tuple(Passage(TRACK, Fraction(start), Fraction(end), Fraction(0), Fraction(1)) for start, end in places))


def test_mouth_fades_where_a_segment_meets_the_source_and_nowhere_else() -> None:
    shares = speaking_shares(passages((0, 1), (1, 2), (3, 4)), shown(100))
    assert shares[:47].tolist() == [1] * 47, "the first begins with the video, the second where the first ends"
    np.testing.assert_allclose(shares[47:50], [1, 0.6, 0.2], atol=1e-6)
    assert not shares[50:75].any()
    np.testing.assert_allclose(shares[75:78], [0.2, 0.6, 1], atol=1e-6)
    assert shares[78:].tolist() == [1] * 22, "the last ends with the video"


def test_track_without_segments_is_all_of_the_speech() -> None:
    assert speaking_shares(TRACK, shown(30)).tolist() == [1.0] * 25 + [0.0] * 5
