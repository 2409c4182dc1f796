"""`lipsync serve`: `POST /render` as curl uses it, health, and what a service on its own must withstand."""

import io
import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import av
import httpx
import psutil
import pytest

from deploy.local.server import LocalTriton
from orchestrator.errors import InvalidOption, RenderError, StorageError
from orchestrator.inference.client import TritonClient
from orchestrator.inference.usage import model_use
from orchestrator.main import open_listener
from orchestrator.settings import Settings
from tests.clips import write_speech
from tests.e2e.service import Service, frame_count, secured_paths, serving
from tests.programs import lipsync, wait_until, wait_until_idle


@pytest.fixture(scope="module")
def service(triton: LocalTriton, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    settings = {"LIPSYNC_UPLOAD_STALL_S": "2", "LIPSYNC_MAX_UPLOADS": "8"}
    with serving(triton.grpc_address, tmp_path_factory.mktemp("serve"), key="", **settings) as running:
        yield running


def post(service: Service, video: Path, audio: Path, **fields: str) -> httpx.Response:
    with video.open("rb") as v, audio.open("rb") as a:
        return service.http.post("/render", files={"video": v, "audio": a}, data=fields)


def jobs_left(service: Service) -> list[Path]:
    return list((service.data / "jobs").iterdir())


@pytest.mark.parametrize("path", ["/", "/docs", "/healthz", "/readyz"])
def test_head_is_answered_as_get_is_without_the_body(path: str, service: Service) -> None:
    whole, head = service.http.get(path), service.http.head(path)
    assert (head.status_code, head.content, head.headers["content-type"]) == (200, b"", whole.headers["content-type"])


def test_document_of_a_service_without_keys_asks_for_none(service: Service) -> None:
    assert not secured_paths(service)


def test_ready_means_that_every_role_passed_its_self_test(service: Service) -> None:
    answer = service.http.get("/readyz")
    assert answer.status_code == 200
    roles = answer.json()["roles"]
    assert set(roles) == {"face_detector", "lip_sync", "voice_activity"}
    assert all(role["instance_kinds"] == ["KIND_CPU"] for role in roles.values())
    assert {role: (about["pack"], about["licence"]) for role, about in roles.items()} == {
        "face_detector": ("centerface", "MIT"),
        "lip_sync": ("mouth-warp", "Apache-2.0"),
        "voice_activity": ("silero", "MIT"),
    }
    assert all(role["execution_provider"] == "CPUExecutionProvider" and role["ms_per_item_batch_max"] > 0 for role in roles.values())


def test_render_streams_the_video_while_it_is_rendered(service: Service, clip: Path, tmp_path: Path) -> None:
    write_speech(tmp_path / "speech.wav", 6.0)
    files = {"video": clip.read_bytes(), "audio": (tmp_path / "speech.wav").read_bytes()}
    arrived, body = [], b""
    with service.http.stream("POST", "/render", files=files, data={"preset": "ultrafast"}) as answer:
        assert (answer.status_code, answer.headers["content-type"]) == (200, "video/mp4")
        for piece in answer.iter_raw():
            # The job is under way as long as there is more to come, which shows that nobody waited for the whole video.
            arrived.append(bool(jobs_left(service)))
            body += piece
    assert arrived[0]
    assert frame_count(body) == 150
    assert body[4:8] == b"ftyp" and body.count(b"moov") == 1
    wait_until(lambda: not jobs_left(service), "the job is forgotten")


def test_webm_is_streamed_as_webm_and_what_cannot_be_streamed_is_refused(service: Service, clip: Path, speech: Path) -> None:
    answer = post(service, clip, speech, container="webm", preset="ultrafast", bitrate="500k")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "video/webm")
    assert 'filename="render.webm"' in answer.headers["content-disposition"]
    with av.open(io.BytesIO(answer.content), "r") as file:
        assert [stream.codec_context.name for stream in file.streams] == ["vp9", "opus"]
    assert frame_count(answer.content) == 62
    refused = post(service, clip, speech, codec="prores")
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_option")
    assert "ask for mp4 or webm" in refused.json()["detail"]
    wait_until(lambda: not jobs_left(service), "the job is forgotten")


def test_bad_input_is_a_problem_with_a_stable_code(service: Service, clip: Path, speech: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("not a video")
    playlist = tmp_path / "list.mp4"
    playlist.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n")
    script = tmp_path / "concat.mp4"
    script.write_text(f"ffconcat version 1.0\nfile {clip}\n")
    cases = [
        (post(service, text, speech), 422, "unreadable_media"),
        (post(service, playlist, speech), 422, "unreadable_media"),
        (post(service, script, speech), 422, "unreadable_media"),
        (post(service, clip, text), 422, "unreadable_media"),
        (post(service, clip, clip), 422, "missing_stream"),
        (post(service, clip, speech, preset="warp"), 422, "invalid_option"),
        (post(service, clip, speech, crf="many"), 422, "invalid_option"),
        (post(service, clip, speech, colour="red"), 422, "invalid_option"),
        (service.http.post("/render", files={"video": clip.read_bytes()}), 422, "invalid_request"),
        (service.http.post("/render"), 415, "unsupported_media_type"),
        (service.http.get("/nowhere"), 404, "not_found"),
        (service.http.get("/render"), 405, "method_not_allowed"),
    ]
    for answer, status, code in cases:
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["detail"].endswith(".")
    assert cases[-1][0].json()["detail"] == "This path does not take GET; it takes POST."
    assert service.http.put("/v2/generate/some").headers["allow"] == "DELETE, GET"
    assert not jobs_left(service)


def test_further_speakers_are_further_files_with_a_point_each(service: Service, pair: Path, tmp_path: Path) -> None:
    audio = write_speech(tmp_path / "short.wav", 0.5).read_bytes()
    files = {"video": pair.read_bytes(), "audio": audio, "audio_2": audio}
    fields = {"preset": "ultrafast", "speaker": "128,110", "speaker_2": "390,110"}
    answer = service.http.post("/render", files=files, data=fields)
    assert (answer.status_code, frame_count(answer.content)) == (200, 12)
    for left_out, part in (("speaker_2", "belong together"), ("speaker", "chosen by a point")):
        answer = service.http.post("/render", files=files, data={name: text for name, text in fields.items() if name != left_out})
        assert (answer.status_code, part in answer.json()["detail"]) == (422, True)


def test_segments_of_one_speaker_take_further_files_without_a_point(service: Service, clip: Path, tmp_path: Path) -> None:
    audio = write_speech(tmp_path / "short.wav", 0.5).read_bytes()
    files = {"video": clip.read_bytes(), "audio": audio, "audio_2": audio}
    segments = [{"start": 0, "end": 0.2}, {"start": 0.5, "end": 0.9, "audio": 2}]
    answer = service.http.post("/render", files=files, data={"preset": "ultrafast", "segments": json.dumps(segments)})
    assert (answer.status_code, frame_count(answer.content)) == (200, 25)
    for wrong, part in ((json.dumps(segments[:1]), "Audio 2 is in no segment"), ("[{", "must be JSON")):
        answer = service.http.post("/render", files=files, data={"segments": wrong})
        assert (answer.status_code, answer.json()["code"], part in answer.json()["detail"]) == (422, "invalid_option", True)


def test_picture_of_the_speaker_without_a_model_for_it_is_refused(service: Service, clip: Path, speech: Path) -> None:
    files = {"video": clip.read_bytes(), "audio": speech.read_bytes(), "speaker_image": clip.read_bytes()}
    answer = service.http.post("/render", files=files)
    assert (answer.status_code, "face_embedder" in answer.json()["detail"]) == (422, True)


def test_video_without_a_face_is_answered_with_its_code(service: Service, speech: Path, tmp_path: Path) -> None:
    from tests.clips import make_clip

    answer = post(service, make_clip(tmp_path / "blank.mp4"), speech)
    assert (answer.status_code, answer.json()["code"]) == (422, "no_face_found")
    wait_until(lambda: not jobs_left(service), "the job is forgotten")


def test_closing_the_connection_cancels_the_render(service: Service, clip: Path, client: TritonClient, tmp_path: Path) -> None:
    write_speech(tmp_path / "long.wav", 60.0)
    before = model_use(client, "lip_sync").inference_count
    files = {"video": clip.read_bytes(), "audio": (tmp_path / "long.wav").read_bytes()}
    with httpx.stream("POST", f"{service.url}/render", files=files, data={"preset": "veryslow"}, timeout=60) as answer:
        assert next(answer.iter_raw())
    wait_until(lambda: not jobs_left(service), "the render is cancelled and forgotten")
    wait_until_idle(client)
    assert model_use(client, "lip_sync").inference_count - before < 60 * 25


def has(log: Path, text: str) -> bool:
    return text in log.read_text()


def test_client_that_goes_in_the_middle_of_its_request_is_no_error_and_leaves_nothing(service: Service) -> None:
    log = service.data.parent / "service.log"
    for path in ("/render", "/v2/generate", "/v2/assets", "/easy/submit"):
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: 100000\r\n\r\n"
        name = "file" if path == "/v2/assets" else "video"
        with socket.create_connection(("127.0.0.1", int(service.url.rpartition(":")[2])), timeout=60) as client:
            client.sendall(f'{head}--x\r\nContent-Disposition: form-data; name="{name}"; filename="v"\r\n\r\n'.encode() + bytes(1000))
        wait_until(partial(has, log, f"POST {path} 499"), f"the client of {path} is seen to be gone")
    assert "Traceback" not in log.read_text()
    assert not list((service.data / "incoming").iterdir())


def test_clients_that_send_a_byte_a_second_block_nobody_and_are_given_up(service: Service, clip: Path, speech: Path) -> None:
    """As many of them as there are uploads at a time."""
    address = ("127.0.0.1", int(service.url.rpartition(":")[2]))
    head = b"POST /render HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: 100000\r\n\r\n"
    given_up: list[bytes] = []

    def drip() -> None:
        with socket.create_connection(address, timeout=60) as client:
            client.sendall(head)
            client.settimeout(0.5)
            for byte in b'--x\r\nContent-Disposition: form-data; name="video"; filename="v"\r\n\r\n' * 10:
                try:
                    client.sendall(bytes([byte]))
                    given_up.append(client.recv(1000))
                except TimeoutError:
                    continue
                except OSError:
                    given_up.append(b"")
                return

    slow = [threading.Thread(target=drip) for _ in range(8)]
    for thread in slow:
        thread.start()
    time.sleep(0.5)
    assert service.http.get("/healthz").status_code == 200
    assert post(service, clip, speech, preset="ultrafast").status_code == 200
    for thread in slow:
        thread.join()
    assert len(given_up) == 8
    assert all(answer.startswith(b"HTTP/1.1 408") or not answer for answer in given_up)
    assert not list((service.data / "incoming").iterdir())


def test_many_requests_at_once_are_all_accepted_and_can_all_be_cancelled(service: Service, clip: Path, speech: Path) -> None:
    assets = [service.http.post("/v2/assets", files={"file": path.read_bytes()}) for path in (clip, speech)]
    assert [answer.status_code for answer in assets] == [201, 201], [answer.text for answer in assets]
    video, audio = (answer.json()["id"] for answer in assets)
    body = {"model": "lipsync-2", "input": [{"type": "video", "assetId": video}, {"type": "audio", "assetId": audio}]}
    with ThreadPoolExecutor(40) as clients:
        answers = list(clients.map(lambda _: service.http.post("/v2/generate", json=body), range(200)))
        assert {answer.status_code for answer in answers} == {201}
        ids = [answer.json()["id"] for answer in answers]
        assert len(set(ids)) == 200
        waiting = [job["progress"]["queuePosition"] for job in service.http.get("/v2/generations?status=PENDING&limit=1000").json()]
        assert len(waiting) > 150 and len(set(waiting)) == len(waiting)
        cancelled = list(clients.map(lambda job_id: service.http.delete(f"/v2/generate/{job_id}"), ids))
    assert {answer.status_code for answer in cancelled} == {204}
    assert service.http.get("/v2/generations").json() == []
    wait_until(lambda: not jobs_left(service), "every job is forgotten")


def test_clients_with_the_same_files_do_not_take_them_from_each_other(service: Service, clip: Path, tmp_path: Path) -> None:
    """Each render deletes its job at its end, and with it the inputs, unless another needs them."""
    speech = write_speech(tmp_path / "short.wav", 0.4)
    with ThreadPoolExecutor(3) as clients:
        answers = list(clients.map(lambda _: post(service, clip, speech, preset="ultrafast"), range(9)))
    assert [answer.status_code for answer in answers] == [200] * 9
    assert {frame_count(answer.content) for answer in answers} == {10}


def test_service_leaves_no_file_open_and_no_child(service: Service, clip: Path, speech: Path) -> None:
    process = psutil.Process(service.process.pid)

    def media_open() -> list[str]:
        return [file.path for file in process.open_files() if "/inputs/" in file.path or "/jobs/" in file.path or "/incoming/" in file.path]

    assert post(service, clip, speech, preset="ultrafast").status_code == 200
    wait_until(lambda: not media_open(), "every media file is closed")
    assert not process.children()


def test_who_sends_more_than_a_service_waits_for_when_it_stops_is_told_so(tmp_path: Path) -> None:
    """He was sent a 500, and the log had an error with a trace."""
    with serving("127.0.0.1:1", tmp_path, key="") as service:
        head = "POST /v2/assets HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5000000\r\nContent-Type: multipart/form-data; boundary=B\r\n\r\n"
        part = '--B\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
        with socket.create_connection(("127.0.0.1", service.http.base_url.port or 0), 60) as connection:
            connection.sendall(head.encode() + part.encode() + bytes(1 << 20))
            wait_until(lambda: any((service.data / "incoming").iterdir()), "the upload arrives")
            service.process.terminate()
            answer = b"".join(iter(partial(connection.recv, 1 << 16), b""))
        assert answer.startswith(b"HTTP/1.1 503 ") and b'"interrupted"' in answer
        assert service.process.wait(60) == 0
        assert not any((service.data / "incoming").iterdir())


def test_service_without_triton_is_alive_but_not_ready(clip: Path, speech: Path, tmp_path: Path) -> None:
    with serving("127.0.0.1:1", tmp_path, key="") as service:
        for answer in (service.http.get("/readyz"), post(service, clip, speech)):
            assert (answer.status_code, answer.json()["code"]) == (503, "inference_unavailable")
            assert answer.headers["retry-after"]
        assert "lipsync_triton_up 0.0" in service.http.get("/metrics").text
    first, *_, last = (tmp_path / "service.log").read_text().rpartition("lipsync.service: stopping; ")
    assert "lipsync.service: listening on " in first and last.endswith("lipsync.service: stopped\n")


def serve_refused(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    import os
    from unittest import mock

    with mock.patch.dict(os.environ, environment):
        return lipsync("serve", "--triton", "127.0.0.1:1", "--port", "0", *arguments)


@pytest.mark.parametrize(
    ("arguments", "environment", "beginning"),
    [
        (("--host", "0.0.0.0"), {}, "invalid_option: The service does not listen on 0.0.0.0 without API keys"),
        ((), {"LIPSYNC_DATA": "/proc/nothing"}, "storage_failed: The data folder /proc/nothing cannot be used"),
        ((), {"LIPSYNC_DECODER": "nvdec", "CUDA_VISIBLE_DEVICES": ""}, "gpu_unavailable: NVDEC cannot be used"),
    ],
)
def test_what_cannot_be_used_is_said_before_triton_is_asked_for(
    arguments: tuple[str, ...], environment: dict[str, str], beginning: str, tmp_path: Path
) -> None:
    done = serve_refused(*arguments, **{"LIPSYNC_DATA": str(tmp_path), **environment})
    assert (done.returncode, done.stderr.startswith(beginning), done.stderr.count("\n")) == (1, True, 1), done.stderr


@pytest.mark.parametrize(
    ("given", "error", "part"),
    [
        ({"fetch_networks": "everything"}, InvalidOption, "not a network"),
        ({"host": "192.0.2.1", "api_keys": "anna:0123456789abcdef"}, InvalidOption, "cannot listen"),
        ({"database_url": "postgresql://user:secret@host:port/jobs"}, InvalidOption, "LIPSYNC_DATABASE_URL"),
        ({"api_keys": ","}, InvalidOption, "LIPSYNC_API_KEYS"),
        ({"fetch_hosts": "https://example.org"}, InvalidOption, "LIPSYNC_FETCH_HOSTS"),
        ({"database_url": "postgresql://nobody@127.0.0.1:1/jobs"}, StorageError, "The jobs' database cannot be opened"),
    ],
)
def test_service_that_would_not_be_safe_does_not_start(given: dict[str, str], error: type[RenderError], part: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=part):
        open_listener(Settings.model_validate({"data": tmp_path, "port": 0, **given}))


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/nothing/below"])
def test_folder_that_heygems_videos_cannot_be_put_into_is_said_at_the_start(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="LIPSYNC_EASY_DATA"):
        open_listener(Settings(data=tmp_path / "data", port=0, easy_data=tmp_path / place))


def test_second_service_on_the_same_data_is_refused_with_a_sentence(service: Service) -> None:
    done = serve_refused(LIPSYNC_DATA=str(service.data))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("storage_failed: Another service") and "Traceback" not in done.stderr
