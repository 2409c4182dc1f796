"""sync.so's options as the pipeline's: each combination means one thing, or is refused."""

from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.api.v2_options import render_options
from orchestrator.api.v2_schema import AudioInput, GenerateRequest, Options
from orchestrator.errors import InvalidOption

BOX = [1.0, 2.0, 30.0, 40.0]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {}),
        ({"occlusion_detection_enabled": True}, {"face_occluder": True}),
        ({"occlusion_detection_enabled": False}, {"face_occluder": False}),
        ({"output_format": "mp4"}, {"container": "mp4"}),
        ({"output_format": "mp4", "container": "mp4"}, {"container": "mp4"}),
        ({"occlusion_detection_enabled": None, "face_occluder": True}, {"face_occluder": True}),
        ({"occlusion_detection_enabled": False, "face_occluder": False}, {"face_occluder": False}),
        ({"active_speaker_detection": {"auto_detect": True}}, {"speaker": "auto"}),
        ({"active_speaker_detection": {"auto_detect": False, "coordinates": [12, 34.5]}}, {"speaker": "12.00,34.50,0"}),
        ({"active_speaker_detection": {"coordinates": [12, 34], "frame_number": 7}}, {"speaker": "12.00,34.00,7"}),
        ({"active_speaker_detection": {"bounding_boxes": [BOX, None]}}, {"speaker_boxes": (tuple(BOX), None)}),
        ({"active_speaker_detection": {"auto_detect": True}, "occlusion_detection_enabled": True}, {"speaker": "auto", "face_occluder": True}),
        ({"voice_separator": False}, {"voice_separator": False}),
        ({"active_speaker": True}, {"speaker": "auto"}),
        ({"active_speaker": False, "speaker": "all"}, {"speaker": "all"}),
        ({"active_speaker_detection": {"auto_detect": True, "v3": True}}, {"speaker": "auto"}),
        ({"active_speaker_detection": {"occlusion_detection_enabled": True}}, {"face_occluder": True}),
    ],
)
def test_options_of_sync_so_are_the_pipelines(given: dict[str, Any], expected: dict[str, Any]) -> None:
    options = render_options(Options.model_validate(given))
    assert {name: getattr(options, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"output_format": "mp4", "container": "mkv"}, "contradict each other"),
        ({"output_format": "gif"}, "container"),
        ({"occlusion_detection_enabled": True, "face_occluder": False}, "contradict each other"),
        ({"occlusion_detection_enabled": False, "face_occluder": True}, "contradict each other"),
        ({"active_speaker_detection": {"occlusion_detection_enabled": True}, "occlusion_detection_enabled": False}, "contradict each other"),
        ({"active_speaker_detection": {"auto_detect": True, "coordinates": [1, 2]}}, "takes one of"),
        ({"active_speaker_detection": {"coordinates": [1, 2], "bounding_boxes": [BOX]}}, "takes one of"),
        ({"active_speaker_detection": {"frame_number": 3}}, "needs coordinates"),
        ({"active_speaker_detection": {"auto_detect": True, "frame_number": 3}}, "needs coordinates"),
        ({"active_speaker_detection": {"coordinates": [1, 2]}, "speaker": "all"}, "both say who speaks"),
        ({"model_mode": "head"}, "model_mode is not supported"),
    ],
)
def test_combination_that_means_two_things_is_refused(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidOption, match=sentence):
        render_options(Options.model_validate(given))


@pytest.mark.parametrize("names", [["webhookUrl"], ["webhook_url"], ["webhookUrl", "webhook_url"]])
def test_webhook_may_have_either_name_or_both(names: list[str]) -> None:
    """Clients that are not sure send both; sync.so ignores the one it does not know."""
    body = {"model": "m", "input": [{"type": "audio", "url": "https://a.test/b", "ref_id": "x", "refId": "x"}]}
    request = GenerateRequest.model_validate(body | dict.fromkeys(names, "https://a.test/hook"))
    assert (request.webhookUrl, request.input) == ("https://a.test/hook", [AudioInput(type="audio", url="https://a.test/b", refId="x")])
    for one, other in (("webhookUrl", "webhook_url"), ("webhook_url", "webhookUrl")):
        with pytest.raises(ValidationError, match="webhook_url"):
            GenerateRequest.model_validate(body | {one: "https://a.test/hook", other: "https://b.test/hook"})
