"""Landmarks, enhancer, embedder and voice separator in whole renders on the real Triton: used when there and asked for, and only then."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from deploy.local.server import LocalTriton
from orchestrator.errors import InvalidOption, NoFaceFound, SpeakerNotFound
from orchestrator.inference.client import TritonClient
from orchestrator.inference.contract import VOICE_ACTIVITY, VOICE_SEPARATOR
from orchestrator.inference.detector import FaceDetector
from orchestrator.inference.separator import VoiceSeparator
from orchestrator.inference.usage import model_use
from orchestrator.jobs.model import JobSpec
from orchestrator.media.audio import mel_blocks, read_speech
from orchestrator.media.probe import probe_video
from orchestrator.models.install import install_pack
from orchestrator.models.packs import find_pack
from orchestrator.pipeline.analyse import Extent, analyse
from orchestrator.pipeline.options import RenderOptions
from orchestrator.pipeline.plan import plan_render
from orchestrator.pipeline.render import render
from orchestrator.pipeline.report import RenderReport
from orchestrator.pipeline.speech import heard_speech
from orchestrator.pipeline.tracks import TrackCache
from orchestrator.pipeline.watch import Watch
from orchestrator.settings import Settings
from tests.clips import frames_of, pictures_in, write_speech, write_video, write_wav
from tests.jobs import is_over, wait_for, working
from tests.jobs import options as job_settings
from tests.networks import save_embedder, save_enhancer, save_mdx

HOME = Settings().triton_home
LOSSLESS = RenderOptions(lossless=True, preset="ultrafast")
PLAIN = LOSSLESS.model_copy(update={"face_landmarks": False, "voice_separator": False})


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonClient]:
    """A Triton with every role. The enhancer has random weights: what it draws is noise, where it draws has to be right."""
    folder = tmp_path_factory.mktemp("full")
    repository = folder / "models"
    for name in ("centerface", "mouth-warp", "facemesh468"):
        install_pack(find_pack(name), repository, HOME, None)
    install_pack(find_pack("gfpgan"), repository, HOME, str(save_enhancer(folder / "enhancer.onnx")))
    install_pack(find_pack("arcface"), repository, HOME, str(save_embedder(folder / "embedder.onnx", 512)))
    for config in repository.glob("face_embedder/**/*.pbtxt"):  # to random weights, people are more alike than to a trained network
        config.write_text(
            config.read_text().replace('"min_similarity" value { string_value: "0.3" }', '"min_similarity" value { string_value: "0.93" }')
        )
    install_pack(find_pack("mdx"), repository, HOME, str(save_mdx(folder / "mdx.onnx")))
    with LocalTriton.start(HOME, repository, config_name="cpu") as server, TritonClient(server.grpc_address) as client:
        yield client


@pytest.fixture(scope="module")
def short_speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_speech(tmp_path_factory.mktemp("speech") / "speech.wav", 0.4)


def luma(path: Path) -> NDArray[np.uint8]:
    return pictures_in(path)[:, :640]


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
    assert with_landmarks.models["face_landmarks"].inference_count == with_landmarks.models["face_detector"].inference_count > 0
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
    both = next(frames_of(pair)).to_ndarray(format="rgb24")
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


def test_shot_or_video_without_the_person_in_the_picture_is_told_as_such(full: TritonClient, pair: Path, short_speech: Path, tmp_path: Path) -> None:
    """Five frames of the left one, then five of the right one."""
    both = [frame.to_ndarray(format="rgb24") for frame in islice(frames_of(pair), 5)]

    def alone(picture: NDArray[np.uint8], first: int) -> NDArray[np.uint8]:
        shown = np.full_like(picture, 90)
        shown[:, first : first + 256] = picture[:, first : first + 256]
        return shown

    for name, shots in {"two.mp4": (0, 256), "right.mp4": (256, 256)}.items():
        write_video(tmp_path / name, [alone(np.asarray(picture, np.uint8), first) for first in shots for picture in both])
    Image.fromarray(np.ascontiguousarray(both[0][:, :256])).save(tmp_path / "left.png")
    report = render(plan_render(tmp_path / "two.mp4", short_speech, tmp_path / "out.mp4", PLAIN, speaker_image=tmp_path / "left.png"), full)
    assert report.cuts == (5,) and report.passed_through_because["not_the_speaker"] == ((5, 10),)
    assert any("In 5 frames the person in the picture is not seen" in note for note in report.notes)
    with pytest.raises(SpeakerNotFound, match="Give another picture of him") as caught:
        render(plan_render(tmp_path / "right.mp4", short_speech, tmp_path / "out2.mp4", PLAIN, speaker_image=tmp_path / "left.png"), full)
    assert caught.value.code == "speaker_not_found"


def test_face_chosen_by_a_point_is_known_in_other_shots(
    full: TritonClient, client: TritonClient, pair: Path, tmp_path: Path, short_speech: Path
) -> None:
    """Shots of four frames: the left one, the right one at the same place, the left one again. By its place the right one's face would be his."""
    both = [frame.to_ndarray(format="rgb24") for frame in islice(frames_of(pair), 4)]
    shots = [np.ascontiguousarray(picture[:, first : first + 256], np.uint8) for first in (0, 256, 0) for picture in both]
    write_video(tmp_path / "shots.mp4", shots)
    tracks = TrackCache(tmp_path / "tracks", 1 << 20)
    by_point = PLAIN.model_copy(update={"speaker": "128,110,9", "voice_activity": False})

    def rendered(name: str, triton: TritonClient) -> RenderReport:
        return render(plan_render(tmp_path / "shots.mp4", short_speech, tmp_path / name, by_point), triton, tracks=tracks)

    known, again = rendered("known.mp4", full), rendered("again.mp4", full)
    assert known.cuts == (4, 8) and known.speakers[0].seen == ((0, 4), (8, 10))
    assert known.passed_through_because["not_the_speaker"] == ((4, 8),)
    assert any("In 4 frames the person who was chosen is not seen" in note for note in known.notes)
    assert again.models["face_detector"].inference_count == 0 and (tmp_path / "again.mp4").read_bytes() == (tmp_path / "known.mp4").read_bytes()
    by_place = rendered("place.mp4", client)
    assert by_place.speakers[0].seen == ((0, 10),) and any("install dlib-resnet`) he is looked for" in note for note in by_place.notes)


def test_picture_of_the_speaker_needs_a_model(client: TritonClient, pair: Path, short_speech: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match="which speaker_image needs"):
        render(plan_render(pair, short_speech, tmp_path / "x.mp4", PLAIN, speaker_image=pair), client)


def voice_and_music(duration_s: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return what sounds below 4 kHz, which is voice to the stand-in, and above, as loud."""
    time = np.arange(int(duration_s * 44_100)) / 44_100
    syllables = np.clip(np.sin(2 * np.pi * 3 * time), 0, 1)
    voice = 0.15 * syllables * sum(np.sin(2 * np.pi * 140 * k * time) / k for k in range(1, 20))
    return np.asarray(voice, np.float32), np.asarray(0.4 * np.sin(2 * np.pi * 6000 * time), np.float32)


def test_voice_is_separated_chunk_by_chunk_without_a_seam(full: TritonClient, tmp_path: Path) -> None:
    """12 s are three chunks; the answer is the voice, sample by sample, however the track was cut."""
    voice, music = voice_and_music(12.0)
    separator = VoiceSeparator(full)
    found = np.concatenate(list(separator.separate([voice + music])))
    assert found.shape == voice.shape and np.abs(found - voice)[200:-200].max() < 2e-3
    pieces = (track[start : start + 100_000] for track in [voice + music] for start in range(0, len(track), 100_000))
    assert np.array_equal(np.concatenate(list(separator.separate(pieces))), found)
    assert list(separator.separate([])) == []
    speech = read_speech(write_wav(tmp_path / "mixed.wav", voice + music, 44_100))
    heard = heard_speech(speech, separator, tmp_path / "voice.wav", Watch())
    alone = read_speech(write_wav(tmp_path / "alone.wav", voice, 44_100))
    assert heard.info.duration_s == speech.info.duration_s
    inner = slice(4, -4)  # the track begins and ends at once, which is sound of any frequency
    voice_mel, heard_mel, mixed_mel = (np.concatenate(list(mel_blocks(track.info)), axis=1) for track in (alone, heard, speech))
    apart = [np.abs(mel - voice_mel)[:, inner] for mel in (heard_mel, mixed_mel)]
    assert apart[0][voice_mel[:, inner] > -2].max() < 0.02 and apart[1].max() > 1
    counted = model_use(full, VOICE_SEPARATOR)
    assert np.array_equal(heard_speech(speech, separator, tmp_path / "voice.wav", Watch()).levels_db, heard.levels_db)
    assert model_use(full, VOICE_SEPARATOR).since(counted).inference_count == 0, "a render that goes on does not separate again"


def test_lips_hear_the_voice_and_the_result_keeps_the_music(full: TritonClient, clip: Path, tmp_path: Path) -> None:
    voice, music = voice_and_music(0.4)
    tracks = {"mixed": voice + music, "alone": voice}
    shown, sound = {}, {}
    for track, is_separated in (("mixed", None), ("mixed", False), ("alone", False)):
        audio, out = write_wav(tmp_path / f"{track}.wav", tracks[track], 44_100), tmp_path / f"{track}{is_separated}.mp4"
        options = PLAIN.model_copy(update={"voice_separator": is_separated, "voice_activity": False})
        report = render(plan_render(clip, audio, out, options), full)
        assert report.models.keys() & {VOICE_SEPARATOR} == (set() if is_separated is False else {VOICE_SEPARATOR})
        assert any("voice alone" in note for note in report.notes) is (is_separated is None)
        shown[track, is_separated] = luma(out).astype(int)
        with av.open(str(out)) as container:
            sound[track, is_separated] = [bytes(packet) for packet in container.demux(audio=0)]
    assert sound["mixed", None] == sound["mixed", False] != sound["alone", False]
    apart = abs(shown["mixed", None] - shown["alone", False]).mean()
    assert apart < 0.5 * abs(shown["mixed", False] - shown["alone", False]).mean()
