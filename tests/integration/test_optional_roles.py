"""Landmarks and enhancer in whole renders on the real Triton: used when they are there and asked for, and only then."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from deploy.local.server import LocalTriton
from orchestrator.errors import InvalidOption, NoFaceFound
from orchestrator.inference.client import TritonClient
from orchestrator.inference.contract import VOICE_ACTIVITY
from orchestrator.inference.faces import FaceDetector
from orchestrator.jobs.model import JobSpec
from orchestrator.media.probe import probe_video
from orchestrator.models.install import install_pack
from orchestrator.models.packs import find_pack
from orchestrator.pipeline.analyse import Extent, analyse
from orchestrator.pipeline.options import RenderOptions
from orchestrator.pipeline.plan import plan_render
from orchestrator.pipeline.render import render
from orchestrator.pipeline.tracks import TrackCache
from orchestrator.settings import Settings
from tests.clips import SPEECH_RATE_HZ, speech_like, write_wav
from tests.jobs import is_over, wait_for, working
from tests.jobs import options as job_settings
from tests.networks import save_embedder, save_enhancer

HOME = Settings().triton_home
LOSSLESS = RenderOptions(lossless=True, preset="ultrafast")
PLAIN = LOSSLESS.model_copy(update={"face_landmarks": False})


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonClient]:
    """A Triton with every role. The enhancer has random weights: what it draws is noise, where it draws has to be right."""
    folder = tmp_path_factory.mktemp("full")
    repository = folder / "models"
    for name in ("centerface", "mouth-warp", "facemesh468"):
        install_pack(find_pack(name), repository, HOME, None)
    install_pack(find_pack("gfpgan"), repository, HOME, str(save_enhancer(folder / "enhancer.onnx")))
    install_pack(find_pack("arcface"), repository, HOME, str(save_embedder(folder / "embedder.onnx", 512)))
    with LocalTriton.start(HOME, repository, config_name="cpu") as server, TritonClient(server.grpc_address) as client:
        yield client


@pytest.fixture(scope="module")
def short_speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_wav(tmp_path_factory.mktemp("speech") / "speech.wav", speech_like(0.4), SPEECH_RATE_HZ)


def luma(path: Path) -> NDArray[np.uint8]:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray()[:640] for frame in container.decode(video=0)])


def test_landmarks_find_the_face_where_the_detector_does_and_tell_its_outline(full: TritonClient, clip: Path) -> None:
    info = probe_video(clip)
    plain, refined = (analyse(info, FaceDetector(full, refine=refine), Extent(None, 25)).tracks[0] for refine in (False, True))
    assert plain.outline.shape == (25, 0, 2) and refined.outline.shape == (25, 20, 2)
    eye_distance = np.linalg.norm(plain.landmarks5[:, 1] - plain.landmarks5[:, 0], axis=1)
    assert (np.linalg.norm(refined.landmarks5 - plain.landmarks5, axis=2).max(1) < 0.25 * eye_distance).all()
    assert not np.array_equal(refined.landmarks5, plain.landmarks5)
    # The mouth lies inside the lower face, the eyes do not; the jaw is below the mouth.
    mouth = refined.landmarks5[:, 3:].mean(1)
    assert (refined.outline[..., 1].max(1) > mouth[:, 1] + 0.3 * eye_distance).all()
    assert (refined.outline[..., 0].min(1) < refined.landmarks5[:, 3, 0]).all() and (
        refined.outline[..., 0].max(1) > refined.landmarks5[:, 4, 0]
    ).all()
    assert (refined.outline[..., 1].min(1) > refined.landmarks5[:, :2, 1].mean(1)).all()


def test_landmarks_are_used_where_they_are_and_left_out_where_told_so(full: TritonClient, clip: Path, short_speech: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    with_landmarks = render(plan_render(clip, short_speech, out, LOSSLESS), full)
    assert with_landmarks.models["face_landmarks"].inference_count >= 10
    first = luma(out)
    without = render(plan_render(clip, short_speech, out, PLAIN), full)
    assert "face_landmarks" not in without.models
    assert not np.array_equal(first, luma(tmp_path / "out.mp4"))


def test_cached_tracks_of_other_landmarks_are_not_taken(full: TritonClient, clip: Path, short_speech: Path, tmp_path: Path) -> None:
    out, tracks = tmp_path / "out.mp4", TrackCache(tmp_path / "tracks", 1 << 20)
    for options, roles in ((PLAIN, 1), (LOSSLESS, 2)):
        report = render(plan_render(clip, short_speech, out, options), full, tracks=tracks)
        assert sum(report.models[role].inference_count > 0 for role in report.models if role.startswith("face_")) == roles
    again = render(plan_render(clip, short_speech, out, LOSSLESS), full, tracks=tracks)
    assert all(again.models[role].inference_count == 0 for role in ("face_detector", "face_landmarks"))


def test_enhancer_goes_over_the_pasted_region_and_nothing_else(full: TritonClient, clip: Path, short_speech: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    render(plan_render(clip, short_speech, out, PLAIN), full)
    before = luma(out).astype(int)
    report = render(plan_render(clip, short_speech, out, PLAIN.model_copy(update={"face_enhancer": True})), full)
    assert report.models["face_enhancer"].inference_count == report.frame_count == 10
    assert report.passed_through == (), "also a mouth at rest is enhanced: sharpness must not come and go"
    changed = abs(luma(tmp_path / "out.mp4") - before)
    rows, columns = np.flatnonzero((changed > 0).any((0, 2))), np.flatnonzero((changed > 0).any((0, 1)))
    # The lip model's paste region in the clip: cheeks to cheeks, nose to below the chin.
    assert rows.min() > 187 and rows.max() < 469 and columns.min() > 195 and columns.max() < 440
    assert changed[:, 250:400, 260:380].mean() > 5


def test_asking_for_a_role_that_no_model_fills_is_refused(client: TritonClient, clip: Path, short_speech: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    for role in LOSSLESS.optional_roles.keys() - {VOICE_ACTIVITY}:  # which `make setup` fills
        with pytest.raises(InvalidOption, match=f"There is no {role}"):
            render(plan_render(clip, short_speech, out, LOSSLESS.model_copy(update={role: True})), client)
    assert not out.exists()
    assert set(render(plan_render(clip, short_speech, out, LOSSLESS), client).models) == {"face_detector", "lip_sync", "voice_activity"}


def test_speaker_is_known_by_his_picture(full: TritonClient, pair: Path, short_speech: Path, tmp_path: Path) -> None:
    """The network is a stand-in that keeps what a picture looks like: the mirrored person on the right is another one to it."""
    with av.open(str(pair)) as container:
        both = next(container.decode(video=0)).to_ndarray(format="rgb24")
    for side, kept in (("left", both[:, :256]), ("right", both[:, 256:])):
        Image.fromarray(np.ascontiguousarray(kept)).save(tmp_path / f"{side}.png")
    Image.fromarray(both).save(tmp_path / "both.png")
    Image.fromarray(np.full_like(both, 90)).save(tmp_path / "nobody.png")
    changed = {}
    for side in ("left", "right"):
        plan = plan_render(pair, short_speech, tmp_path / f"{side}.mp4", PLAIN, speaker_image=tmp_path / f"{side}.png")
        report = render(plan, full)
        assert report.models["face_embedder"].inference_count > 1
        with av.open(str(pair)) as source, av.open(str(tmp_path / f"{side}.mp4")) as out:
            pairs = zip(source.decode(video=0), out.decode(video=0), strict=False)
            changed[side] = np.any([one.to_ndarray()[:256] != other.to_ndarray()[:256] for one, other in pairs], axis=0)
    spec = JobSpec(video=str(pair), audio=str(short_speech), speaker_image=str(tmp_path / "right.png"), options=PLAIN)
    with working(job_settings(tmp_path / "data"), full) as service:
        job = wait_for(service, service.submit(spec).id, is_over)
        assert service.result(job.id).read_bytes() == (tmp_path / "right.mp4").read_bytes()
    assert changed["left"][:, :256].any() and not changed["left"][:, 256:].any()
    assert changed["right"][:, 256:].any() and not changed["right"][:, :256].any()
    for name, error, sentence in (("both", InvalidOption, "shows 2 faces"), ("nobody", NoFaceFound, "shows no face")):
        with pytest.raises(error, match=sentence):
            render(plan_render(pair, short_speech, tmp_path / "x.mp4", PLAIN, speaker_image=tmp_path / f"{name}.png"), full)
    with pytest.raises(InvalidOption, match="says who speaks, alone"):
        plan_render(pair, short_speech, tmp_path / "x.mp4", RenderOptions(speaker="all"), speaker_image=tmp_path / "left.png")


def test_picture_of_the_speaker_needs_a_model(client: TritonClient, pair: Path, short_speech: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match="which speaker_image needs"):
        render(plan_render(pair, short_speech, tmp_path / "x.mp4", PLAIN, speaker_image=pair), client)
