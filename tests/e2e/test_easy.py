"""`/easy` as HeyGem / Duix.Avatar clients use it."""

import json
import shutil
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploy.local.server import LocalTriton
from tests.clips import make_clip, write_speech
from tests.e2e.service import KEY, OTHER_KEY, Service, frame_count, serving
from tests.programs import wait_until


@pytest.fixture(scope="module")
def service(triton: LocalTriton, tmp_path_factory: pytest.TempPathFactory, clip: Path) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("easy")
    with serving(triton.grpc_address, folder, key="") as running:
        (running.easy_data / "model.mp4").write_bytes(clip.read_bytes())
        write_speech(running.easy_data / "speech.wav", 1.0)
        (folder / "secret.mp4").write_bytes(clip.read_bytes())
        (running.easy_data / "link.mp4").symlink_to(folder / "secret.mp4")
        (running.easy_data / "text.mp4").write_text("not a video")
        yield running


def submit(service: Service, code: object, content_type: str = "application/json", **changes: Any) -> dict[str, Any]:
    """Submit as the desktop client does."""
    body = {"audio_url": "speech.wav", "video_url": "model.mp4", "code": code, "chaofen": 0, "watermark_switch": 0, "pn": 1, **changes}
    body = {name: value for name, value in body.items() if value is not None}
    answer = service.http.post("/easy/submit", content=json.dumps(body), headers={"content-type": content_type})
    assert answer.status_code == 200
    result: dict[str, Any] = answer.json()
    return result


def query(service: Service, code: str) -> dict[str, Any]:
    answer = service.http.get("/easy/query", params={"code": code})
    assert answer.status_code == 200
    result: dict[str, Any] = answer.json()
    return result


def finish(service: Service, code: str) -> dict[str, Any]:
    wait_until(lambda: query(service, code)["data"]["status"] != 1, f"task {code} has ended", 90)
    data: dict[str, Any] = query(service, code)["data"]
    return data


def test_desktop_client_gets_its_video(service: Service) -> None:
    """The client's own sequence: a poll before it has submitted, submit, polls, and the file the moment it is told."""
    assert query(service, "null") == {"code": 10004, "success": True, "data": {}, "msg": "任务不存在"}
    code = str(uuid.uuid4())
    assert submit(service, code) == {"code": 10000, "data": {}, "msg": 10000, "success": True}
    seen: list[int] = []
    place, sizes = service.easy_data / f"{code}-r.mp4", set[int]()

    def poll() -> bool:
        answer = query(service, code)
        assert (answer["code"], answer["success"], answer["msg"], answer["data"]["code"]) == (10000, True, "", code)
        seen.append(answer["data"]["progress"])
        if answer["data"]["status"] == 1:
            assert answer["data"]["msg"] and not answer["data"]["result"]
        if place.exists():
            sizes.add(place.stat().st_size)
        return bool(answer["data"]["status"] == 2)

    wait_until(poll, "the client is told that it is done", 90)
    data = query(service, code)["data"]
    assert data["result"] == f"/{code}-r.mp4" and data["progress"] == 100
    video = (service.easy_data / data["result"].removeprefix("/")).read_bytes()
    assert frame_count(video) == 25
    assert sizes == {len(video)}  # it was never there in part
    assert seen == sorted(seen) and all(isinstance(percent, int) for percent in seen)
    assert not list(service.easy_data.glob("*.partial"))


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_body_is_json_whatever_its_content_type(content_type: str, service: Service) -> None:
    assert submit(service, str(uuid.uuid4()), content_type, audio_url=None)["msg"] == "audio_url参数缺失"


def test_video_is_in_the_folder_though_nobody_asks(service: Service) -> None:
    code = str(uuid.uuid4())
    submit(service, code)
    wait_until((service.easy_data / f"{code}-r.mp4").exists, "the video appears", 90)
    assert frame_count((service.easy_data / f"{code}-r.mp4").read_bytes()) == 25


def test_missing_fields_are_named_in_the_clients_words(service: Service) -> None:
    for name in ("audio_url", "video_url", "code"):
        for value in (None, "", " "):
            changes: dict[str, Any] = {name: value}
            answer = submit(service, changes.pop("code", "c") if name == "code" else "c", **changes)
            assert answer == {"code": 10002, "data": {}, "msg": f"{name}参数缺失", "success": False}


def test_tasks_are_queued_while_the_service_is_busy_and_outcomes_stay_readable(service: Service) -> None:
    codes = [str(uuid.uuid4()) for _ in range(4)]
    assert {submit(service, code)["code"] for code in codes} == {10000}
    assert all(query(service, code)["code"] == 10000 for code in codes)
    for code in codes:
        assert finish(service, code)["status"] == 2
    for _ in range(2):
        assert [query(service, code)["data"]["status"] for code in codes] == [2, 2, 2, 2]


def test_same_code_with_the_same_parameters_is_the_same_task(service: Service, clip: Path) -> None:
    code = str(uuid.uuid4())
    gone = service.easy_data / "temp-image.mp4"
    gone.write_bytes(clip.read_bytes())
    assert submit(service, code, video_url=gone.name)["code"] == 10000
    gone.unlink()  # as the client does with what it has made of a picture, right after it has submitted it
    assert submit(service, code, video_url=gone.name, pn="1", digital_auth="0")["code"] == 10000
    other = submit(service, code)
    assert (other["code"], other["success"]) == (10002, False)
    assert finish(service, code)["status"] == 2
    assert submit(service, code, video_url=gone.name)["code"] == 10000


def test_code_of_a_task_that_has_ended_may_be_used_again(service: Service, clip: Path) -> None:
    """HeyGem forgets a task once it has told its end, and clients count on it: they name tasks by the avatar, or try one again that has failed."""
    code, folder = "the-avatar", service.easy_data
    write_speech(folder / "said.wav", 0.6)
    shutil.copy(folder / "model.mp4", folder / "again.mp4")

    def video() -> int:
        data = finish(service, code)
        assert data["status"] == 2, data
        return frame_count((folder / data["result"].removeprefix("/")).read_bytes())

    def asked(**changes: str) -> int:
        assert submit(service, code, **({"audio_url": "said.wav", "video_url": "again.mp4"} | changes))["code"] == 10000
        return int(query(service, code)["data"]["status"])

    assert asked() == 1 and video() == 15
    assert asked() == 2, "nothing is changed, so it is the task that is done"
    write_speech(folder / "said.wav", 1.2)
    assert asked() == 1 and video() == 30, "the file has the same name and says something else"
    assert asked(audio_url="speech.wav") == 1 and video() == 25
    failing = "failing"
    shutil.copy(folder / "text.mp4", folder / "later.mp4")
    assert submit(service, failing, video_url="later.mp4")["code"] == 10002
    make_clip(folder / "later.mp4")  # nobody is in it
    assert submit(service, failing, video_url="later.mp4")["code"] == 10000
    assert finish(service, failing)["status"] == 3
    shutil.copy(clip, folder / "later.mp4")
    assert submit(service, failing, video_url="later.mp4")["code"] == 10000
    assert finish(service, failing)["status"] == 2, "tried again after it had failed"


@pytest.mark.parametrize("name", ["chaofen", "watermark_switch", "digital_auth"])
@pytest.mark.parametrize("value", [1, "1", 2, "yes", True, [1]])
def test_switch_that_does_nothing_here_is_refused_and_not_ignored(name: str, value: object, service: Service) -> None:
    switches: dict[str, Any] = {name: value}
    answer = submit(service, str(uuid.uuid4()), **switches)
    assert (answer["code"], answer["success"]) == (10002, False)
    assert name in answer["msg"]


def test_only_files_of_the_shared_folder_are_read(service: Service) -> None:
    folder = service.easy_data
    for inside in ("model.mp4", str(folder / "model.mp4"), "/code/data/temp/model.mp4", "./model.mp4", "/model.mp4"):
        assert submit(service, str(uuid.uuid4()), video_url=inside)["code"] == 10000
    outside = ["../secret.mp4", str(folder.parent / "secret.mp4"), "link.mp4", "/etc/passwd", "/code/data/temp/../secret.mp4"]
    outside += ["nowhere.mp4", ".", "a\x00b"]
    for path in outside:
        answer = submit(service, str(uuid.uuid4()), video_url=path)
        assert (answer["code"], answer["success"]) == (10002, False), path
        assert "文件不存在" in answer["msg"]


def test_files_beside_the_shared_folder_are_read_as_heygems_container_has_them(triton: LocalTriton, clip: Path, tmp_path: Path) -> None:
    """Its whole folder face2face is /code/data, or .. from its temp, and many clients put their files there, or in folders of their own."""
    face2face = tmp_path / "face2face"
    (face2face / "jobs").mkdir(parents=True)
    with serving(triton.grpc_address, tmp_path, key="", LIPSYNC_EASY_DATA=str(face2face / "temp")) as service:
        shutil.copy(clip, face2face / "model.mp4")
        shutil.copy(clip, tmp_path / "secret.mp4")
        (face2face / "link.mp4").symlink_to(tmp_path / "secret.mp4")
        write_speech(face2face / "jobs" / "speech.wav", 0.5)
        paths = {"audio_url": "/code/data/jobs/speech.wav", "video_url": "/code/data/model.mp4"}
        assert submit(service, "beside", **paths)["code"] == 10000
        assert submit(service, "joined", audio_url="/code/data//jobs/speech.wav", video_url="/code/data//model.mp4")["code"] == 10000
        assert submit(service, "relative", audio_url="../jobs/speech.wav", video_url="../model.mp4")["code"] == 10000
        outside = ["/code/data/../secret.mp4", "/code/data/link.mp4", "/code/data//etc/passwd", str(face2face / "model.mp4")]
        for path in (*outside, "../../secret.mp4", "../link.mp4", "..//etc/passwd", "../jobs/../../secret.mp4", "..", "../"):
            refused = submit(service, str(uuid.uuid4()), **(paths | {"video_url": path}))
            assert refused["code"] == 10002 and "文件不存在" in refused["msg"], path
        for code in ("beside", "joined", "relative"):
            assert finish(service, code)["result"] == f"/{code}-r.mp4"
        assert (face2face / "temp" / "beside-r.mp4").is_file()


def test_bad_media_and_addresses_are_refused_at_once(service: Service) -> None:
    for changes in (
        {"video_url": "text.mp4"},
        {"audio_url": "model.mp4"},
        {"video_url": "http://127.0.0.1:1/a.mp4"},
        {"audio_url": "http://[::1]/a"},
    ):
        answer = submit(service, str(uuid.uuid4()), **changes)
        assert (answer["code"], answer["success"]) == (10002, False)
        assert answer["msg"].endswith(".")
    assert not list((service.data / "inputs").glob("*/text.mp4")), "gigabytes that are no video are not even copied"


@pytest.mark.parametrize("code", ["../x", "a/b", "a\\b", ".hidden", "x" * 200, "a\nb", "中" * 100, " x"])
def test_code_that_could_be_a_path_is_refused(code: str, service: Service) -> None:
    assert submit(service, code)["code"] == 10002
    assert query(service, code)["code"] == 10004


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.binary(max_size=100)
    | st.dictionaries(
        st.sampled_from(["audio_url", "video_url", "code", "pn", "chaofen", "watermark_switch", "digital_auth", "x"]), JSON, max_size=8
    ).map(lambda value: json.dumps(value).encode())
    | st.fixed_dictionaries({"audio_url": st.text(max_size=40), "video_url": st.text(max_size=40), "code": st.text(max_size=40), "pn": JSON}).map(
        lambda value: json.dumps(value).encode()
    ),
    code=st.text(st.characters(codec="utf-8"), max_size=60),
)
def test_whatever_is_sent_the_answer_is_in_heygems_shape(body: bytes, code: str, service: Service) -> None:
    answer = service.http.post("/easy/submit", content=body)
    assert answer.status_code == 200
    assert set(answer.json()) == {"code", "data", "msg", "success"}
    assert answer.json()["code"] == 10002 and answer.json()["success"] is False
    told = service.http.get("/easy/query", params={"code": code})
    assert told.status_code == 200 and told.json()["code"] == 10004


def test_query_without_a_code_is_an_unknown_task(service: Service) -> None:
    assert service.http.get("/easy/query").json()["code"] == 10004


def test_task_whose_video_cannot_be_delivered_is_kept_until_it_can(triton: LocalTriton, clip: Path, tmp_path: Path) -> None:
    with serving(triton.grpc_address, tmp_path, key="", LIPSYNC_MAX_ATTEMPTS="2") as service:
        folder = service.easy_data
        (folder / "model.mp4").write_bytes(clip.read_bytes())
        write_speech(folder / "speech.wav", 1.0)
        assert submit(service, "kept")["code"] == 10000
        shutil.rmtree(folder)
        folder.touch()
        wait_until(lambda: str(folder) in query(service, "kept")["data"]["msg"], "the client is told why its video is not there")
        assert (query(service, "kept")["code"], query(service, "kept")["data"]["status"]) == (10000, 1)
        refused = submit(service, "another")
        assert (refused["code"], str(folder) in refused["msg"]) == (9999, True)
        folder.unlink()
        data = finish(service, "kept")
        assert data["status"] == 2
        assert frame_count((folder / data["result"].removeprefix("/")).read_bytes()) == 25


def test_owners_do_not_get_in_each_others_way_and_a_full_queue_is_said_before_files_are_copied(clip: Path, tmp_path: Path) -> None:
    most = 12
    # No job begins to render, and only one begins at all.
    settings = {"LIPSYNC_MAX_QUEUED_JOBS": str(most), "LIPSYNC_MAX_CONCURRENT_RENDERS": "1", "LIPSYNC_STALL_S": "600"}
    with serving("127.0.0.1:1", tmp_path, **settings) as service:
        (service.easy_data / "model.mp4").write_bytes(clip.read_bytes())
        write_speech(service.easy_data / "speech.wav", 1.0)

        def submitted(code: str, key: str, **changes: str) -> int:
            body = {"audio_url": "speech.wav", "video_url": "model.mp4", "code": code, **changes}
            return int(httpx.post(f"{service.url}/easy/submit", json=body, headers={"x-api-key": key}).json()["code"])

        assert (submitted("a", KEY), submitted("a", OTHER_KEY), submitted("a", KEY)) == (10000, 10002, 10000)
        assert httpx.get(f"{service.url}/easy/query?code=a", headers={"x-api-key": OTHER_KEY}).json()["code"] == 10004
        with ThreadPoolExecutor(2) as clients:
            for number in range(8):
                answers = clients.map(submitted, [f"both-{number}"] * 2, [KEY, OTHER_KEY])
                assert sorted(answers) == [10000, 10002], "the result of one would take the place of the other's"
        filling = [submitted(f"more-{number}", KEY) for number in range(most)]
        assert filling[0] == 10000 and filling[-1] == 10001
        write_speech(service.easy_data / "long.wav", 9.0)
        assert submitted("late", KEY, audio_url="long.wav") == 10001
        files = {"video": clip.open("rb"), "audio": (service.easy_data / "long.wav").open("rb")}
        with files["video"], files["audio"]:
            refused = service.http.post("/v2/generate", data={"model": "lipsync-2"}, files=files)
        assert (refused.status_code, refused.json()["code"]) == (429, "queue_full")
        assert {path.name for path in (service.data / "inputs").glob("*/*")} == {"model.mp4", "speech.wav"}
