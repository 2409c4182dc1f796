"""`lipsync serve` over HTTP."""

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import httpx
import pytest

from deploy.local.server import LocalTriton
from orchestrator.inference.client import TritonClient
from orchestrator.inference.contract import describe_model
from orchestrator.inference.usage import model_use
from tests.clips import SPEECH_RATE_HZ, speech_like, write_wav
from tests.e2e.conftest import running, wait_until


@contextmanager
def serving(triton_address: str) -> Iterator[httpx.Client]:
    """Run the service on a free port until the block ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with running("serve", "--port", str(port), "--triton", triton_address) as process:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as http:

            def answers() -> bool:
                try:
                    return http.get("/healthz").status_code == 200
                except httpx.TransportError:
                    return False

            wait_until(answers, "the service answers")
            yield http
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


@pytest.fixture(scope="module")
def service(triton: LocalTriton) -> Iterator[httpx.Client]:
    with serving(triton.grpc_address) as http:
        yield http


def post(service: httpx.Client, video: Path, audio: Path, **fields: str) -> httpx.Response:
    with video.open("rb") as v, audio.open("rb") as a:
        return service.post("/render", files={"video": v, "audio": a}, data=fields)


def test_ready_means_that_every_role_passed_its_self_test(service: httpx.Client) -> None:
    answer = service.get("/readyz")
    assert answer.status_code == 200
    roles = answer.json()["roles"]
    assert set(roles) == {"face_detector", "lip_sync"}
    assert all(role["instance_kinds"] == ["KIND_CPU"] for role in roles.values())
    assert {role: (about["pack"], about["licence"]) for role, about in roles.items()} == {
        "face_detector": ("centerface", "MIT"),
        "lip_sync": ("mouth-warp", "Apache-2.0"),
    }
    assert all(role["execution_provider"] == "CPUExecutionProvider" and role["ms_per_item_batch_max"] > 0 for role in roles.values())


def test_render_returns_the_video(service: httpx.Client, clip: Path, speech: Path, tmp_path: Path) -> None:
    answer = post(service, clip, speech, preset="ultrafast")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "video/mp4"
    (tmp_path / "out.mp4").write_bytes(answer.content)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].frames == 62
        assert container.streams.audio[0].codec_context.name == "aac"


def test_bad_input_is_a_problem_with_a_stable_code(service: httpx.Client, clip: Path, speech: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("not a video")
    cases = [
        (post(service, text, speech), 422, "unreadable_media"),
        (post(service, clip, text), 422, "unreadable_media"),
        (post(service, clip, clip), 422, "missing_stream"),
        (post(service, clip, speech, preset="warp"), 422, "invalid_option"),
        (post(service, clip, speech, crf="many"), 422, "invalid_request"),
        (service.post("/render"), 422, "invalid_request"),
        (service.get("/nowhere"), 404, "not_found"),
    ]
    for answer, status, code in cases:
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["detail"].endswith(".")


def test_service_leaves_no_upload_behind(service: httpx.Client, clip: Path, speech: Path, tmp_path: Path) -> None:
    before = set(Path("/tmp").glob("lipsync-render-*"))
    assert post(service, clip, speech, preset="ultrafast").status_code == 200
    wait_until(lambda: set(Path("/tmp").glob("lipsync-render-*")) <= before, "the render's folder is gone")


def test_closing_the_connection_cancels_the_render(service: httpx.Client, clip: Path, client: TritonClient, tmp_path: Path) -> None:
    write_wav(tmp_path / "long.wav", speech_like(60.0), SPEECH_RATE_HZ)
    before, inferred = set(Path("/tmp").glob("lipsync-render-*")), model_use(client, describe_model(client, "lip_sync")).inference_count
    with pytest.raises(httpx.ReadTimeout), httpx.Client(base_url=service.base_url, timeout=httpx.Timeout(30, read=2.5)) as impatient:
        post(impatient, clip, tmp_path / "long.wav", preset="ultrafast")
    wait_until(lambda: set(Path("/tmp").glob("lipsync-render-*")) <= before, "the render's folder is gone")
    assert model_use(client, describe_model(client, "lip_sync")).inference_count - inferred < 60 * 25


def test_service_without_triton_is_alive_but_not_ready(clip: Path, speech: Path) -> None:
    with serving("127.0.0.1:1") as http:
        for answer in (http.get("/readyz"), post(http, clip, speech)):
            assert (answer.status_code, answer.json()["code"]) == (503, "inference_unavailable")
            assert answer.headers["retry-after"]
