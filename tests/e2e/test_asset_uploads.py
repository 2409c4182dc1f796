"""Assets in sync.so's three steps (ask for a link, PUT the file there, register it) and by public URLs."""

import io
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from PIL import Image

from deploy.local.server import LocalTriton
from orchestrator.api.keys import LinkSigner
from orchestrator.jobs.records import Records, Upload
from tests.clips import frames_of, write_speech
from tests.e2e.service import KEY, OTHER_KEY, Service, serving
from tests.programs import wait_until
from tests.web import sharing


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_speech(tmp_path_factory.mktemp("speech") / "speech.wav", 1.5).read_bytes()


@pytest.fixture(scope="module")
def service(triton: LocalTriton, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(triton.grpc_address, tmp_path_factory.mktemp("uploads"), LIPSYNC_FETCH_NETWORKS="127.0.0.0/8") as running:
        yield running


def announced(service: Service, size: int, name: str = "speech.wav", content_type: str = "audio/wav") -> dict[str, str]:
    answer = service.http.post("/v2/assets/upload", json={"fileName": name, "contentType": content_type, "size": size})
    assert answer.status_code == 201, answer.text
    assert answer.json()["expiresIn"] == 3600
    link: dict[str, str] = answer.json()
    return link


def put(link: dict[str, str], content: bytes, content_type: str = "audio/wav") -> httpx.Response:
    """Send a file as the documents say: without a key."""
    return httpx.put(link["uploadUrl"], content=content, headers={"content-type": content_type}, timeout=60)


def register(service: Service, link: dict[str, str], **more: object) -> httpx.Response:
    return service.http.post("/v2/assets", json={"url": link["url"], **more})


def test_file_that_is_sent_in_three_steps_becomes_an_asset(service: Service, clip: Path, speech: bytes) -> None:
    film, voice = announced(service, clip.stat().st_size, "me speaking.mp4", "video/mp4"), announced(service, len(speech))
    assert put(film, clip.read_bytes(), "video/mp4").status_code == put(voice, speech).status_code == 200
    answer = register(service, film)
    assert (answer.status_code, answer.json()["name"], answer.json()["type"], answer.json()["width"]) == (201, "me speaking.mp4", "VIDEO", 640)
    named = register(service, voice, name="voice").json()
    assert (named["name"], named["size"], named["durationSeconds"]) == ("voice", len(speech), pytest.approx(1.5))
    again = register(service, voice).json()
    assert again | {"url": ""} == named | {"url": ""}, "a client that did not see the answer asks again, and has a link of that second"
    assert service.http.get(named["url"]).content == speech
    assert {asset["id"] for asset in service.http.get("/v2/assets").json()["items"]} >= {answer.json()["id"], named["id"]}
    given = [{"type": "video", "assetId": answer.json()["id"]}, {"type": "audio", "url": named["url"]}]
    job = service.ended(service.http.post("/v2/generate", json={"model": "lipsync-2", "input": given}).json()["id"])
    assert job["status"] == "COMPLETED"
    late = put(voice, speech)
    assert (late.status_code, late.json()["code"]) == (409, "idempotency_conflict")


def test_upload_can_be_an_input_before_it_is_an_asset(service: Service, clip: Path, speech: bytes) -> None:
    film, voice = announced(service, clip.stat().st_size, "clip.mp4", "video/mp4"), announced(service, len(speech))
    put(film, clip.read_bytes(), "video/mp4")
    asked = {"model": "lipsync-2", "input": [{"type": "video", "url": film["url"]}, {"type": "audio", "url": voice["url"]}]}
    early = service.http.post("/v2/generate", json=asked)
    assert (early.status_code, early.json()["code"]) == (409, "not_ready")
    put(voice, speech)
    job = service.ended(service.http.post("/v2/generate", json=asked).json()["id"])
    assert job["status"] == "COMPLETED"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"size": 0}, "size"),
        ({"size": 5 << 30}, "larger than 4294967296 bytes"),
        ({"fileName": ""}, "fileName"),
        ({"contentType": "video"}, "contentType"),
        ({"kind": "VIDEO"}, "kind"),
    ],
)
def test_upload_that_cannot_be_is_refused_before_it_is_sent(change: dict[str, object], complaint: str, service: Service) -> None:
    answer = service.http.post("/v2/assets/upload", json={"fileName": "a.mp4", "contentType": "video/mp4", "size": 9, **change})
    assert answer.status_code in (400, 413) and complaint in answer.json()["message"]


def test_file_that_is_not_the_announced_one_is_refused_and_may_be_sent_again(service: Service, speech: bytes) -> None:
    link = announced(service, len(speech))
    for content, content_type, complaint in (
        (speech[:-1], "audio/wav", "has only"),
        (speech + b"x", "audio/wav", "has more"),
        (speech, "audio/mpeg", "announced as audio/wav"),
    ):
        answer = put(link, content, content_type)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request") and complaint in answer.json()["message"]
    early = register(service, link)
    assert (early.status_code, early.json()["code"], "PUT the file" in early.json()["message"]) == (409, "not_ready", True)
    assert put(link, bytes(len(speech))).status_code == put(link, speech).status_code == 200, "until it is registered, the last one counts"
    assert register(service, link).json()["type"] == "AUDIO"
    nonsense = announced(service, 9)
    assert put(nonsense, b"no media!").status_code == 200
    refused = register(service, nonsense)
    assert (refused.status_code, refused.json()["code"]) == (400, "unreadable_media")


def test_link_lets_nobody_do_anything_else(service: Service, speech: bytes) -> None:
    link = announced(service, len(speech))
    path = urlsplit(link["uploadUrl"]).path
    other = announced(service, len(speech))
    old = f"{service.url}{path}?{LinkSigner.load(service.data).query(path, -10)}"
    for url in (link["url"], link["uploadUrl"] + "0", other["uploadUrl"].replace(urlsplit(other["uploadUrl"]).path, path), old):
        answer = put({"uploadUrl": url}, speech)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert "expired" in put({"uploadUrl": old}, speech).json()["message"]
    assert httpx.delete(link["uploadUrl"]).status_code == 401
    put(link, speech)
    theirs = httpx.post(f"{service.url}/v2/assets", json={"url": link["url"]}, headers={"x-api-key": OTHER_KEY}, timeout=60)
    nowhere = service.http.post("/v2/assets", json={"url": link["url"].rpartition("/")[0] + "/6533643b-aceb-4c40-967e-d9ba9baac39e"})
    assert (theirs.status_code, theirs.json()) == (404, nowhere.json()), "another key's uploads are as if they were not there"
    assert register(service, link).status_code == 201


def test_upload_of_another_size_is_refused_before_it_is_sent(service: Service, speech: bytes) -> None:
    parts = urlsplit(announced(service, len(speech))["uploadUrl"])
    with socket.create_connection((parts.hostname, parts.port), timeout=20) as connection:
        head = f"PUT {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: audio/wav\r\nExpect: 100-continue\r\n"
        connection.sendall(f"{head}Content-Length: {len(speech) + 1}\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 400 ")


def test_hosts_that_share_a_folder_share_uploads(triton: LocalTriton, tmp_path: Path, clip: Path, speech: bytes) -> None:
    """With a jobs' database of each host's own here: uploads need none."""
    with serving(triton.grpc_address, tmp_path, LIPSYNC_HOST_NAME="one") as one:
        other_folder = tmp_path / "other"
        with serving(triton.grpc_address, other_folder, LIPSYNC_HOST_NAME="other", LIPSYNC_DATA=str(one.data)) as other:
            links = [announced(one, clip.stat().st_size, "clip.mp4", "video/mp4"), announced(other, len(speech))]
            sent = ((links[0], other, clip.read_bytes(), "video/mp4"), (links[1], one, speech, "audio/wav"))
            for link, host, content, content_type in sent:
                moved = {"uploadUrl": host.url + link["uploadUrl"].partition(str(urlsplit(link["uploadUrl"]).netloc))[2]}
                assert put(moved, content, content_type).status_code == 200
            film, voice = (register(one, link, type=kind).json()["id"] for link, kind in zip(links, ("VIDEO", "AUDIO"), strict=True))
            given = [{"type": "video", "assetId": film}, {"type": "audio", "assetId": voice}]
            job = other.http.post("/v2/generate", json={"model": "lipsync-2", "input": given}).json()
            assert other.ended(job["id"])["status"] == "COMPLETED"


def test_upload_that_is_broken_off_leaves_nothing(service: Service, speech: bytes) -> None:
    parts = urlsplit(announced(service, 64 << 20)["uploadUrl"])
    with socket.create_connection((parts.hostname, parts.port)) as connection:
        head = f"PUT {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: audio/wav\r\nContent-Length: {64 << 20}\r\n\r\n"
        connection.sendall(head.encode() + bytes(8 << 20))
        wait_until(lambda: any((service.data / "incoming").iterdir()), "it arrives")
    wait_until(lambda: not any((service.data / "incoming").iterdir()), "it is gone")


def test_upload_outlasts_a_kill_and_is_forgotten_when_nobody_registers_it(triton: LocalTriton, tmp_path: Path, speech: bytes) -> None:
    with pytest.raises(AssertionError), serving(triton.grpc_address, tmp_path) as service:  # which does not end as it should
        kept, forgotten = announced(service, len(speech)), announced(service, len(speech))
        put(kept, speech)
        put(forgotten, bytes(len(speech)))
        service.process.send_signal(signal.SIGKILL)
    uploads = Records(tmp_path / "data" / "uploads", Upload)
    old = uploads.get(forgotten["url"].rpartition("/")[2])
    uploads.save(old.model_copy(update={"created_at": datetime.now(UTC) - timedelta(days=2)}))
    long_ago = time.time() - 7200
    for path in (tmp_path / "data" / "inputs").glob("*/*"):
        os.utime(path, (long_ago, long_ago))
    with serving(triton.grpc_address, tmp_path) as service:
        moved = {"url": service.url + urlsplit(kept["url"]).path}
        assert old.path is not None
        wait_until(lambda: old.path is not None and not old.path.exists(), "the file nobody registered is gone")
        assert old.id not in [upload.id for upload in uploads.all()], "though no further upload is announced"
        assert register(service, moved).status_code == 201


def test_public_url_becomes_an_asset(service: Service, clip: Path, speech: bytes, tmp_path: Path) -> None:
    (tmp_path / "speech.wav").write_bytes(speech)
    with sharing(tmp_path) as site:
        answer = service.http.post("/v2/assets", json={"url": f"{site}/speech.wav"})
        assert (answer.status_code, answer.json()["name"], answer.json()["type"]) == (201, "speech.wav", "AUDIO")
        for url, code in ((f"{site}/none.wav", "missing_file"), ("ftp://host/a.wav", "url_refused"), ("http://10.0.0.1/a.wav", "url_refused")):
            refused = service.http.post("/v2/assets", json={"url": url})
            assert (refused.status_code, refused.json()["code"]) == (400, code)
    project = service.http.post("/v2/assets", json={"url": "https://example.org/a.wav", "projectId": "1"})
    assert project.status_code == 400 and "projectId" in project.json()["message"]


def test_asset_is_registered_with_all_that_syncso_documents(service: Service, clip: Path, speech: bytes, tmp_path: Path) -> None:
    """sync.so requires a type; what its guide and its own clients send is taken as it is."""
    film, voice = announced(service, clip.stat().st_size, "clip.mp4", "video/mp4"), announced(service, len(speech))
    put(film, clip.read_bytes(), "video/mp4")
    put(voice, speech)
    for link, wrong, lacking in ((film, "AUDIO", "no sound"), (voice, "VIDEO", "no picture"), (voice, "IMAGE", "no picture")):
        refused = register(service, link, type=wrong)
        assert (refused.status_code, refused.json()["code"]) == (400, "missing_stream") and lacking in refused.json()["message"]
    asset = register(service, film, type="VIDEO", name="me", visibility="USER").json()
    assert (asset["type"], asset["name"], asset["inputType"]) == ("VIDEO", "me", "UPLOAD")
    (tmp_path / "speech.wav").write_bytes(speech)
    with sharing(tmp_path) as site:
        fetched = service.http.post("/v2/assets", json={"url": f"{site}/speech.wav", "type": "AUDIO"}).json()
    assert (fetched["type"], fetched["inputType"]) == ("AUDIO", "URL")


def test_asset_is_renamed_and_nothing_else_of_it(service: Service, speech: bytes) -> None:
    asset = service.http.post("/v2/assets", files={"file": ("a.wav", speech)}).json()
    path = f"/v2/assets/{asset['id']}"
    renamed = service.http.patch(path, json={"name": "voice", "visibility": "ORGANIZATION"}).json()
    assert (renamed["name"], renamed["size"], renamed["createdAt"]) == ("voice", asset["size"], asset["createdAt"])
    assert renamed["updatedAt"] > asset["updatedAt"]
    assert service.http.get(path).json()["name"] == "voice"
    for body, part in (({"size": 1}, "size"), ({"name": ""}, "name"), ([], "an object")):
        refused = service.http.patch(path, json=body)
        assert refused.status_code == 400 and part in refused.json()["message"]
    assert httpx.patch(f"{service.url}{path}", json={"name": "mine"}, headers={"x-api-key": OTHER_KEY}).status_code == 404
    answer = service.http.get(f"{path}/download")
    assert answer.headers["content-type"].startswith("text/plain") and httpx.get(answer.text).content == speech
    ignored = service.http.get("/v2/assets", params={"projectId": "1"})
    assert (ignored.status_code, "projectId is not supported" in ignored.json()["message"]) == (400, True)


def test_fetching_an_asset_ends_with_the_connection(service: Service) -> None:
    with socket.create_server(("127.0.0.1", 0)) as endless:
        target = urlsplit(service.url)
        body = json.dumps({"url": f"http://127.0.0.1:{endless.getsockname()[1]}/film.mp4"}).encode()
        head = f"POST /v2/assets HTTP/1.1\r\nHost: {target.netloc}\r\nx-api-key: {KEY}\r\nContent-Type: application/json\r\n"
        with socket.create_connection((target.hostname, target.port)) as client:
            client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            connection, _ = endless.accept()
            connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {1 << 30}\r\n\r\n".encode() + bytes(1 << 20))
            wait_until(lambda: any((service.data / "incoming").iterdir()), "it arrives")
        gone = time.monotonic()
        with connection, pytest.raises(OSError):
            while time.monotonic() < gone + 20:
                connection.sendall(bytes(1 << 16))
                time.sleep(0.05)
    wait_until(lambda: not any((service.data / "incoming").iterdir()), "it is gone")
    assert time.monotonic() - gone < 5


def test_image_is_an_input_of_its_own_type(service: Service, clip: Path, speech: bytes) -> None:
    buffer = io.BytesIO()
    Image.fromarray(next(frames_of(clip)).to_ndarray(format="rgb24")).save(buffer, "png")
    picture = buffer.getvalue()
    link = announced(service, len(picture), "face.png", "image/png")
    put(link, picture, "image/png")
    asset = register(service, link).json()
    assert (asset["type"], asset["width"]) == ("IMAGE", 640)
    fields, files = {"model": "lipsync-2"}, {"image": picture, "audio": speech}
    sent = service.http.post("/v2/generate", data=fields, files=files).json()
    voice = announced(service, len(speech))
    put(voice, speech)
    named = [{"type": "image", "assetId": asset["id"]}, {"type": "audio", "url": voice["url"]}]
    asked = service.http.post("/v2/generate", json={**fields, "input": named}).json()
    for job in (sent, asked):
        assert service.ended(job["id"])["outputDuration"] == pytest.approx(1.52)
    both = service.http.post("/v2/generate", data=fields, files={**files, "video": clip.read_bytes()})
    assert (both.status_code, "send one of them" in both.json()["message"]) == (400, True)
