"""What takes part in a render, and what is said where a model is missing."""

import pytest

from orchestrator.errors import InvalidOption
from orchestrator.inference.contract import CONTRACTS
from orchestrator.models.packs import PACKS
from orchestrator.pipeline.models import PACKS_WITHOUT_FILE, check_roles
from orchestrator.pipeline.options import RenderOptions


def test_picture_of_the_speaker_without_a_model_is_told_the_command_that_installs_one() -> None:
    with pytest.raises(InvalidOption, match="which speaker_image needs; leave it out, or install one with `lipsync models install dlib-resnet`"):
        check_roles(lambda role: False, RenderOptions(), knows_speaker=True)


def test_commands_that_are_told_need_no_file() -> None:
    without_file = {pack.role: pack.name for pack in PACKS.values() if not pack.needs_file and pack.role not in CONTRACTS}
    assert dict(PACKS_WITHOUT_FILE) == without_file
