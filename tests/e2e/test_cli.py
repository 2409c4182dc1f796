"""`lipsync render` as a program."""

import json
import signal
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest
from typer.testing import CliRunner

from deploy.local.server import LocalTriton
from orchestrator.cli import app
from orchestrator.errors import InvalidOption
from orchestrator.pipeline.options import RenderOptions
from tests.clips import frames_of, write_video, write_wav
from tests.programs import descendants, lipsync, running, wait_until
from tests.web import sharing


def test_render_prints_its_report_as_json(clip: Path, speech: Path, triton: LocalTriton, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    done = lipsync("render", "--video", clip, "--audio", speech, "-o", out, "--json", "--triton", triton.grpc_address)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["frame_count"] == 62
    assert report["models"]["lip_sync"]["execution_count"] < report["models"]["lip_sync"]["inference_count"] == 62
    with av.open(str(out)) as container:
        assert container.streams.video[0].frames == 62


def test_render_tells_people_the_size_as_shown_and_the_rate_as_a_number(clip: Path, speech: Path, triton: LocalTriton, tmp_path: Path) -> None:
    lying = (np.rot90(frame.to_ndarray(format="rgb24")[:, 80:560], -1) for frame in frames_of(clip))
    phone = write_video(tmp_path / "phone.mp4", map(np.ascontiguousarray, lying), set_up=lambda stream: stream.set_display_rotation(90))
    given = ("--video", phone, "--audio", speech, "-o", tmp_path / "out.mp4", "--frame-rate", "30000/1001")
    done = lipsync("render", *given, "--triton", triton.grpc_address)
    assert (done.returncode, "480x640, 29.97 frames/s, " in done.stdout.splitlines()[0]) == (0, True), done.stderr


def test_inputs_are_fetched_by_the_rules_of_the_service(
    clip: Path, speech: Path, triton: LocalTriton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, out = tmp_path / "shared", tmp_path / "results" / "out.mp4"
    shared.mkdir()
    out.parent.mkdir()
    (shared / "人物 1.mp4").write_bytes(clip.read_bytes())
    (shared / "speech.wav").write_bytes(speech.read_bytes())
    with sharing(shared) as url:

        def render(video: str, audio: str) -> "subprocess.CompletedProcess[str]":
            return lipsync("render", "--video", f"{url}/{video}", "--audio", f"{url}/{audio}", "-o", out, "--triton", triton.grpc_address)

        refused = render("%E4%BA%BA%E7%89%A9%201.mp4", "speech.wav")
        assert (refused.returncode, refused.stderr.partition(":")[0]) == (1, "url_refused"), refused.stderr
        monkeypatch.setenv("LIPSYNC_FETCH_NETWORKS", "127.0.0.0/8")
        missing = render("nowhere.mp4", "speech.wav")
        assert (missing.returncode, missing.stderr.partition(":")[0]) == (1, "missing_file"), missing.stderr
        swapped = render("speech.wav", "%E4%BA%BA%E7%89%A9%201.mp4")
        assert (swapped.returncode, swapped.stderr.startswith("missing_stream: speech.wav ")) == (1, True), swapped.stderr
        assert not list(out.parent.iterdir())
        done = render("%E4%BA%BA%E7%89%A9%201.mp4", "speech.wav")
    assert done.returncode == 0, done.stderr
    assert list(out.parent.iterdir()) == [out]


def test_help_has_every_option_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    words = " ".join(lipsync("render", "--help").stdout.split())
    for name, field in RenderOptions.model_fields.items():
        assert f"--{name.replace('_', '-')}" in words
        assert field.description and field.description in words.replace("- ", "-")


def bad_inputs(folder: Path, clip: Path) -> dict[str, Path]:
    """Make every kind of file that people send by mistake."""
    files = {name: folder / name for name in ("text.mp4", "truncated.mp4", "empty.wav", "silentless.wav", "blank.mp4", "folder")}
    files["text.mp4"].write_text("This is not a video.\n")
    whole = clip.read_bytes()
    files["truncated.mp4"].write_bytes(whole[: len(whole) // 2])
    files["empty.wav"].touch()
    write_wav(files["silentless.wav"], np.zeros(0, np.float32), 16_000)
    write_video(files["blank.mp4"], [np.full((128, 128, 3), 90, np.uint8)] * 5)
    files["folder"].mkdir()
    files["missing.mp4"] = folder / "missing.mp4"
    return files


@pytest.mark.parametrize(
    ("video", "audio", "code"),
    [
        ("text.mp4", None, "unreadable_media"),
        ("truncated.mp4", None, "unreadable_media"),
        ("missing.mp4", None, "missing_file"),
        ("folder", None, "missing_file"),
        ("blank.mp4", None, "no_face_found"),
        (None, "empty.wav", "unreadable_media"),
        (None, "silentless.wav", "empty_stream"),
        (None, "text.mp4", "unreadable_media"),
        (None, "blank.mp4", "missing_stream"),
    ],
)
def test_bad_input_is_a_code_and_a_sentence_and_leaves_nothing(
    video: str | None, audio: str | None, code: str, clip: Path, speech: Path, triton: LocalTriton, tmp_path: Path
) -> None:
    files = bad_inputs(tmp_path, clip)
    out = tmp_path / "results" / "out.mp4"
    out.parent.mkdir()
    done = lipsync(
        "render", "--video", files[video] if video else clip, "--audio", files[audio] if audio else speech, "-o", out, "--triton", triton.grpc_address
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"{code}: ")
    assert done.stderr.endswith(".\n") and done.stderr.count("\n") == 1
    assert not list(out.parent.iterdir())


def test_name_that_ends_in_no_container_is_refused(clip: Path, speech: Path, tmp_path: Path) -> None:
    done = lipsync("render", "--video", clip, "--audio", speech, "-o", tmp_path / "out.avi")
    assert (done.returncode, done.stderr.startswith("invalid_option: No result is written as .avi; ")) == (1, True), done.stderr


def test_triton_that_is_not_there_is_said_so(clip: Path, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIPSYNC_TRTON", "127.0.0.1:1")
    done = lipsync("render", "--video", clip, "--audio", speech, "-o", tmp_path / "out.mp4", "--triton", "127.0.0.1:1")
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "LIPSYNC_TRTON is no setting, and is left out; did you mean LIPSYNC_TRITON?"
    assert "inference_unavailable: No Triton answers at 127.0.0.1:1" in done.stderr
    assert lipsync("models", "list").stderr.splitlines() == done.stderr.splitlines()[:1]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.usefixtures("nothing_left")
def test_killed_render_leaves_no_process_no_shared_memory_and_no_result(number: signal.Signals, clip: Path, speech: Path, tmp_path: Path) -> None:
    with running("render", "--video", clip, "--audio", speech, "-o", tmp_path / "out.mp4") as process:
        wait_until(lambda: bool(descendants(process.pid, "stub")), "a model is being loaded")
        process.send_signal(number)
        process.wait(timeout=30)
    assert process.returncode != 0
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize(("name", "value"), [("PORT", "abc"), ("HOST", "http://127.0.0.1")])
def test_setting_that_cannot_be_used_is_a_code_and_a_sentence(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"LIPSYNC_{name}", value)
    done = lipsync("models", "list")
    assert done.returncode == 1 and not done.stdout
    assert done.stderr.startswith(f"invalid_option: A setting cannot be used: LIPSYNC_{name}: ")
    assert "Traceback" not in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [("serve", "--port", "65536"), ("triton", "--grpc-port", "-1")])
def test_port_that_there_is_not_is_refused(arguments: tuple[str, ...]) -> None:
    done = lipsync(*arguments)
    assert (done.returncode, f"Invalid value for '{arguments[1]}'" in done.stderr, "Traceback" in done.stderr) == (2, True, False), done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--speaker", "128,110", "--speaker-audio", "other.wav"), "AUDIO@X,Y"),
        (("--speaker-audio", "{speech}@390,110"), "chosen by a point"),
        (("--speaker", "128,110", "--speaker-audio", "{speech}@here"), "chosen by a point"),
        (("--speaker", "left"), "--speaker: must be "),
        (("--sync-mode", "back"), "--sync-mode: Input should be 'bounce', 'loop', "),
        (("--segments", '[{"start": 0.2}]'), "--segments: 0.end: "),
        (("--segments", '[{"start": 0, "end": 1}]', "--speaker-audio", "{speech}"), "Audio 2 is in no segment"),
        (("--segments", '[{"start": 5, "end": 6}]'), "the video ends at 1.00 s"),
    ],
)
def test_who_speaks_and_when_has_to_be_plain_before_anything_is_started(
    arguments: tuple[str, ...], sentence: str, clip: Path, speech: Path, tmp_path: Path
) -> None:
    given = [argument.replace("{speech}", str(speech)) for argument in arguments]
    refused = CliRunner().invoke(app, ["render", "--video", str(clip), "--audio", str(speech), "-o", str(tmp_path / "out.mp4"), *given])
    assert isinstance(refused.exception, InvalidOption) and sentence in str(refused.exception), refused
    assert not (tmp_path / "out.mp4").exists()
