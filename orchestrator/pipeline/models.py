"""Which models take part in a render."""

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

from orchestrator.errors import InvalidOption
from orchestrator.inference.client import TritonClient
from orchestrator.inference.contract import (
    FACE_EMBEDDER,
    FACE_ENHANCER,
    FACE_LANDMARKS,
    FACE_OCCLUDER,
    VOICE_ACTIVITY,
    VOICE_SEPARATOR,
    ModelDescription,
)
from orchestrator.inference.crops import CropModel
from orchestrator.inference.detector import FaceDetector
from orchestrator.inference.embedder import FaceEmbedder
from orchestrator.inference.lip_model import LipModel
from orchestrator.inference.separator import VoiceSeparator
from orchestrator.inference.voice import VoiceActivity
from orchestrator.pipeline.options import RenderOptions

DEFAULT_ROLES = frozenset({FACE_LANDMARKS, FACE_OCCLUDER, VOICE_ACTIVITY, VOICE_SEPARATOR})
"""Optional roles that take part, where there is a model, when the options leave it open."""


PACKS_WITHOUT_FILE = MappingProxyType({FACE_LANDMARKS: "facemesh468", FACE_EMBEDDER: "dlib-resnet", VOICE_ACTIVITY: "silero"})
"""For optional roles, the pack that `lipsync models install` fetches by its name alone, where there is one."""


@dataclass(frozen=True, slots=True)
class Models:
    """What Triton does for a render."""

    detector: FaceDetector
    lip_model: LipModel
    enhancer: CropModel | None
    voice_activity: VoiceActivity | None
    voice_separator: VoiceSeparator | None
    occluder: CropModel | None
    embedder: FaceEmbedder | None

    @property
    def descriptions(self) -> tuple[ModelDescription, ...]:
        """Every model that takes part."""
        parts = (self.lip_model.encoder, self.enhancer, self.voice_activity, self.voice_separator, self.occluder, self.embedder)
        optional = [part.description for part in parts if part is not None]
        return (*self.detector.descriptions, self.lip_model.description, *optional)


def open_models(client: TritonClient, options: RenderOptions, by_default: frozenset[str], *, knows_speaker: bool | None) -> Models:
    """Return what takes part in a render.

    Args:
        client: a Triton that serves every role that is not optional.
        options: of the render.
        by_default: optional roles that take part, where there is a model, when the options leave it open.
        knows_speaker: whether speakers are known by their faces: they have to be, as of a picture, need not, or (None) are where there is a model.

    Raises:
        InvalidOption: a role that was asked for has no model.
    """
    check_roles(client.is_model_ready, options, knows_speaker=knows_speaker is True)
    asked = options.optional_roles.items()
    used = {role for role, is_asked_for in asked if is_asked_for or (is_asked_for is None and role in by_default and client.is_model_ready(role))}
    return Models(
        FaceDetector(client, refine=FACE_LANDMARKS in used),
        LipModel(client),
        CropModel(client, FACE_ENHANCER) if FACE_ENHANCER in used else None,
        VoiceActivity(client) if VOICE_ACTIVITY in used else None,
        VoiceSeparator(client) if VOICE_SEPARATOR in used else None,
        CropModel(client, FACE_OCCLUDER) if FACE_OCCLUDER in used else None,
        FaceEmbedder(client) if knows_speaker or (knows_speaker is None and client.is_model_ready(FACE_EMBEDDER)) else None,
    )


def check_roles(has_model: Callable[[str], bool], options: RenderOptions, *, knows_speaker: bool) -> None:
    """Check that there is a model for every optional role that a render asks for.

    Args:
        has_model: whether a role has a model.
        options: of the render.
        knows_speaker: whether the speaker is to be known by his picture.

    Raises:
        InvalidOption: a role has none.
    """
    asked = {role: role for role, is_asked_for in options.optional_roles.items() if is_asked_for}
    for role, option in (asked | {FACE_EMBEDDER: "speaker_image"} if knows_speaker else asked).items():
        if not has_model(role):
            install = f"lipsync models install {PACKS_WITHOUT_FILE.get(role, '')}".strip()
            raise InvalidOption(f"There is no {role} model here, which {option} needs; leave it out, or install one with `{install}`.")
