"""What a render can be asked for: one model for the command line, the three HTTP interfaces, jobs and Python."""

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.inference.contract import FACE_ENHANCER, FACE_LANDMARKS
from orchestrator.media.writer import Encoding
from orchestrator.pipeline.timeline import SyncMode

_DEFAULTS = Encoding()


class RenderOptions(BaseModel):
    """Everything the pipeline can do for one render. An unknown field is refused.

    A field here is an option of `lipsync render`, of `POST /render`, of `/v2` and of jobs; its description is its help. All of them are in the
    fingerprint of finished segments.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    crf: int = Field(_DEFAULTS.crf, ge=0, le=51, description="Quality of H.264, 0 (best) to 51.")
    preset: str = Field(_DEFAULTS.preset, max_length=32, description="libx264 preset, ultrafast to veryslow.")
    lossless: bool = Field(_DEFAULTS.lossless, description="Keep every decoded sample exactly.")
    sync_mode: SyncMode = Field("bounce", description="What happens where the speech and the video differ in length.")

    face_landmarks: bool | None = Field(
        None, description="Whether landmarks place the crop and bound what is pasted; true needs a face_landmarks model. Unset: as the settings say."
    )
    face_enhancer: bool | None = Field(
        None, description="Whether rendered faces are enhanced; true needs a face_enhancer model. Unset: as the settings say."
    )

    def encoding(self) -> Encoding:
        """Return how the video is compressed.

        Raises:
            InvalidOption: the preset does not exist.
        """
        return Encoding(crf=self.crf, preset=self.preset, lossless=self.lossless)

    @property
    def optional_roles(self) -> dict[str, bool | None]:
        """What is asked of each optional role: it has to take part, must not, or (None) does as the settings say."""
        return {FACE_LANDMARKS: self.face_landmarks, FACE_ENHANCER: self.face_enhancer}

    def check(self) -> None:
        """Check what no single field shows.

        Raises:
            InvalidOption: a value does not exist, or does not go with another one.
        """
        self.encoding()
