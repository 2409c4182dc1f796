"""Installed packs on the real Triton: whole renders with full-size lip networks, and published detectors and landmarks on real people.

The published files and people lie beside the checkout in `../shared`; they are not part of it.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from deploy.local.server import LocalTriton
from orchestrator.errors import ContractMismatch, InvalidOption, UnsuitableModel
from orchestrator.inference.audio import AudioEncoder
from orchestrator.inference.client import TritonClient
from orchestrator.inference.detector import FaceDetector
from orchestrator.inference.landmarks import LandmarkModel
from orchestrator.inference.lip_model import LipModel
from orchestrator.inference.selftest import self_test
from orchestrator.media.audio import read_speech
from orchestrator.models.install import install_pack, use_installed
from orchestrator.models.network import read_network
from orchestrator.models.options import PackOptions
from orchestrator.models.packs import PACKS, find_pack
from orchestrator.models.repository import find_version, read_versions, remove_role, use_version
from orchestrator.models.wrapping import wrap
from orchestrator.pipeline.options import RenderOptions
from orchestrator.pipeline.plan import plan_render
from orchestrator.pipeline.render import render
from orchestrator.pipeline.speech import check_temperature, speech_windows
from orchestrator.settings import Settings
from preprocess.landmarks import five_points
from preprocess.letterbox import Letterbox
from preprocess.orientation import UPRIGHT
from preprocess.speech_features import kaldi_fbank
from tests.clips import SPEECH_RATE_HZ, frames_of, speech_like, write_speech, write_wav
from tests.networks import FACEFUSION_NAMES, WAV2LIP_NAMES, save_dinet, save_musetalk, save_wav2lip

SHARED = Path(__file__).resolve().parents[3] / "shared"
MODELS, MEDIA = SHARED / "models", SHARED / "media"
HOME = Settings().triton_home

needs_shared = pytest.mark.skipif(not (MODELS / "SOURCES.md").exists(), reason="there is no ../shared with published models and media")

FILES = {
    "yunet": "yunet_n_dynamic.onnx",
    "ultraface": "version-RFB-320.onnx",
    "pfld98": "PFLD_GhostOne_112_1_opt_sim.onnx",
    "facemesh468": "face_landmark_b.onnx",
    "silero": "silero_vad_v6.onnx",
}
PRESENTERS = ("presenter_man_idle.mp4", "presenter_man_talking.mp4", "presenter_woman_idle.mp4")


def install(repository: Path, name: str, source: Path | None = None) -> None:
    install_pack(find_pack(name), repository, HOME, None if source is None else str(source))


@contextmanager
def serving(repository: Path) -> Iterator[TritonClient]:
    with LocalTriton.start(HOME, repository, drain_s=0.2) as server, TritonClient(server.grpc_address) as client:
        yield client


@pytest.fixture(scope="module")
def centerface(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a detector alone, to be copied."""
    repository = tmp_path_factory.mktemp("centerface") / "models"
    install(repository, "centerface")
    return repository


def letterboxed(video: str, size_px: int, count: int = 4) -> tuple[NDArray[np.uint8], Letterbox]:
    """Return (count, S, S, 3) RGB pictures spread over a presenter's video, and how they sit in their squares."""
    frames = [frame.to_ndarray(format="rgb24") for frame in frames_of(MEDIA / video)]
    box = Letterbox.fit((frames[0].shape[1], frames[0].shape[0]), UPRIGHT, size_px)
    chosen = [frames[index] for index in np.linspace(0, len(frames) - 1, count).astype(int)]
    return np.stack([box.place(np.asarray(cv2.resize(frame, box.scaled_wh, interpolation=cv2.INTER_AREA), np.uint8)) for frame in chosen]), box


@pytest.mark.parametrize(
    ("size_px", "names", "fixed_batch", "width"),
    [(96, WAV2LIP_NAMES, True, 1.0), (256, FACEFUSION_NAMES, False, 0.2)],
    ids=["96 px, batch fixed at 1, full size", "256 px"],
)
def test_wav2lip_renders(
    size_px: int, names: tuple[str, str, str], fixed_batch: bool, width: float, centerface: Path, clip: Path, tmp_path: Path
) -> None:
    """36 M parameters at 96 px, random weights: the mouth is noise, everything else has to be right."""
    repository = shutil.copytree(centerface, tmp_path / "models")
    install(repository, "wav2lip", save_wav2lip(tmp_path / "wav2lip.onnx", size_px, names, fixed_batch, width))
    with serving(repository) as client:
        self_test(client)
        lip_model = LipModel(client)
        assert (lip_model.size_px, lip_model.stretch) == (size_px, 1.42)
        speech = write_speech(tmp_path / "speech.wav", 0.4)
        report = render(plan_render(clip, speech, tmp_path / "out.mp4", RenderOptions(lossless=True, preset="ultrafast")), client)
    assert report.models["lip_sync"].inference_count == report.frame_count == 10
    assert report.models["lip_sync"].mean_batch > 2
    with av.open(str(tmp_path / "out.mp4")) as out, av.open(str(clip)) as source:
        rendered = next(out.decode(video=0)).to_ndarray()[:640]
        original = next(source.decode(video=0)).to_ndarray()[:640]
    changed = rendered != original
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    # By eye, in the clip's first frame: cheek to cheek x 243..392, from under the eyes at y 200 to the chin at y 325. That changes, nothing else.
    assert rows.min() > 185 and rows.max() < 335
    assert columns.min() > 225 and columns.max() < 410
    assert changed[rows.min() : rows.max(), columns.min() : columns.max()].mean() > 0.6


def served_chain(folder: Path, face: NDArray[np.uint8], audio: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return what MuseTalk's own inference makes of a crop and its audio, with the networks in a folder."""
    run = {name: onnxruntime.InferenceSession(folder / f"{name}.onnx").run for name in ("vae_encoder", "unet", "vae_decoder")}
    whole = face.astype(np.float32).transpose(2, 0, 1)[None] / 255
    blanked = whole * (np.arange(256) < 128)[:, None]
    latents = [run["vae_encoder"](None, {"pixels": ((x - 0.5) / 0.5).astype(np.float32)})[0][:, :4] * 0.18215 for x in (blanked, whole)]
    position = np.arange(50)[:, None] / 10000 ** (np.arange(0, 384, 2) / 384)
    code = np.stack([np.sin(position), np.cos(position)], axis=2).reshape(50, 384)
    latent = np.concatenate(latents, axis=1).astype(np.float32)
    feeds = {"latent": latent, "audio": (audio + code).astype(np.float32)[None], "timestep": np.zeros(1, np.int64)}
    mouth = run["vae_decoder"](None, {"latent": (run["unet"](None, feeds)[0] / 0.18215).astype(np.float32)})[0]
    return np.asarray(np.rint((mouth[0] / 2 + 0.5).clip(0, 1) * 255).astype(np.uint8).transpose(1, 2, 0))


def test_musetalk_renders_as_an_ensemble_with_whisper_features(centerface: Path, clip: Path, speech: Path, tmp_path: Path) -> None:
    """Four stand-in networks of the published shapes: the ensemble answers what the chain of the untouched files does."""
    folder = save_musetalk(tmp_path)
    repository = shutil.copytree(centerface, tmp_path / "models")
    install(repository, "musetalk", folder)
    with serving(repository) as client:
        self_test(client)
        lip_model = LipModel(client)
        assert lip_model.encoder is not None
        assert (lip_model.audio_dims, lip_model.encoder.feature_size) == ((50, 384), 1920)
        assert lip_model.encoder.features_per_s == 50
        with speech_windows(read_speech(speech), lip_model) as windows:
            heard = [windows(Fraction(index, 5)) for index in range(3)]
        random = np.random.default_rng(3)
        faces = [random.integers(0, 256, (256, 256, 3), np.uint8) for _ in range(3)]
        assert heard[0].shape == (10, 1920) and not heard[0][:4].any() and heard[0][4:].any(), "nothing before the track begins"
        for face, window, mouth in zip(faces, heard, lip_model.generate(faces, heard).result(60), strict=True):
            expected = served_chain(folder, face, window.reshape(50, 384))
            assert np.abs(mouth.astype(int) - expected).max() <= 1
        report = render(plan_render(clip, speech, tmp_path / "out.mp4", RenderOptions(preset="ultrafast")), client)
    assert report.models["lip_sync"].inference_count == report.frame_count == 62


def test_dinet_renders_with_wenet_features(centerface: Path, clip: Path, speech: Path, tmp_path: Path) -> None:
    folder = save_dinet(tmp_path)
    repository = shutil.copytree(centerface, tmp_path / "models")
    install(repository, "dinet", folder)
    with serving(repository) as client:
        self_test(client)
        lip_model = LipModel(client)
        assert lip_model.encoder is not None and lip_model.audio_layout == "channels"
        silence = write_wav(tmp_path / "silence.wav", np.zeros(40_000, np.float32), SPEECH_RATE_HZ)
        with (
            speech_windows(read_speech(speech), lip_model) as windows,
            speech_windows(read_speech(silence), lip_model) as silent,
            speech_windows(read_speech(speech), lip_model, spans=[]) as muted,
        ):
            assert windows(Fraction(1)).shape == (20, 256)
            assert np.array_equal(muted(Fraction(1)), silent(Fraction(1))), "where nobody speaks the encoder hears silence"
        with pytest.raises(InvalidOption, match="leave temperature out"):
            check_temperature(lip_model, 0.7)
        report = render(plan_render(clip, speech, tmp_path / "out.mp4", RenderOptions(preset="ultrafast")), client)
    assert report.models["lip_sync"].inference_count == report.frame_count == 62


def test_long_track_is_encoded_in_overlapping_segments_as_in_one(tmp_path: Path) -> None:
    """10 s of speech in segments of 3.2 s: every feature that has its context is that of the whole track's filter banks."""
    folder = save_dinet(tmp_path)
    install(tmp_path / "models", "dinet", folder)
    waveform = speech_like(10.0)
    with serving(tmp_path / "models") as client:
        features = AudioEncoder(client).encode(waveform)
    assert features.shape == (250, 256)
    session = onnxruntime.InferenceSession(folder / "wenet.onnx")
    banks = kaldi_fbank(waveform)
    for first in (0, 79, 160):
        alone = session.run(["encoder_out"], {"speech": banks[None, first * 4 : first * 4 + 321], "speech_lengths": np.full(1, 321, np.int32)})[0][0]
        np.testing.assert_allclose(features[first : first + 79], alone, atol=1e-4)


def test_pack_of_several_models_is_chosen_again_with_all_of_them(tmp_path: Path) -> None:
    repository = tmp_path / "models"
    for name, save in (("musetalk", save_musetalk), ("dinet", save_dinet)):
        (tmp_path / name).mkdir()
        install(repository, name, save(tmp_path / name))
    assert [str(version) for version in read_versions(repository, "audio_encoder")] == ["musetalk/1", "dinet/2"]
    use_version(repository, "lip_sync", find_version(repository, "musetalk").number)
    with serving(repository) as client, pytest.raises(ContractMismatch, match=r"whisper_log_mel.*found.*wenet_fbank"):
        LipModel(client)
    served = use_installed(repository, find_version(repository, "musetalk"))
    assert {version.role for version in served} >= {"audio_encoder", "lip_sync", "musetalk_unet"}
    with serving(repository) as client:
        assert LipModel(client).encoder is not None
    for role in ("musetalk_unet", "audio_encoder"):
        remove_role(repository, role)
        assert not (repository / role).exists()
    with pytest.raises(InvalidOption, match="No render can do without"):
        remove_role(repository, "lip_sync")


def test_lip_model_without_its_encoder_is_refused(tmp_path: Path) -> None:
    install(tmp_path / "models", "dinet", save_dinet(tmp_path))
    remove_role(tmp_path / "models", "audio_encoder")
    with serving(tmp_path / "models") as client, pytest.raises(ContractMismatch, match="there is none"):
        LipModel(client)


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with every published detector and landmark model; YuNet and the face mesh are served."""
    repository = tmp_path_factory.mktemp("published") / "models"
    for name in ("ultraface", "pfld98", "facemesh468", "yunet"):
        install(repository, name, MODELS / FILES[name])
    return repository


def serve_instead(everything: Path, repository: Path, *packs: str) -> Path:
    """Copy the repository with everything into `repository`, where these packs are served."""
    shutil.copytree(everything, repository)
    for name in packs:
        use_installed(repository, find_version(repository, name))
    return repository


@needs_shared
@pytest.mark.parametrize("file", FILES.values())
def test_published_file_fits_its_own_pack_and_no_other(file: str) -> None:
    network = read_network(MODELS / file)
    for name, pack in PACKS.items():
        if pack.fit is None:
            continue
        if FILES.get(name) == file:
            assert network.sha256 in pack.known_files
            obstacle = wrap(pack.fit(network, PackOptions())).obstacle
            assert obstacle == ("it has no batch axis" if name == "silero" else None), "items run together, where the network knows items"
        else:
            with pytest.raises(UnsuitableModel, match="does not fit"):
                pack.fit(network, PackOptions())


@needs_shared
@pytest.mark.parametrize("landmarks", ["pfld98", "facemesh468"])
def test_detector_without_landmarks_gets_its_points_from_the_landmark_role(landmarks: str, everything: Path, tmp_path: Path) -> None:
    """UltraFace and either landmark network find the five points that YuNet finds by itself."""
    repository = serve_instead(everything, tmp_path / "models", "ultraface", landmarks)
    with serving(repository) as client, serving(everything) as yunet_client:
        detector, yunet = FaceDetector(client), FaceDetector(yunet_client)
        assert [description.role for description in detector.descriptions] == ["face_detector", "face_landmarks"]
        for video in PRESENTERS:
            pictures, box = letterboxed(video, detector.size_px)
            small, small_box = letterboxed(video, yunet.size_px)
            for found, reference in zip(detector.detect(pictures).result(60), yunet.detect(small).result(60), strict=True):
                assert (found[:, 4] > 0).sum() == (reference[:, 4] > 0).sum() == 1, "one person"
                five = box.points_to_frame(found[0, 5:15].reshape(5, 2))
                expected = small_box.points_to_frame(reference[0, 5:15].reshape(5, 2))
                eyes = float(np.linalg.norm(expected[1] - expected[0]))
                assert np.linalg.norm(five - expected, axis=1).max() < 0.2 * eyes


@needs_shared
def test_detector_without_landmarks_alone_is_refused_with_what_to_do(everything: Path, tmp_path: Path) -> None:
    repository = serve_instead(everything, tmp_path / "models", "ultraface")
    remove_role(repository, "face_landmarks")
    with serving(repository) as client, pytest.raises(ContractMismatch, match="install one"):
        FaceDetector(client)


@needs_shared
def test_published_landmarks_agree_on_real_people(everything: Path, tmp_path: Path) -> None:
    """PFLD and the face mesh put eyes, nose and mouth where YuNet does."""
    pfld = serve_instead(everything, tmp_path / "models", "pfld98")
    with serving(everything) as client, serving(pfld) as pfld_client:
        detector, models = FaceDetector(client), (LandmarkModel(client), LandmarkModel(pfld_client))
        assert [model.scheme for model in models] == ["468", "98"]
        for video in PRESENTERS:
            pictures, _ = letterboxed(video, detector.size_px, count=2)
            for picture, faces in zip(pictures, detector.detect(pictures).result(60), strict=True):
                expected = faces[0, 5:15].reshape(5, 2)
                eyes = float(np.linalg.norm(expected[1] - expected[0]))
                for model in models:
                    crop, to_crop = model.crop(picture, faces[0, :4])
                    points = five_points(model.find([crop]).result(60), model.scheme)[0] * model.size_px - 0.5
                    in_crop = expected @ to_crop[:, :2].T + to_crop[:, 2]
                    assert np.linalg.norm(points - in_crop, axis=1).max() < 0.2 * eyes * to_crop[0, 0]


@needs_shared
@pytest.mark.parametrize("detector", ["yunet", "ultraface"])
def test_presenter_renders_with_other_detectors(detector: str, everything: Path, tmp_path: Path) -> None:
    repository = serve_instead(everything, tmp_path / "models", "pfld98", detector)
    install(repository, "mouth-warp")
    with serving(repository) as client:
        speech = write_speech(tmp_path / "speech.wav", 1.5)
        report = render(plan_render(MEDIA / PRESENTERS[0], speech, tmp_path / "out.mp4", RenderOptions(face_landmarks=False)), client)
    assert report.face_frame_count == report.source_frame_count
    assert report.models["face_detector"].inference_count > 0
    assert ("face_landmarks" in report.models) == (detector == "ultraface"), "a detector without points cannot do without"
