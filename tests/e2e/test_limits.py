"""A service with narrow limits, one whose disk is full, and one that is told to stop."""

import json
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from deploy.local.server import LocalTriton
from tests.clips import Clip, make_clip, write_speech
from tests.e2e.service import Service, serving
from tests.programs import wait_until
from tests.web import sharing

MAX_BYTES = 1 << 20


@pytest.fixture(scope="module")
def narrow(triton: LocalTriton, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    settings = {
        "LIPSYNC_MAX_DURATION_S": "3",
        "LIPSYNC_MAX_PIXELS": str(640 * 640),
        "LIPSYNC_MAX_FRAMES": "60",
        "LIPSYNC_MAX_UPLOAD_BYTES": str(MAX_BYTES),
        "LIPSYNC_FETCH_NETWORKS": "127.0.0.0/8",
        "LIPSYNC_FETCH_HOSTS": "127.0.0.1",
    }
    with serving(triton.grpc_address, tmp_path_factory.mktemp("narrow"), **settings) as running:
        yield running


def upload(service: Service, path: Path) -> httpx.Response:
    return service.http.post("/v2/assets", files={"file": path.read_bytes()})


def test_media_beyond_a_limit_are_refused_with_what_is_allowed(narrow: Service, clip: Path, tmp_path: Path) -> None:
    long = write_speech(tmp_path / "long.wav", 3.5)
    many = make_clip(tmp_path / "many.mp4", Clip(frame_count=61))
    large = make_clip(tmp_path / "large.mp4", Clip(size_wh=(642, 642), frame_count=3))
    for path, part in ((long, "at most 3 s"), (many, "at most 60"), (large, "at most 409600 pixels")):
        answer = upload(narrow, path)
        assert (answer.status_code, answer.json()["code"]) == (413, "limit_exceeded")
        assert part in answer.json()["message"]
    # 2.5 s of speech at 25 frames a second would be 63 frames.
    speech = write_speech(tmp_path / "speech.wav", 2.5)
    answer = narrow.http.post("/render", files={"video": clip.read_bytes(), "audio": speech.read_bytes()})
    assert answer.status_code == 413 and "at most 60" in answer.json()["detail"]


def test_limits_hold_for_what_is_fetched_too(narrow: Service, clip: Path, tmp_path: Path) -> None:
    write_speech(tmp_path / "long.wav", 3.5)
    (tmp_path / "huge.wav").write_bytes(bytes(MAX_BYTES + 1))
    (tmp_path / "list.wav").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n")
    video = upload(narrow, clip).json()["id"]
    with sharing(tmp_path) as site:
        for name, code in (("long.wav", "limit_exceeded"), ("huge.wav", "limit_exceeded"), ("list.wav", "unreadable_media")):
            body = {"model": "lipsync-2", "input": [{"type": "video", "assetId": video}, {"type": "audio", "url": f"{site}/{name}"}]}
            job = narrow.ended(narrow.http.post("/v2/generate", json=body).json()["id"])
            assert (job["status"], job["code"]) == ("FAILED", code)
        body["input"] = [{"type": "video", "assetId": video}, {"type": "audio", "url": site.replace("127.0.0.1", "localhost")}]
        refused = narrow.http.post("/v2/generate", json=body)
        assert (refused.status_code, refused.json()["code"]) == (400, "url_refused")


def test_upload_that_is_too_large_is_refused_and_the_client_sees_why(narrow: Service, tmp_path: Path) -> None:
    (tmp_path / "huge.bin").write_bytes(bytes(MAX_BYTES + 1))
    answer = upload(narrow, tmp_path / "huge.bin")
    assert (answer.status_code, answer.json()["code"]) == (413, "limit_exceeded")
    assert not list((narrow.data / "incoming").iterdir())


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this host")
def test_curl_sees_why_too_whether_or_not_it_asks_first(narrow: Service, tmp_path: Path) -> None:
    with (tmp_path / "huge.bin").open("wb") as huge:
        huge.truncate(64 << 20)
    for expect in ("", "100-continue"):
        command = ["curl", "-s", "-H", f"x-api-key: {narrow.http.headers['x-api-key']}", "-H", f"Expect: {expect}"]
        done = subprocess.run([*command, "-F", f"video=@{tmp_path / 'huge.bin'}", f"{narrow.url}/render"], capture_output=True, check=False)
        assert json.loads(done.stdout)["code"] == "limit_exceeded"
        (tmp_path / "large.bin").write_bytes(bytes(MAX_BYTES - 10_000))
        done = subprocess.run(
            [*command, "-F", "nonsense=1", "-F", f"video=@{tmp_path / 'large.bin'}", f"{narrow.url}/render"], capture_output=True, check=True
        )
        assert json.loads(done.stdout)["code"] == "invalid_option", "which is known while the file is on its way"


def test_full_disk_refuses_new_work_and_says_so(triton: LocalTriton, clip: Path, speech: Path, tmp_path: Path) -> None:
    with serving(triton.grpc_address, tmp_path, key="", LIPSYNC_FREE_SPACE_FLOOR_BYTES=str(1 << 60)) as service:
        answer = service.http.post("/render", files={"video": clip.read_bytes(), "audio": speech.read_bytes()})
        assert (answer.status_code, answer.json()["code"]) == (507, "storage_full")
        (service.easy_data / "a.mp4").write_bytes(clip.read_bytes())
        (service.easy_data / "a.wav").write_bytes(speech.read_bytes())
        told = service.http.post("/easy/submit", json={"video_url": "a.mp4", "audio_url": "a.wav", "code": "c"})
        assert told.status_code == 200 and told.json()["code"] == 9999 and "disk" in told.json()["msg"]
        assert service.http.get("/readyz").status_code == 200


def test_service_that_is_told_to_stop_ends_live_answers_and_goes_on_later(triton: LocalTriton, clip: Path, tmp_path: Path) -> None:
    write_speech(tmp_path / "long.wav", 5.0)
    files = {"video": clip.read_bytes(), "audio": (tmp_path / "long.wav").read_bytes()}
    with serving(triton.grpc_address, tmp_path) as service:
        job = service.http.post("/v2/generate", files=files, data={"model": "lipsync-2"}).json()
        events: list[str] = []

        def listen() -> None:
            with httpx.stream("GET", job["eventsUrl"], timeout=60) as answer:
                events.extend(answer.iter_lines())

        listener = threading.Thread(target=listen)
        listener.start()
        wait_until(lambda: service.job(job["id"])["progress"]["segmentsDone"] > 0, "a segment is finished")
        service.process.send_signal(signal.SIGTERM)
        listener.join(timeout=60)
        assert not listener.is_alive() and events[-2].startswith("data: ")
        service.process.wait(timeout=60)
    with serving(triton.grpc_address, tmp_path) as service:
        assert service.job(job["id"])["progress"]["segmentsDone"] > 0
        done = service.ended(job["id"])
        assert done["status"] == "COMPLETED" and done["outputDuration"] == pytest.approx(5.0)


def test_servers_that_answer_slowly_hold_up_nobody_else(narrow: Service, clip: Path) -> None:
    video = upload(narrow, clip).json()["id"]
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent, ThreadPoolExecutor(40) as clients:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/speech.wav"
        asked = {"model": "lipsync-2", "input": [{"type": "video", "assetId": video}, {"type": "audio", "url": url}]}
        answers = [clients.submit(narrow.http.post, "/v2/analyze/cost", json=asked, timeout=120) for _ in range(40)]
        connection, _ = silent.accept()
        with connection:
            time.sleep(1)
            assert narrow.http.get("/v2/generations", timeout=5).status_code == 200
        silent.close()  # which resets what waits
        assert {answer.result().status_code for answer in answers} == {502}
