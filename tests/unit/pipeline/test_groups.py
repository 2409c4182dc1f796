"""How many frames travel together."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from orchestrator.inference.lip_model import LipModel
from orchestrator.pipeline.frames import CPU_FRAMES_BYTES, GROUPS_UNDER_WAY, frames_in_group


@pytest.mark.parametrize(
    ("kind", "frame_bytes", "batch_size", "expected"),
    [
        ("KIND_CPU", 640 * 360 * 3 // 2, 8, 8),
        ("KIND_CPU", 1920 * 1080 * 3 // 2, 8, CPU_FRAMES_BYTES // GROUPS_UNDER_WAY // (1920 * 1080 * 3 // 2)),
        ("KIND_CPU", 7680 * 4320 * 3, 8, 1),
        ("KIND_GPU", 1920 * 1080 * 3 // 2, 16, 16),
    ],
)
def test_frames_under_way_are_bounded_in_bytes_and_never_none(kind: str, frame_bytes: int, batch_size: int, expected: int) -> None:
    model: Any = SimpleNamespace(batch_size=batch_size, description=SimpleNamespace(instance_kinds=(kind,)))
    group = frames_in_group(frame_bytes, cast(LipModel, model))
    assert group == expected
    assert group == 1 or kind == "KIND_GPU" or group * GROUPS_UNDER_WAY * frame_bytes <= CPU_FRAMES_BYTES
