"""`/v2` with sync.so's official SDK, and what this service adds to it."""

import hashlib
import hmac
import io
import json
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import av
import httpx
import pytest
from sync.common import ActiveSpeaker, Audio, BatchResponse, ElevenLabs, GenerationOptions, GenerationSegment, Input, SegmentAudioInput, Tts, Video
from sync.common.errors import BadRequestError, NotFoundError, UnauthorizedError

from deploy.local.server import LocalTriton
from tests.clips import pictures_in, write_speech
from tests.e2e.service import KEY, OTHER_KEY, Service, frame_count, receiving, serving
from tests.programs import wait_until
from tests.web import sharing

SECRET = "whsec_test"


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory, clip: Path) -> Path:
    """A folder with clip.mp4 (1 s), speech.wav (1.5 s) and long.wav (40 s)."""
    folder = tmp_path_factory.mktemp("media")
    (folder / "clip.mp4").write_bytes(clip.read_bytes())
    write_speech(folder / "speech.wav", 1.5)
    write_speech(folder / "long.wav", 40.0)
    return folder


@pytest.fixture(scope="module")
def service(triton: LocalTriton, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    settings = {"LIPSYNC_FETCH_NETWORKS": "127.0.0.0/8", "LIPSYNC_WEBHOOK_SECRET": SECRET}
    with serving(triton.grpc_address, tmp_path_factory.mktemp("v2"), **settings) as running:
        yield running


@pytest.fixture(scope="module")
def site(media: Path) -> Iterator[str]:
    with sharing(media) as url:
        yield url


@pytest.fixture(scope="module")
def assets(service: Service, media: Path) -> dict[str, str]:
    """Ids of the media as assets."""
    ids = {}
    for path in media.iterdir():
        with path.open("rb") as file:
            ids[path.name] = str(service.http.post("/v2/assets", files={"file": file}).json()["id"])
    return ids


@pytest.fixture(scope="module")
def finished(service: Service, assets: dict[str, str]) -> str:
    """Id of a job that is completed."""
    generation = service.sdk().generations.create(model="lipsync-2", input=inputs(assets), output_file_name="my_video")
    assert service.ended(generation.id)["status"] == "COMPLETED"
    return generation.id


def inputs(assets: dict[str, str], audio: str = "speech.wav") -> list[Input]:
    return [Video(asset_id=assets["clip.mp4"]), Audio(asset_id=assets[audio])]


def test_files_sent_with_the_sdk_come_back_as_a_video(service: Service, media: Path) -> None:
    sdk = service.sdk()
    with (media / "clip.mp4").open("rb") as video, (media / "speech.wav").open("rb") as audio:
        generation = sdk.generations.create_with_files(model="lipsync-2", video=video, audio=audio)
    assert generation.status in ("PENDING", "PROCESSING")
    service.ended(generation.id)
    generation = sdk.generations.get(generation.id)
    assert (generation.status, generation.error, generation.model) == ("COMPLETED", None, "lipsync-2")
    assert generation.output_duration == pytest.approx(1.52)
    assert generation.output_url is not None
    with httpx.Client() as anonymous:
        answer = anonymous.get(generation.output_url)  # the link works without the key
        assert anonymous.get(generation.output_url.partition("?")[0]).status_code == 401
    assert answer.headers["content-type"] == "video/mp4"
    assert frame_count(answer.content) == 38


def test_form_may_hold_a_part_of_the_request_and_its_options_as_json(service: Service, media: Path, assets: dict[str, str]) -> None:
    fields = {
        "model": "lipsync-2",
        "input": json.dumps([{"type": "video", "assetId": assets["clip.mp4"]}]),
        "options": json.dumps({"sync_mode": "bounce", "crf": 35, "preset": "ultrafast"}),
        "externalId": "order-7",
    }
    with (media / "speech.wav").open("rb") as audio:
        job = service.http.post("/v2/generate", data=fields, files={"audio": audio}).json()
    assert job["options"] == {"sync_mode": "bounce", "crf": 35, "preset": "ultrafast"}
    assert [found["id"] for found in service.http.get("/v2/generations?externalId=order-7").json()] == [job["id"]]
    assert service.ended(job["id"])["status"] == "COMPLETED"


def test_requests_are_taken_as_the_javascript_sdk_writes_them(service: Service, media: Path, assets: dict[str, str]) -> None:
    """Each input of a form in a part of its own, and the lists of a query as JSON."""
    video, audio = {"type": "video", "assetId": assets["clip.mp4"]}, {"type": "audio", "assetId": assets["speech.wav"]}

    def sent(*parts: object, **files: bytes) -> httpx.Response:
        form = [("model", (None, "lipsync-2")), *(("input", (None, json.dumps(part))) for part in parts)]
        return service.http.post("/v2/generate", files=[*form, *((name, (name, content)) for name, content in files.items())])

    jobs = [sent(video, audio).json(), sent(audio, video=(media / "clip.mp4").read_bytes()).json()]
    assert [job["input"] for job in jobs] == [[video, audio], [audio]]
    ids = {job["id"] for job in jobs}
    for parameters in ({"ids": json.dumps(list(ids))}, {"ids": list(ids), "status": '["PENDING","PROCESSING","COMPLETED"]'}):
        assert {job["id"] for job in service.http.get("/v2/generations", params=parameters).json()} == ids
    assert not service.http.get("/v2/generations", params={"ids": json.dumps(list(ids)), "status": '["FAILED"]'}).json()
    kinds = service.http.get("/v2/assets", params={"types": '["VIDEO","IMAGE"]'}).json()["items"]
    assert {asset["type"] for asset in kinds} == {"VIDEO"}
    assert service.http.get("/v2/assets", params={"types": '["FILM"]'}).status_code == 400
    crowd = sent(*[audio] * 40)
    assert (crowd.status_code, "input more than 32 times" in crowd.json()["message"]) == (400, True)
    for job_id in ids:
        service.http.delete(f"/v2/generate/{job_id}")


def test_form_is_taken_as_sync_sos_comfyui_node_writes_it(service: Service, media: Path) -> None:
    """Inputs that only say that a file comes, options in fields of their own, and the end told by status and outputUrl."""
    files = {"video": (media / "clip.mp4").read_bytes(), "audio": (media / "long.wav").read_bytes()}
    fields = {"model": "lipsync-2", "sync_mode": "cut_off", "temperature": "0.8", "active_speaker": "false"}
    fields["input"] = json.dumps([{"type": "video"}, {"type": "audio"}])
    job = service.http.post("/v2/generate", data=fields, files=files, headers={"x-sync-source": "comfyui"}).raise_for_status().json()
    assert job["options"] == {"sync_mode": "cut_off", "temperature": 0.8, "active_speaker": False}
    done = service.ended(job["id"])
    assert (done["status"], done["error"], done["outputDuration"], done["progress_percent"]) == ("COMPLETED", None, pytest.approx(1.0), 100)
    assert frame_count(httpx.get(done["outputUrl"]).content) == 25
    occluded = fields | {"active_speaker_detection": json.dumps({"occlusion_detection_enabled": True})}
    for wrong, part in (
        (occluded, "face_occluder"),  # understood: this service has no such model
        (fields | {"options": json.dumps({"sync_mode": "loop"})}, "sync_mode in options, too"),
        (fields | {"temperature": "warm"}, "not valid JSON"),
        (fields | {"sync_mode": "sideways"}, "options.sync_mode"),
        (fields | {"input": json.dumps([{"type": "video"}, {"type": "video"}])}, "more than one video"),
    ):
        answer = service.http.post("/v2/generate", data=wrong, files=files)
        assert (answer.status_code, part in answer.json()["message"]) == (400, True), answer.json()


def test_file_takes_the_place_of_the_input_of_its_kind(service: Service, media: Path, assets: dict[str, str]) -> None:
    nowhere = {"url": "http://127.0.0.1:1/nowhere"}
    files = {"video": (media / "clip.mp4").read_bytes(), "audio": (media / "speech.wav").read_bytes()}

    def lasts_s(*inputs: object, **fields: str) -> float:
        form = {"model": "lipsync-2", "input": json.dumps(inputs)} | fields
        job = service.ended(service.http.post("/v2/generate", data=form, files=files).raise_for_status().json()["id"])
        assert (job["status"], job["error"]) == ("COMPLETED", None)
        return float(job["outputDuration"])

    assert lasts_s({"type": "video", **nowhere}, {"type": "audio", **nowhere}) == pytest.approx(1.52)
    segment = {"startTime": 0, "endTime": 0.4, "audioInput": {"ref_id": "mine"}}
    other = {"startTime": 0.6, "endTime": 0.8, "audioInput": {"refId": "other"}}
    said = {"type": "audio", "assetId": assets["speech.wav"], "ref_id": "other", "refId": "other"}
    parts = json.dumps([segment, other])
    assert lasts_s({"type": "video", "refId": "v"}, said, {"type": "audio", "refId": "mine"}, segments=parts) == pytest.approx(1.0)


def test_events_end_when_the_job_is_deleted(service: Service, assets: dict[str, str]) -> None:
    generation = service.sdk().generations.create(model="lipsync-2", input=inputs(assets, "long.wav"))
    with httpx.stream("GET", service.job(generation.id)["eventsUrl"], timeout=60) as events:
        lines = events.iter_lines()
        assert next(lines) == "retry: 2000"
        service.http.delete(f"/v2/generate/{generation.id}")
        assert [line for line in lines if line.startswith("data: ")]


def test_urls_are_fetched_and_the_webhook_is_signed_and_outlasts_a_receiver_that_is_down(service: Service, site: str) -> None:
    with receiving(status=503) as receiver:
        hook = f"{receiver.url}/hook"
        generation = service.sdk().generations.create(
            model="mouth-warp",
            input=[Video(url=f"{site}/clip.mp4"), Audio(url=f"{site}/speech.wav", ref_id="speech")],
            options=GenerationOptions(sync_mode="bounce"),
            webhook_url=hook,
        )
        wait_until(lambda: bool(receiver.requests), "the webhook is tried")
        port = int(receiver.url.rpartition(":")[2])
    time.sleep(1)  # nobody listens at all for a while
    with receiving(port) as receiver:
        wait_until(lambda: bool(receiver.requests), "the webhook is tried again")
        headers, body = receiver.requests[0]
        wait_until(lambda: len(receiver.requests) == 1, "and once it was taken, no more")
    assert service.job(generation.id)["status"] == "COMPLETED"
    stamp, _, signature = headers["sync-signature"].partition(",")
    moment = stamp.removeprefix("t=")
    assert signature == "v1=" + hmac.new(SECRET.encode(), f"{moment}.".encode() + body, hashlib.sha256).hexdigest()
    assert abs(time.time() - int(moment)) < 600
    told = json.loads(body)
    # sync.so's receivers sign what JSON.stringify makes of the parsed body: it must be the same bytes.
    assert json.dumps(told, separators=(",", ":"), ensure_ascii=False).encode() == body
    assert (told["id"], told["status"], told["webhookUrl"]) == (generation.id, "COMPLETED", hook)
    assert told["input"][1] == {"type": "audio", "url": f"{site}/speech.wav", "refId": "speech"}
    assert httpx.get(told["outputUrl"]).status_code == 200


def test_job_whose_url_cannot_be_fetched_fails_with_the_cause(service: Service, site: str, assets: dict[str, str]) -> None:
    generation = service.sdk().generations.create(
        model="lipsync-2", input=[Video(asset_id=assets["clip.mp4"]), Audio(url=f"{site}/nowhere.wav?token=secret")]
    )
    job = service.ended(generation.id)
    assert (job["status"], job["code"]) == ("FAILED", "missing_file")
    told = service.sdk().generations.get(generation.id)
    assert told.error_code == job["errorCode"] == "generation_input_validation_failed", "which clients of sync.so do not try again"
    assert f"{site}/nowhere.wav answered 404" in job["error"] and "secret" not in job["error"]


def test_wrong_keys_and_ids_are_the_sdks_own_errors(service: Service, finished: str) -> None:
    with pytest.raises(UnauthorizedError) as unauthorized:
        service.sdk("wrong").generations.list()
    assert unauthorized.value.status_code == 401
    answers = []
    for key, job_id in ((KEY, "nowhere"), (KEY, "6533643b-aceb-4c40-967e-d9ba9baac39e"), (OTHER_KEY, finished)):
        with pytest.raises(NotFoundError) as unknown:
            service.sdk(key).generations.get(job_id)
        answers.append(str(unknown.value))
    assert len(set(answers)) == 1, "another key's job counts as not there, to the letter"
    assert finished in [generation.id for generation in service.sdk().generations.list()]
    assert finished not in [generation.id for generation in service.sdk(OTHER_KEY).generations.list()]


SEGMENT = {"startTime": 0, "endTime": 1, "audioInput": {"refId": "a"}}


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (GenerationOptions(prompt="happy"), "prompt"),
        (GenerationOptions(model_mode="head"), "model_mode"),
        (GenerationOptions(occlusion_detection_enabled=True), "face_occluder"),
        (GenerationOptions(active_speaker_detection=ActiveSpeaker(auto_detect=True, coordinates=[10, 10])), "active_speaker_detection"),
        (GenerationOptions.construct(sync_mode="sideways"), "sync_mode"),
        (GenerationOptions.construct(sharpness=3), "options.sharpness: is not known here; leave it out"),
    ],
)
def test_option_that_is_not_there_is_refused_by_name(options: GenerationOptions, name: str, service: Service, assets: dict[str, str]) -> None:
    with pytest.raises(BadRequestError) as refused:
        service.sdk().generations.create(model="lipsync-2", input=inputs(assets), options=options)
    assert name in str(refused.value.body.message)
    assert (refused.value.status_code, refused.value.body.status_code) == (400, 400)


def test_speaker_by_a_picture_is_an_input_and_needs_a_model_that_knows_faces(
    service: Service, assets: dict[str, str], clip: Path, speech: Path
) -> None:
    """What such a job renders, where there is a model, is tested with jobs."""
    sent = [{"type": "video", "assetId": assets["clip.mp4"]}, {"type": "audio", "assetId": assets["speech.wav"]}]
    pictures: list[dict[str, str]] = [{"type": "speakerImage", "assetId": assets["clip.mp4"]}]
    for inputs, found in ((sent + pictures, "face_embedder"), (sent + pictures * 2, "more than one speakerImage")):
        answer = service.http.post("/v2/generate", json={"model": "lipsync-2", "input": inputs})
        assert (answer.status_code, found in answer.json()["message"]) == (400, True)
    files = {name: clip.read_bytes() for name in ("video", "audio", "speakerImage")} | {"audio": speech.read_bytes()}
    answer = service.http.post("/v2/generate", data={"model": "lipsync-2"}, files=files)
    assert (answer.status_code, "which speaker_image needs" in answer.json()["message"]) == (400, True)


def test_options_that_ask_for_what_is_done_anyway_are_taken(service: Service, assets: dict[str, str]) -> None:
    options = GenerationOptions(occlusion_detection_enabled=False, model_mode="lips", active_speaker_detection=ActiveSpeaker(auto_detect=False))
    generation = service.sdk().generations.create(model="lipsync-2", input=inputs(assets), options=options)
    service.http.delete(f"/v2/generate/{generation.id}")
    given = [{"type": "video", "assetId": assets["clip.mp4"]}, {"type": "audio", "assetId": assets["speech.wav"]}]
    answer = service.http.post("/v2/generate", json={"model": "lipsync-2", "input": given, "options": {"active_speaker_detection": True}})
    assert (answer.status_code, answer.json()["options"]) == (201, {"active_speaker_detection": True})
    service.http.delete(f"/v2/generate/{answer.json()['id']}")


def test_two_speakers_say_their_own_audio_inputs(service: Service, site: str, assets: dict[str, str], pair: Path) -> None:
    first = {"type": "audio", "assetId": assets["speech.wav"], "refId": "a", "speaker": "128,110"}
    other = {"type": "audio", "url": f"{site}/speech.wav", "refId": "b", "speaker": "390,110,3"}

    def asked() -> httpx.Response:
        fields = {"model": "lipsync-2", "input": json.dumps([first, other])}
        return service.http.post("/v2/generate", data=fields, files={"video": pair.read_bytes()})

    job = service.ended(asked().raise_for_status().json()["id"])
    assert (job["status"], job["error"], job["outputDuration"]) == ("COMPLETED", None, pytest.approx(1.52))
    del other["speaker"]
    refused = asked()
    assert (refused.status_code, "chosen by a point" in refused.json()["message"]) == (400, True)


def test_segments_of_the_sdk_have_their_audio_and_the_rest_stays(service: Service, assets: dict[str, str], media: Path) -> None:
    def segment(start_s: float, end_s: float, name: str, *crop_s: float, **more: object) -> GenerationSegment:
        start_time, end_time = crop_s or (None, None)
        return GenerationSegment(
            start_time=start_s, end_time=end_s, audio_input=SegmentAudioInput(ref_id=name, start_time=start_time, end_time=end_time), **more
        )

    given: list[Input] = [Video(asset_id=assets["clip.mp4"]), *(Audio(asset_id=assets[f"{name}.wav"], ref_id=name) for name in ("long", "speech"))]
    segments = [segment(0.6, 0.8, "long", 30, 30.2), segment(0.2, 0.4, "speech")]
    generation = service.sdk().generations.create(model="lipsync-2", input=given, segments=segments)
    assert generation.segments == segments
    done = service.ended(generation.id)
    assert (done["status"], done["error"], done["outputDuration"]) == ("COMPLETED", None, pytest.approx(1.0))
    assert done["progress"]["framesPassedThrough"] == 15

    options = GenerationOptions(sync_mode="remap")  # which the SDK has for all of them; one of them has its own
    segments = [segment(0.2, 0.4, "long", 30, 31), segment(0.6, 0.8, "long", 30, 31, optionsOverride={"sync_mode": "cut_off"})]
    generation = service.sdk().generations.create(model="lipsync-2", input=given[:2], options=options, segments=segments)
    done = service.ended(generation.id)
    assert (done["status"], done["error"], done["outputDuration"]) == ("COMPLETED", None, pytest.approx(1.8)), "the second one is cut"

    upload = {"refId": "audio"}
    fields = {"model": "lipsync-2", "segments": json.dumps([{"startTime": 0, "endTime": 0.4, "audioInput": upload}])}
    files = {"video": (media / "clip.mp4").read_bytes(), "audio": (media / "speech.wav").read_bytes()}
    job = service.ended(service.http.post("/v2/generate", data=fields, files=files).raise_for_status().json()["id"])
    assert (job["status"], job["progress"]["framesPassedThrough"]) == ("COMPLETED", 15)


def test_segment_may_say_by_itself_who_speaks(service: Service, pair: Path, media: Path) -> None:
    def who(x: float) -> dict[str, object]:
        return {"active_speaker_detection": {"frame_number": 0, "coordinates": [x, 110]}}

    def segment(start_s: float, end_s: float, **override: object) -> dict[str, object]:
        return {"startTime": start_s, "endTime": end_s, "audioInput": {"refId": "audio"}, "optionsOverride": override}

    segments = [segment(0, 0.2, **who(390)), segment(0.2, 0.4, **who(128)), segment(0.4, 0.6, **who(390))]
    fields = {
        "model": "lipsync-2",
        "segments": json.dumps(segments),
        "options": json.dumps({"codec": "ffv1", "container": "mkv", "voice_activity": False}),
    }
    files = {"video": pair.read_bytes(), "audio": (media / "speech.wav").read_bytes()}
    job = service.ended(service.http.post("/v2/generate", data=fields, files=files).raise_for_status().json()["id"])
    assert (job["status"], job["error"]) == ("COMPLETED", None)
    result = media / "two.mkv"
    result.write_bytes(httpx.get(job["outputUrl"]).content)
    changed = (pictures_in(result) != pictures_in(pair))[:, :256]
    result.unlink()
    left, right = (changed[:, :, half].any((1, 2)) for half in (slice(256), slice(256, None)))
    assert left[6:9].all() and not left[[*range(5), *range(10, 15)]].any()
    assert right[[*range(1, 4), *range(11, 14)]].all() and not right[5:10].any()


def test_requests_that_cannot_be_rendered_are_refused_with_a_sentence(service: Service, assets: dict[str, str]) -> None:
    video, audio = {"type": "video", "assetId": assets["clip.mp4"]}, {"type": "audio", "assetId": assets["speech.wav"]}
    good = {"model": "lipsync-2", "input": [video, audio]}
    named = good | {"input": [video, audio | {"refId": "a"}]}
    speak = Tts(provider=ElevenLabs(voice_id="v", script="hello")).dict(by_alias=True)
    cases: list[tuple[object, int, str]] = [
        (good | {"model": "react-1"}, 400, "mouth-warp"),
        (good | {"input": [video]}, 400, "no audio"),
        (good | {"input": [video, video]}, 400, "more than one video"),
        (good | {"input": [video, speak]}, 400, "speech"),
        (good | {"input": [video, {"type": "audio"}]}, 400, "either url or assetId"),
        (good | {"input": [video, audio | {"assetId": "6533643b-aceb-4c40-967e-d9ba9baac39e"}]}, 404, "asset"),
        (good | {"input": [audio | {"type": "video"}, audio]}, 400, "no video stream"),
        (good | {"input": [video, {"type": "audio", "url": "http://10.0.0.1/a.wav"}]}, 400, "public"),
        (good | {"input": [video, {"type": "audio", "url": "file:///etc/passwd"}]}, 400, "http"),
        (named | {"segments": [SEGMENT | {"audioInput": {"refId": "b"}}]}, 400, "refId of no audio input"),
        (named | {"segments": [SEGMENT | {"endTime": 0}]}, 400, "segments"),
        (named | {"segments": [SEGMENT | {"audioInput": {"refId": "a", "startTime": 1}}]}, 400, "both or none"),
        (named | {"segments": [SEGMENT | {"optionsOverride": {"temperature": 1}}]}, 400, "optionsOverride.temperature"),
        (named | {"segments": [SEGMENT | {"optionsOverride": {"active_speaker_detection": {"bounding_boxes": [[1, 2, 30, 40]]}}}]}, 400, "by boxes"),
        (named | {"input": [*named["input"], audio | {"refId": "b"}], "segments": [SEGMENT]}, 400, "Audio input 2 is in no segment"),
        (named | {"segments": [SEGMENT, SEGMENT]}, 400, "overlap"),
        (named | {"input": [video, *2 * [audio | {"refId": "a"}]], "segments": [SEGMENT]}, 400, "same refId"),
        (named | {"segments": [SEGMENT], "options": {"segments": [{"start": 0, "end": 1}]}}, 400, "say the same"),
        (named | {"segments": [SEGMENT | {"optionsOverride": {"sync_mode": "stretch"}}]}, 400, "sync_mode"),
        (named | {"segments": [SEGMENT], "options": {"sync_mode": "remap", "frame_rate": "keep"}}, 400, "leave one of them out"),
        (good | {"webhookUrl": "http://169.254.169.254/"}, 400, "public"),
        (good | {"webhook_url": "http://169.254.169.254/"}, 400, "public"),
        (good | {"webhook_url": "http://127.0.0.1:1/a", "webhookUrl": "http://127.0.0.1:1/b"}, 400, "webhook_url"),
        (good | {"outputFileName": "../x"}, 400, "outputFileName"),
        (good | {"projectId": "p"}, 400, "no projects"),
        (named | {"input": [video, audio | {"refId": "a", "ref_id": "b"}]}, 400, "ref_id"),
        ([], 400, "."),
    ]
    for body, status, part in cases:
        answer = service.http.post("/v2/generate", json=body)
        assert (answer.status_code, answer.json()["statusCode"]) == (status, status), body
        assert part in answer.json()["message"] and answer.json()["message"].endswith("."), body
    for content_type, status in (("text/plain", 415), ("application/json", 400)):
        assert service.http.post("/v2/generate", content=b"{", headers={"content-type": content_type}).status_code == status


def test_clients_of_todays_documents_find_their_names_and_paths(service: Service, finished: str, assets: dict[str, str]) -> None:
    job = service.job(finished)
    assert job["outputMediaUrl"] == job["outputUrl"] and httpx.get(job["outputMediaUrl"]).status_code == 200
    assert service.http.get(f"/v2/generations/{finished}").json()["id"] == finished
    link = service.http.get(f"/v2/generations/{finished}/download")
    assert link.headers["content-type"].startswith("text/plain") and frame_count(httpx.get(link.text).content) == 38
    waiting = service.sdk().generations.create(model="lipsync-2", input=inputs(assets, "long.wav")).id
    for answer, code in (
        (service.http.get(f"/v2/generations/{waiting}/download"), "not_ready"),
        (service.http.delete(f"/v2/generations/{waiting}"), "not_ready"),
        (httpx.get(f"{service.url}/v2/generations/{finished}", headers={"x-api-key": OTHER_KEY}), "unknown_job"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404 if code == "unknown_job" else 409, code)
    service.http.post(f"/v2/generate/{waiting}/cancel")
    gone = service.http.delete(f"/v2/generations/{waiting}")
    assert (gone.status_code, gone.json()["id"], gone.json()["status"], gone.json()["outputMediaUrl"]) == (200, waiting, "REJECTED", None)
    assert service.http.get(f"/v2/generate/{waiting}").status_code == 404


def test_waiting_for_a_job_answers_at_its_end_or_when_the_time_is_up(service: Service, finished: str, assets: dict[str, str]) -> None:
    def asked(job_id: str, **parameters: object) -> tuple[httpx.Response, float]:
        started = time.monotonic()
        answer = service.http.get(f"/v2/generate/{job_id}", params=parameters)  # type: ignore[arg-type]
        return answer, time.monotonic() - started

    answer, took_s = asked(finished, wait="true")
    assert (answer.json()["status"], answer.headers["x-sync-wait-mode"], "retry-after" in answer.headers) == ("COMPLETED", "long_poll", False)
    assert took_s < 1
    job_id = service.sdk().generations.create(model="lipsync-2", input=inputs(assets, "long.wav")).id
    answer, took_s = asked(job_id, wait="true", timeout=1)
    assert (answer.json()["status"] in ("PENDING", "PROCESSING"), answer.headers["retry-after"]) == (True, "2")
    assert answer.headers["x-sync-wait-timeout-seconds"] == "1" and 0.9 < took_s < 3
    answer, took_s = asked(job_id, timeout=10)
    assert took_s < 1 and "x-sync-wait-mode" not in answer.headers, "without wait nothing waits"
    ender = threading.Timer(1, lambda: httpx.post(f"{service.url}/v2/generate/{job_id}/cancel", headers={"x-api-key": KEY}))
    ender.start()
    answer, took_s = asked(job_id, wait="true", timeout=10)
    ender.join()
    assert answer.json()["status"] == "REJECTED" and took_s < 5
    assert "progress" in asked(job_id, include="progress")[0].json()
    for wrong in ({"wait": "true", "timeout": 11}, {"timeout": 0}, {"include": "everything"}):
        assert asked(job_id, **wrong)[0].status_code == 400
    service.http.delete(f"/v2/generate/{job_id}")


def test_list_is_paged_by_the_last_id_and_counted(service: Service, assets: dict[str, str], finished: str) -> None:
    body = {"model": "lipsync-2", "input": [{"type": "video", "assetId": assets["clip.mp4"]}, {"type": "audio", "assetId": assets["speech.wav"]}]}
    made = [service.http.post("/v2/generate", json=body).json()["id"] for _ in range(3)]
    ids: list[str] = []
    parameters = {"limit": "2"}
    while page := service.http.get("/v2/generations", params=parameters).json():
        ids += [job["id"] for job in page]
        parameters["cursor"] = ids[-1]
    assert ids[:3] == made[::-1] and finished in ids and len(ids) == len(set(ids)) == service.http.get("/v2/generations/count").json()["count"]
    assert service.http.get("/v2/generations/count", params={"status": "COMPLETED,FAILED"}).json()["count"] >= 1
    assert httpx.get(f"{service.url}/v2/generations/count", headers={"x-api-key": OTHER_KEY}).json() == {"count": 0}
    unknown = service.http.get("/v2/generations", params={"cursor": "6533643b-aceb-4c40-967e-d9ba9baac39e"})
    assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_job")
    for name in ("projectId", "source"):
        refused = service.http.get("/v2/generations", params={name: "x"})
        assert (refused.status_code, f"{name} is not supported" in refused.json()["message"]) == (400, True)
    for job_id in made:
        service.http.delete(f"/v2/generate/{job_id}")


def test_error_codes_are_told_to_anybody(service: Service) -> None:
    answer = httpx.get(f"{service.url}/v2/errors")
    told = {error["code"]: error for error in answer.json()}
    assert answer.status_code == 200 and {"no_face_found", "storage_failed", "unauthorized"} <= set(told)
    assert (told["no_face_found"]["statusCode"], told["no_face_found"]["retryable"]) == (400, False)
    assert told["queue_full"]["retryable"] and all(error["message"] and error["suggestion"] for error in told.values())
    refused = httpx.get(f"{service.url}/v2/models").json()
    assert refused["code"] == refused["errorCode"] in told
    unknown = service.http.get(f"/v2/generate/{uuid.uuid4()}").json()
    assert (unknown["code"], unknown["errorCode"]) == ("unknown_job", "generation_not_found") and {unknown["code"], unknown["errorCode"]} <= set(told)


def test_assets_are_found_by_many_ids_and_by_their_content(service: Service, media: Path) -> None:
    def upload(name: str) -> str:
        return str(service.http.post("/v2/assets", files={"file": (name, (media / name).read_bytes())}).json()["id"])

    def of_content(content: bytes, kind: str, key: str = KEY) -> object:
        query = {"contentSha256": hashlib.sha256(content).hexdigest(), "type": kind}
        asset = httpx.get(f"{service.url}/v2/assets/uploaded", params=query, headers={"x-api-key": key}).raise_for_status().json()["asset"]
        return asset and asset["id"]

    def of_ids(ids: object, key: str = KEY) -> list[tuple[str, str]]:
        answer = httpx.post(f"{service.url}/v2/assets/batch", json={"ids": ids}, headers={"x-api-key": key}).raise_for_status()
        return [(asset["id"], asset["name"]) for asset in answer.json()]

    film, older, newer = upload("clip.mp4"), upload("speech.wav"), upload("speech.wav")
    ids = [newer, film, "6533643b-aceb-4c40-967e-d9ba9baac39e", film, "no id"]
    assert of_ids(ids) == [(newer, "speech.wav"), (film, "clip.mp4")]
    assert of_ids(older) == [(older, "speech.wav")]
    assert of_ids(ids, OTHER_KEY) == []
    speech = (media / "speech.wav").read_bytes()
    assert of_content(speech, "AUDIO") == newer
    assert of_content(speech, "VIDEO") is of_content(speech, "AUDIO", OTHER_KEY) is of_content(b"never sent", "AUDIO") is None
    service.http.delete(f"/v2/assets/{newer}")
    assert of_content(speech, "AUDIO") == older
    wrong: list[dict[str, object]] = [{"ids": []}, {"ids": ["x"] * 101}, {}, {"ids": 3}]
    for body in wrong:
        assert service.http.post("/v2/assets/batch", json=body).status_code == 400
    for query in ({"contentSha256": "A" * 64, "type": "AUDIO"}, {"contentSha256": "a" * 64, "type": "FILM"}, {"type": "AUDIO"}):
        assert service.http.get("/v2/assets/uploaded", params=query).status_code == 400
    for asset in (film, older):
        service.http.delete(f"/v2/assets/{asset}")


def test_asset_is_uploaded_once_and_used_again(service: Service, assets: dict[str, str], media: Path) -> None:
    sdk = service.sdk()
    page = sdk.assets.list(types=["VIDEO"], sort_by="nameAsc")
    assert [asset.id for asset in page.items] == [assets["clip.mp4"]]
    asset = sdk.assets.get(assets["clip.mp4"])
    assert (asset.name, asset.type, asset.format, asset.width, asset.height) == ("clip.mp4", "VIDEO", "mp4", 640, 640)
    assert asset.duration_seconds == pytest.approx(1.0, abs=0.05)
    assert asset.url and httpx.get(asset.url).content == (media / "clip.mp4").read_bytes()
    first = sdk.assets.list(limit=2)
    assert (len(first.items), first.total_count) == (2, 3) and first.next_cursor
    assert len(sdk.assets.list(limit=2, cursor=first.next_cursor).items) == 1
    assert not service.sdk(OTHER_KEY).assets.list().items
    with pytest.raises(NotFoundError):
        service.sdk(OTHER_KEY).assets.get(asset.id)


def test_deleted_asset_is_gone(service: Service) -> None:
    wav = write_speech(service.data / "beep.wav", 0.2)
    asset = service.http.post("/v2/assets", files={"file": wav.read_bytes()}, data={"name": "beep"}).json()
    assert (asset["name"], asset["type"]) == ("beep", "AUDIO")
    assert service.http.delete(f"/v2/assets/{asset['id']}").status_code == 204
    assert service.http.get(f"/v2/assets/{asset['id']}").status_code == 404


def test_same_idempotency_key_is_the_same_job(service: Service, assets: dict[str, str]) -> None:
    body = {
        "model": "lipsync-2",
        "input": [{"type": "video", "assetId": assets["clip.mp4"]}, {"type": "audio", "assetId": assets["speech.wav"]}],
    }

    def post(key: str, **changes: object) -> httpx.Response:
        return service.http.post("/v2/generate", json=body | changes, headers={"idempotency-key": key})

    first, again = post("order-1"), post("order-1")
    assert first.status_code == again.status_code == 201
    assert first.json()["id"] == again.json()["id"]
    conflict = post("order-1", options={"crf": 30})
    assert (conflict.status_code, conflict.json()["code"]) == (409, "idempotency_conflict")
    assert post("not a key").status_code == 400
    service.http.delete(f"/v2/generate/{first.json()['id']}")


def test_result_can_be_read_in_ranges(service: Service, finished: str) -> None:
    path = f"/v2/generate/{finished}/result"
    whole = service.http.get(path)
    assert "filename*=UTF-8''my_video.mp4" in whole.headers["content-disposition"]
    assert int(service.http.head(path).headers["content-length"]) == len(whole.content)
    for asked, expected in (("bytes=0-99", whole.content[:100]), ("bytes=100-", whole.content[100:]), ("bytes=-7", whole.content[-7:])):
        part = service.http.get(path, headers={"range": asked})
        assert (part.status_code, part.content) == (206, expected)
    frames = service.http.get(path, headers={"range": "frames=0-99"})
    assert (frames.status_code, frames.content) == (200, whole.content), "RFC 9110 has a server ignore a unit it does not know"
    for asked, told in ((f"bytes={len(whole.content)}-", (416, "range_not_satisfiable")), ("bytes=1", (400, "invalid_request"))):
        refused = service.http.get(path, headers={"range": asked})
        assert (refused.status_code, refused.json()["code"]) == told
        assert refused.headers.get("content-range") == (f"bytes */{len(whole.content)}" if told[0] == 416 else None)


def test_events_tell_progress_until_the_end(service: Service, assets: dict[str, str]) -> None:
    sdk = service.sdk()
    generation = sdk.generations.create(model="lipsync-2", input=inputs(assets))
    kinds, jobs = [], []
    with httpx.stream("GET", service.job(generation.id)["eventsUrl"], timeout=60) as events:  # the link works without the key
        assert events.headers["content-type"].startswith("text/event-stream")
        for line in events.iter_lines():
            if line.startswith("event: "):
                kinds.append(line.removeprefix("event: "))
            if line.startswith("data: "):
                jobs.append(json.loads(line.removeprefix("data: ")))
    assert kinds[-1] == "completed" and set(kinds[:-1]) == {"progress"}
    percents = [job["progress"]["percent"] for job in jobs]
    assert percents == sorted(percents) and percents[-1] == 100 and len(percents) > 2
    assert jobs[-1]["outputUrl"] and jobs[-1]["progress"]["facesFound"] == 25


def test_cancelled_job_stops_and_says_so(service: Service, assets: dict[str, str]) -> None:
    sdk = service.sdk()
    generation = sdk.generations.create(model="lipsync-2", input=inputs(assets, "long.wav"))
    wait_until(lambda: service.job(generation.id)["progress"]["stage"] == "render", "it is rendered")
    assert service.http.get(f"/v2/generate/{generation.id}/result").status_code == 409
    assert service.http.post(f"/v2/generate/{generation.id}/cancel").status_code == 200
    job = service.ended(generation.id, timeout_s=20)
    assert (job["status"], job["code"], job["outputUrl"]) == ("REJECTED", "cancelled", None)
    assert service.http.post(f"/v2/generate/{generation.id}/cancel").json()["status"] == "REJECTED"
    assert generation.id in [found.id for found in sdk.generations.list(status=["REJECTED"])]
    assert service.http.delete(f"/v2/generate/{generation.id}").status_code == 204
    with pytest.raises(NotFoundError):
        sdk.generations.get(generation.id)


def test_video_can_be_watched_while_it_is_rendered(service: Service, assets: dict[str, str]) -> None:
    write_speech(service.data / "speech.wav", 5.0)
    speech = service.http.post("/v2/assets", files={"file": (service.data / "speech.wav").read_bytes()}).json()["id"]
    generation = service.sdk().generations.create(model="lipsync-2", input=[Video(asset_id=assets["clip.mp4"]), Audio(asset_id=speech)])
    playlist_url = service.job(generation.id)["playlistUrl"]

    def playlist() -> str:
        answer = httpx.get(playlist_url)
        assert answer.status_code in (200, 409)
        return answer.text if answer.status_code == 200 else ""

    wait_until(lambda: "#EXTINF" in playlist(), "the first segment can be watched")
    assert service.ended(generation.id)["status"] == "COMPLETED"
    lines = playlist().splitlines()
    assert httpx.head(playlist_url).headers["content-type"] == "application/vnd.apple.mpegurl"
    assert lines[0] == "#EXTM3U" and lines[-1] == "#EXT-X-ENDLIST"
    base = playlist_url.partition("playlist.m3u8")[0]
    initial = next(line for line in lines if line.startswith("#EXT-X-MAP:"))
    name, first_bytes = initial.split('"')[1], int(initial.split('"')[3].partition("@")[0])
    stream = httpx.get(base + name).content[:first_bytes]
    ranges = [line.removeprefix("#EXT-X-BYTERANGE:").split("@") for line in lines if line.startswith("#EXT-X-BYTERANGE:")]
    for segment, (length, start) in zip((line for line in lines if line.startswith("segments/")), ranges, strict=True):
        part = httpx.get(base + segment, headers={"range": f"bytes={start}-{int(start) + int(length) - 1}"})
        assert part.status_code == 206
        stream += part.content
    assert frame_count(stream) == 125
    assert sum(float(line[8:].rstrip(",")) for line in lines if line.startswith("#EXTINF:")) == pytest.approx(5.0, abs=0.01)


def test_result_is_of_the_format_asked_for(service: Service, assets: dict[str, str]) -> None:
    job = {
        "model": "lipsync-2",
        "input": [{"type": "video", "assetId": assets["clip.mp4"]}, {"type": "audio", "assetId": assets["speech.wav"]}],
        "options": {"codec": "prores", "sync_mode": "cut_off"},
        "outputFileName": "master",
    }
    created = service.http.post("/v2/generate", json=job).json()
    assert created["playlistUrl"] is None
    refused = service.http.get(f"/v2/generate/{created['id']}/playlist.m3u8")
    assert refused.status_code == 400 and "h264 in mp4" in refused.json()["message"]
    done = service.ended(created["id"])
    assert done["status"] == "COMPLETED"
    answer = httpx.get(done["outputUrl"])
    assert answer.headers["content-type"] == "video/quicktime" and answer.headers["content-disposition"].endswith("master.mov")
    with av.open(io.BytesIO(answer.content), "r") as file:
        assert [stream.codec_context.name for stream in file.streams] == ["prores", "pcm_s24le"]
    refused = service.http.post("/v2/generate", json={**job, "options": {"codec": "prores", "container": "webm"}})
    assert refused.status_code == 400 and "webm takes av1, vp9" in refused.json()["message"]


def test_asset_that_is_sent_as_a_batch_by_mistake_stays(service: Service, media: Path, assets: dict[str, str]) -> None:
    """Equal uploads are stored once."""
    content = (media / "speech.wav").read_bytes()
    with pytest.raises(BadRequestError):
        service.sdk().batch.create(input=("input.jsonl", content))
    assert service.http.get(f"/v2/assets/{assets['speech.wav']}/content").content == content


def test_batch_is_accepted_whole_or_not_at_all(service: Service, assets: dict[str, str]) -> None:
    sdk = service.sdk()
    payload = {
        "model": "lipsync-2",
        "input": [{"type": "video", "assetId": assets["clip.mp4"]}, {"type": "audio", "assetId": assets["speech.wav"]}],
    }
    lines = [{"request_id": f"r{number}", "endpoint": "/v2/generate", "payload": payload} for number in range(2)]
    file = "\n".join(json.dumps(line) for line in lines).encode()
    assert sdk.batch.create(input=("input.jsonl", file), dry_run=True).status == "VALIDATED"
    other_names = [{**line, "request_id": f"r\u2028{number}"} for number, line in enumerate(lines)]
    windows = "\r\n".join(json.dumps(line, ensure_ascii=False) for line in other_names).encode("utf-8-sig")
    assert sdk.batch.create(input=("input.jsonl", windows), dry_run=True).status == "VALIDATED"
    for damaged, part in (
        (file.replace(b"r1", b"r0"), "Line 2"),
        (file + b"\n{", "Line 3"),
        (file.replace(b"lipsync-2", b"react-1", 1), "Line 1"),
        (b"", "1 to 500"),
    ):
        with pytest.raises(BadRequestError) as refused:
            sdk.batch.create(input=("input.jsonl", damaged))
        assert part in str(refused.value.body.message)
    for rows, part in (([lines[0], lines[0]], "Line 2"), ([], "rows"), ([{}], "Line 1"), (lines * 251, "rows")):
        answer = service.http.post("/v2/batch", json={"rows": rows})
        assert (answer.status_code, part in answer.json()["message"]) == (400, True)
    assert service.http.post("/v2/batch", json={"rows": lines, "dry_run": True}).json() == {"status": "VALIDATED"}
    assert not sdk.batch.list()
    as_rows = service.http.post("/v2/batch", json={"rows": lines})
    assert (as_rows.status_code, as_rows.json()["metrics"]["total_generations"]) == (201, 2)
    wait_until(lambda: sdk.batch.get(as_rows.json()["id"]).status == "COMPLETED", "the batch of rows has ended", 90)
    with receiving() as receiver:
        batch = sdk.batch.create(input=("input.jsonl", file), webhook_url=f"{receiver.url}/batch")
        assert isinstance(batch, BatchResponse) and batch.metrics.total_generations == 2
        wait_until(lambda: sdk.batch.get(batch.id).status == "COMPLETED", "the batch has ended", 90)
        wait_until(lambda: bool(receiver.requests), "the webhook is called", 60)
        assert json.loads(receiver.requests[0][1])["metrics"]["success_count"] == 2
        assert "sync-signature" in receiver.requests[0][0]
    done = sdk.batch.get(batch.id)
    outcome = [json.loads(line) for line in httpx.get(done.output_url).text.splitlines()]
    assert [(line["request_id"], line["response"]["status"]) for line in outcome] == [("r0", "COMPLETED"), ("r1", "COMPLETED")]
    assert [found.id for found in sdk.batch.list(status="COMPLETED")] == [batch.id, as_rows.json()["id"]]
    assert not service.sdk(OTHER_KEY).batch.list()
    service.http.delete(f"/v2/generate/{outcome[0]['response']['id']}")
    gone = json.loads(httpx.get(done.output_url).text.splitlines()[0])["response"]
    assert (gone["code"], gone["errorCode"], gone["error_code"]) == ("unknown_job", "generation_not_found", "generation_not_found")


def test_receiver_of_a_batch_that_does_not_answer_does_not_hold_up_the_end(triton: LocalTriton, media: Path, tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        serving(triton.grpc_address, tmp_path, LIPSYNC_FETCH_NETWORKS="127.0.0.0/8") as service,
    ):
        video, audio = (
            service.http.post("/v2/assets", files={"file": (name, (media / name).read_bytes())}).json() for name in ("clip.mp4", "speech.wav")
        )
        payload = {"model": "lipsync-2", "input": [{"type": "video", "assetId": video["id"]}, {"type": "audio", "assetId": audio["id"]}]}
        line = json.dumps({"request_id": "r", "endpoint": "/v2/generate", "payload": payload}).encode()
        service.sdk().batch.create(input=("input.jsonl", line), webhook_url=f"http://127.0.0.1:{silent.getsockname()[1]}/batch")
        connection, _ = silent.accept()
        with connection:
            service.process.send_signal(signal.SIGTERM)
            assert service.process.wait(timeout=15) == 0


def test_cost_is_the_time_it_takes_here(service: Service, site: str, assets: dict[str, str], finished: str) -> None:
    asked: list[Input] = [Video(asset_id=assets["clip.mp4"]), Audio(url=f"{site}/long.wav")]
    (cost,) = service.sdk().generations.estimate_cost(model="lipsync-2", input=asked)
    assert cost.estimated_frame_count == 1000
    assert 0 < cost.estimated_generation_cost < 3600
    sent = [{"type": "video", "assetId": assets["clip.mp4"]}, {"type": "audio", "assetId": assets["long.wav"]}]
    picture = {"type": "speakerImage", "assetId": assets["clip.mp4"]}
    answer = service.http.post("/v2/analyze/cost", json={"model": "lipsync-2", "input": [*sent, picture]})
    assert (answer.status_code, answer.json()[0]["estimatedFrameCount"]) == (200, 1000), "a picture is no speech"
    parts = {"segments": [{"start": 0, "end": 0.5}]}
    for options, count in (({"sync_mode": "cut_off"}, 25), ({"sync_mode": "silence", "frame_rate": 50}, 2000), (parts, 25)):
        answer = service.http.post("/v2/analyze/cost", json={"model": "lipsync-2", "input": sent, "options": options})
        assert answer.json()[0]["estimatedFrameCount"] == count, options
    assert service.http.post("/v2/generations/estimate", json={"model": "lipsync-2", "input": sent}).json()[0]["estimatedFrameCount"] == 1000


def test_parameter_that_means_one_thing_is_given_once(service: Service) -> None:
    for path, name in (("generations", "externalId"), ("assets", "searchQuery"), ("batch", "status")):
        answer = service.http.get(f"/v2/{path}", params=[(name, "PENDING")] * 2)
        assert (answer.status_code, answer.json()["message"].split()[0]) == (400, name)
    assert service.http.get("/v2/generations", params=[("status", "PENDING")] * 2).status_code == 200


def test_what_is_spelled_wrongly_is_told_in_words(service: Service, assets: dict[str, str]) -> None:
    generate = {"model": "lipsync-2", "input": [{"type": "video", "assetId": assets["clip.mp4"]}], "outputFileName": "a b"}
    for answer, words in (
        (service.http.get("/v2/generations?status=PENDING,DONE"), "'PROCESSING'"),
        (service.http.get("/v2/assets?types=SOUND"), "'AUDIO'"),
        (service.http.get("/v2/assets?cursor=next"), "integer"),
        (service.http.get("/v2/assets/uploaded?contentSha256=ABC&type=VIDEO"), "64 of the digits 0-9 and a-f"),
        (service.http.post("/v2/generate", json=generate), "letters, digits, _ or -"),
        (service.http.post("/v2/assets/upload", json={"fileName": "a", "contentType": "video", "size": 1}), "as video/mp4"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
        assert words in answer.json()["message"] and "pattern" not in answer.json()["message"]
    assert service.http.get("/v2/generate/no such job").json()["code"] == "unknown_job"
    assert service.http.get("/v2/generations?ids=").json() == []


def test_path_may_end_in_a_slash(service: Service) -> None:
    assert service.http.get("/v2/models/").json() == service.http.get("/v2/models").json()
    assert service.http.post("/v2/generate/", json={}).status_code == 400
    assert service.http.post("/easy/submit/", json={}).json()["code"] == 10002


def test_models_name_the_installed_one_first(service: Service) -> None:
    names = [model.name for model in service.sdk().models.list()]
    assert names[0] == "mouth-warp" and "lipsync-2" in names


def test_metrics_have_tritons_own_numbers(service: Service, finished: str) -> None:
    text = service.http.get("/metrics").text
    numbers = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if not line.startswith("#")}
    assert numbers["lipsync_triton_up"] == 1
    assert numbers['lipsync_triton_inferences_total{model="lip_sync"}'] >= numbers['lipsync_triton_executions_total{model="lip_sync"}'] > 0
    assert 'lipsync_triton_inferences_total{model="voice_activity"}' in numbers, "optional roles count, too"
    assert numbers["lipsync_triton_restarts_total"] == 0
    assert numbers["lipsync_jobs_most_running_here"] >= 1
    assert httpx.get(f"{service.url}/metrics").status_code == 401
    assert httpx.get(f"{service.url}/metrics", headers={"authorization": f"Bearer {KEY}"}).status_code == 200
