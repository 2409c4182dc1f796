"""dlib's file format: a file written as dlib writes it, with random weights, against dlib's layers in plain numpy; and files that are not it."""

import math
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from orchestrator.errors import InputError, UnreadableModel, UnsuitableModel
from orchestrator.models.dlib_network import is_dlib, read_dlib
from orchestrator.models.embedders import DlibResnet
from orchestrator.models.network import read_network
from orchestrator.models.options import PackOptions
from orchestrator.models.wrapping import wrap

Array = NDArray[np.float32]

BLOCKS = [32, 32, 32, -64, 64, 64, 64, -128, 128, 128, -256, 256, 256, -256]
"""Channels of the residual blocks from the picture on: `alevel4` to `alevel0` of dnn_face_recognition_ex.cpp; below 0 where it is `ares_down`."""

MEAN = (122.782, 117.001, 104.298)


def whole(value: int) -> bytes:
    """Write a number as dlib's serialize.h does."""
    data = abs(value).to_bytes(max(1, (abs(value).bit_length() + 7) // 8), "little")
    return bytes([len(data) | (0x80 if value < 0 else 0)]) + data


def wholes(*values: int) -> bytes:
    return b"".join(map(whole, values))


def real(value: float) -> bytes:
    mantissa, exponent = math.frexp(value)
    return wholes(round(mantissa * 2**24), exponent - 24)


def text(value: str) -> bytes:
    return whole(len(value)) + value.encode()


def tensor(array: Array) -> bytes:
    return wholes(2, *array.shape, *[1] * (4 - array.ndim)) + array.astype("<f4").tobytes()


END = b"110" + wholes(2, 0, 0, 0, 0) * 3


class Written:
    """Writes the layers from the picture on and computes what they answer, each as dlib defines it."""

    def __init__(self, picture: Array) -> None:
        self.random = np.random.default_rng(3)
        self.x: Array = (picture - np.array(MEAN, np.float32).reshape(3, 1, 1)) / np.float32(256)
        versions = [2, 2]
        for channels in reversed(BLOCKS):
            versions += [2, 2, *([2, 1, 1] if channels < 0 else []), 2, 2, 2, 2, 2, 1]
        self.data = whole(1) + text("loss_metric_2") + real(0.04) + real(0.6) + wholes(*versions, 2, 2, 2, 3)
        self.data += text("input_rgb_image_sized") + b"".join(map(real, MEAN)) + wholes(150, 150)
        self.convolution(32, 7, 2, first=True)
        self.relu()
        self.data += text("max_pool_2") + wholes(3, 3, 2, 2, 0, 0) + END
        self.x = windows(self.x, 3, 2).max((3, 4))
        for channels in BLOCKS:
            self.block(abs(channels), 2 if channels < 0 else 1)
        self.data += text("avg_pool_2") + wholes(0, 0, 1, 1, 0, 0) + END
        weights = np.asarray(self.random.standard_normal((256, 128), np.float32) / 16, np.float32)
        self.data += text("fc_2") + wholes(128, 256) + tensor(weights) + wholes(1, 256, 128, 1, 1, 1, 0, 0, 0, 0, 1) + RATES + END
        self.answer = self.x.mean((1, 2)) @ weights

    def block(self, channels: int, stride: int) -> None:
        before = self.x
        self.convolution(channels, 3, stride)
        self.relu()
        self.convolution(channels, 3, 1)
        if stride == 2:
            self.data += text("avg_pool_2") + wholes(2, 2, 2, 2, 0, 0) + END
            before = windows(before, 2, 2).mean((3, 4))
        self.data += text("add_prev_") + END
        both = [np.zeros(np.maximum(before.shape, self.x.shape), np.float32) for _ in range(2)]
        for room, value in zip(both, (before, self.x), strict=True):
            room[: value.shape[0], : value.shape[1], : value.shape[2]] = value
        self.x = both[0] + both[1]
        self.relu()

    def relu(self) -> None:
        self.data += text("relu_") + END
        self.x = np.maximum(self.x, 0)

    def convolution(self, after: int, side: int, stride: int, first: bool = False) -> None:
        """Append a convolution and its `affine`."""
        before, border = len(self.x), 0 if stride > 1 else side // 2
        weights = self.random.standard_normal((after, before, side, side), np.float32) / np.float32(side * math.sqrt(before))
        bias, shift = self.random.standard_normal((2, after), np.float32) / 10
        scale = self.random.uniform(0.5, 1.0, after).astype(np.float32)
        self.data += text("con_4") + tensor(np.concatenate([weights.ravel(), bias])) + wholes(after, side, side, stride, stride, border, border)
        self.data += wholes(1, after, before, side, side, 1, 1, after, 1, 1) + RATES + END + (whole(1) if first else b"")
        self.data += text("affine_") + tensor(np.concatenate([scale, shift])) + wholes(1, 1, after, 1, 1) * 2 + whole(0) + END
        seen = windows(np.pad(self.x, ((0, 0), (border, border), (border, border))), side, stride)
        y = np.einsum("cyxuv,ocuv->oyx", seen, weights, optimize=True) + bias.reshape(-1, 1, 1)
        self.x = y * scale.reshape(-1, 1, 1) + shift.reshape(-1, 1, 1)


RATES = real(1) * 3 + wholes(0, 11)


def windows(x: Array, side: int, stride: int) -> Array:
    """Return (C, rows, columns, side, side)."""
    return np.lib.stride_tricks.sliding_window_view(x, (side, side), (1, 2))[:, ::stride, ::stride]


@pytest.fixture(scope="module")
def picture() -> Array:
    return np.random.default_rng(2).integers(0, 256, (3, 150, 150)).astype(np.float32)


@pytest.fixture(scope="module")
def written(picture: Array) -> Written:
    return Written(picture)


def test_network_computes_what_dlibs_layers_do(written: Written, picture: Array, tmp_path: Path) -> None:
    (tmp_path / "network.dat").write_bytes(written.data)
    network = read_network(tmp_path / "network.dat")
    assert network.describe() == ["input image FLOAT [N, 3, 150, 150]", "output embedding FLOAT [N, 128]"]
    session = ort.InferenceSession(network.model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"image": np.stack([picture, picture[:, :, ::-1]])})
    np.testing.assert_allclose(found[0], written.answer, rtol=1e-3, atol=1e-4 * float(np.abs(written.answer).max()))
    assert not np.allclose(found[1], found[0])


def test_face_and_its_mirror_image_have_one_direction(written: Written, picture: Array, tmp_path: Path) -> None:
    (tmp_path / "network.dat").write_bytes(written.data)
    wrapping = DlibResnet.fit(read_network(tmp_path / "network.dat"), PackOptions())
    assert wrapping.config.parameters == {"crop_template": "dlib_150", "min_similarity": "0.955"}
    wrapped = wrap(wrapping)
    assert wrapped.obstacle is None
    face = picture.astype(np.uint8).transpose(1, 2, 0)
    faces = np.stack([face, face[:, ::-1], face[::-1]])
    (found,) = ort.InferenceSession(wrapped.model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"face": faces})
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    assert not np.allclose(found[0], found[2], atol=1e-4)


@pytest.mark.parametrize("share", [0.00001, 0.3, 0.9999])
def test_truncated_file_is_unreadable(written: Written, share: float) -> None:
    with pytest.raises(UnreadableModel, match=r"cut\.dat is a damaged or truncated file of dlib's, at byte \d+; download it again"):
        read_dlib("cut.dat", written.data[: max(20, int(share * len(written.data)))])


@pytest.mark.parametrize(
    ("old", "new", "error", "words"),
    [
        (text("add_prev_"), text("mul_prev_"), UnsuitableModel, r"'mul_prev_' in place of 'add_prev_'"),
        (text("relu_"), whole(-3) + b"relu_", UnreadableModel, "damaged"),
        (text("max_pool_2") + wholes(3, 3), text("max_pool_2") + wholes(3, 5), UnsuitableModel, r"\[3, 5, 2, 2, 0, 0\] in place of"),
        (wholes(150, 150), wholes(160, 160), UnsuitableModel, r"\[160, 160\] in place of \[150, 150\]"),
        (END, b"112" + END[3:], UnreadableModel, "damaged"),
        (wholes(2, 4736, 1, 1, 1), wholes(2, 4736, 1, 1, 1) + b"\x00\x00\xc0\x7f", UnreadableModel, "damaged"),
    ],
)
def test_file_with_other_or_broken_layers_is_refused(written: Written, old: bytes, new: bytes, error: type[InputError], words: str) -> None:
    with pytest.raises(error, match=words):
        read_dlib("other.dat", written.data.replace(old, new, 1))


def test_other_files_of_dlibs_and_what_follows_the_last_layer_are_refused(written: Written) -> None:
    with pytest.raises(UnsuitableModel, match="more than the last layer"):
        read_dlib("long.dat", written.data + b"\x01\x01")
    assert not is_dlib(whole(1) + text("loss_mmod"))
