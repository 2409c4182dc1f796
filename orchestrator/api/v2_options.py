"""sync.so's options as the pipeline's."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from orchestrator.api.problems import validation_sentence
from orchestrator.api.v2_schema import ActiveSpeaker, Options
from orchestrator.errors import InvalidOption
from orchestrator.pipeline.options import RenderOptions

OUR_NAMES: Mapping[str, str] = {"occlusion_detection_enabled": "face_occluder", "output_format": "container"}
"""What options of sync.so are called here."""


def render_options(options: Options | None) -> RenderOptions:
    """Return what the pipeline is asked for.

    Raises:
        InvalidOption: an option is asked for that the pipeline does not have, or not with this value.
    """
    given = {} if options is None else options.model_dump(exclude_unset=True, exclude_none=True)
    given.pop("active_speaker", None)  # the speaker is found anyway
    asked = given.pop("active_speaker_detection", None)
    within = asked.get("occlusion_detection_enabled") if isinstance(asked, dict) else None
    if within is not None and given.setdefault("occlusion_detection_enabled", within) != within:
        raise InvalidOption("options.active_speaker_detection and options contradict each other in occlusion_detection_enabled; give one of them.")
    if given.get("model_mode") == "lips":
        del given["model_mode"]  # it is what is done anyway
    for name, ours in OUR_NAMES.items():
        if name in given:
            value = given.pop(name)
            if given.setdefault(ours, value) != value:
                raise InvalidOption(f"options.{ours} and options.{name} contradict each other; give one of them.")
    chosen = chosen_speaker(None if options is None else options.active_speaker_detection)
    if doubly := sorted(given.keys() & {"speaker", "speaker_boxes"} if chosen else ()):
        raise InvalidOption(f"options.{doubly[0]} and options.active_speaker_detection both say who speaks; give one of them.")
    for name, value in given.items():
        if name not in RenderOptions.model_fields:
            raise InvalidOption(f"options.{name} is not supported here with this value; leave it out.")
        chosen[name] = value
    return checked(chosen)


def checked(chosen: Mapping[str, Any]) -> RenderOptions:
    """Return options of our names.

    Raises:
        InvalidOption: one has a value that it cannot have, or does not go with another one.
    """
    try:
        result = RenderOptions(**chosen)
    except ValidationError as exc:
        raise InvalidOption(validation_sentence(exc)) from exc
    result.check()
    return result


def chosen_speaker(asked: ActiveSpeaker | bool | None) -> dict[str, Any]:
    """Return what sync.so's way of choosing a speaker is called here; nothing where it asks for what is done anyway.

    Raises:
        InvalidOption: it says several things at once, or not enough.
    """
    if not isinstance(asked, ActiveSpeaker):
        return {}
    ways = [asked.auto_detect or None, asked.coordinates, asked.bounding_boxes]
    if sum(way is not None for way in ways) > 1:
        raise InvalidOption("options.active_speaker_detection takes one of auto_detect, coordinates and bounding_boxes.")
    if asked.coordinates is not None:
        x, y = (f"{value:.2f}" for value in asked.coordinates)
        return {"speaker": f"{x},{y},{asked.frame_number or 0}"}
    if asked.frame_number is not None:
        raise InvalidOption("options.active_speaker_detection.frame_number needs coordinates, [x, y] on the speaker's face in that frame.")
    return {} if asked.bounding_boxes is None else {"speaker_boxes": asked.bounding_boxes}
