"""Which models take part in a render."""

from dataclasses import dataclass

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
from orchestrator.inference.embedder import FaceEmbedder
from orchestrator.inference.enhancer import FaceEnhancer
from orchestrator.inference.faces import FaceDetector, LipModel
from orchestrator.inference.occluder import FaceOccluder
from orchestrator.inference.separator import VoiceSeparator
from orchestrator.inference.voice import VoiceActivity
from orchestrator.pipeline.options import RenderOptions

DEFAULT_ROLES = frozenset({FACE_LANDMARKS, FACE_OCCLUDER, VOICE_ACTIVITY, VOICE_SEPARATOR})
"""Optional roles that take part, where there is a model, when the options leave it open."""


@dataclass(frozen=True, slots=True)
class Models:
    """What Triton does for a render."""

    detector: FaceDetector
    lip_model: LipModel
    enhancer: FaceEnhancer | None
    voice_activity: VoiceActivity | None
    voice_separator: VoiceSeparator | None
    occluder: FaceOccluder | None
    embedder: FaceEmbedder | None

    @property
    def descriptions(self) -> tuple[ModelDescription, ...]:
        """Every model that takes part."""
        parts = (self.lip_model.encoder, self.enhancer, self.voice_activity, self.voice_separator, self.occluder, self.embedder)
        optional = [part.description for part in parts if part is not None]
        return (*self.detector.descriptions, self.lip_model.description, *optional)


def open_models(client: TritonClient, options: RenderOptions, by_default: frozenset[str], *, knows_speaker: bool = False) -> Models:
    """Return what takes part in a render.

    Args:
        client: a Triton that serves every role that is not optional.
        options: of the render.
        by_default: optional roles that take part, where there is a model, when the options leave it open.
        knows_speaker: whether the speaker is to be known by his picture.

    Raises:
        InvalidOption: a role that was asked for has no model.
    """
    used = _roles_used(client, options, by_default)
    return Models(
        FaceDetector(client, refine=FACE_LANDMARKS in used),
        LipModel(client),
        FaceEnhancer(client) if FACE_ENHANCER in used else None,
        VoiceActivity(client) if VOICE_ACTIVITY in used else None,
        VoiceSeparator(client) if VOICE_SEPARATOR in used else None,
        FaceOccluder(client) if FACE_OCCLUDER in used else None,
        _embedder(client) if knows_speaker else None,
    )


def _roles_used(client: TritonClient, options: RenderOptions, by_default: frozenset[str]) -> set[str]:
    """Return the optional roles that take part.

    Raises:
        InvalidOption: one that was asked for has no model.
    """
    used = set()
    for role, is_asked_for in options.optional_roles.items():
        if is_asked_for is False or (is_asked_for is None and role not in by_default):
            continue
        if client.is_model_ready(role):
            used.add(role)
        elif is_asked_for:
            raise InvalidOption(f"There is no {role} model on {client.address}; install one with `lipsync models install`, or do without.")
    return used


def _embedder(client: TritonClient) -> FaceEmbedder:
    """Raises InvalidOption where there is no model."""
    if not client.is_model_ready(FACE_EMBEDDER):
        raise InvalidOption(
            f"There is no {FACE_EMBEDDER} model on {client.address} to know a speaker by his picture; install one with "
            "`lipsync models install arcface --from FILE`, or choose him by a point."
        )
    return FaceEmbedder(client)
