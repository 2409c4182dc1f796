"""The page to try the service, in a real browser."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from deploy.local.server import LocalTriton
from tests.clips import SPEECH_RATE_HZ, write_speech, write_wav
from tests.debian import install
from tests.e2e.service import KEY, Service, serving
from tests.programs import wait_until

expect.set_options(timeout=60_000)  # a machine that stands still makes nothing false


def find_chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def service(triton: LocalTriton, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(triton.grpc_address, tmp_path_factory.mktemp("page")) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if find_chromium() is None:
        install("chromium")
    program = find_chromium()
    if program is None:
        pytest.skip("Chromium is not installed and cannot be; `apt-get install chromium` as root runs these tests")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield running
        running.close()


def open_page(browser: Browser, service: Service, locale: str) -> tuple[Page, list[str]]:
    """Open the page; what its console says in earnest is collected."""
    page, complaints = browser.new_page(locale=locale), list[str]()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if "Content Security Policy" in message.text else None)
    page.on(
        "request",
        lambda request: (
            None if request.url.startswith((service.url, f"blob:{service.url}", "data:")) else complaints.append(f"fetches {request.url}")
        ),
    )
    page.goto(service.url)
    return page, complaints


def choose(page: Page, video: Path, audio: Path) -> None:
    page.set_input_files("#video", video)
    page.set_input_files("#audio", audio)


def open_with_files(browser: Browser, service: Service, locale: str, video: Path, audio: Path) -> tuple[Page, list[str]]:
    """Open the page as somebody does who has given the key before, and choose files."""
    page, complaints = open_page(browser, service, locale)
    page.evaluate(f"sessionStorage.setItem('key', '{KEY}')")
    page.reload()
    choose(page, video, audio)
    return page, complaints


def test_visitor_renders_and_watches_a_video(browser: Browser, service: Service, clip: Path, speech: Path) -> None:
    page, complaints = open_page(browser, service, "en-GB")
    assert page.is_disabled("#send")
    choose(page, clip, speech)
    page.click("#send")
    page.wait_for_selector("#key", state="visible")
    assert "API key" in page.inner_text("#error")
    page.fill("#key", KEY)
    page.click("#send")
    expect(page.locator("#detail")).to_contain_text("frames", timeout=60_000)
    page.wait_for_selector("#result", state="visible", timeout=60_000)
    wait_until(lambda: bool(page.evaluate("document.querySelector('#result').readyState >= 2")), "the video can be played")
    assert page.evaluate("document.querySelector('#result').duration") == pytest.approx(2.48, abs=0.05)
    assert page.evaluate("document.querySelector('#result').videoWidth") == 640
    assert page.inner_text("#state") == "Done"
    assert page.evaluate("document.querySelector('#bar').value") == 100
    assert not page.is_visible("#cancel") and page.is_enabled("#send")
    assert httpx.get(service.url + page.get_attribute("#download", "href")).status_code == 200  # type: ignore[operator]
    assert not complaints
    page.close()


def test_visitor_is_told_why_the_mouth_does_not_move(browser: Browser, service: Service, clip: Path, tmp_path: Path) -> None:
    page, complaints = open_with_files(
        browser, service, "en-GB", clip, write_wav(tmp_path / "silence.wav", np.zeros(SPEECH_RATE_HZ, np.float32), SPEECH_RATE_HZ)
    )
    page.click("#send")
    expect(page.locator("#state")).to_contain_text("Done · Nobody speaks on the track, so the mouth stays at rest")
    assert service.http.get("/v2/generations").json()[0]["notes"][0].startswith("Nobody speaks on the track")
    assert not complaints
    page.close()


def test_visitor_cancels_in_chinese(browser: Browser, service: Service, clip: Path, tmp_path: Path) -> None:
    page, complaints = open_with_files(browser, service, "zh-CN", clip, write_speech(tmp_path / "long.wav", 40.0))
    assert page.inner_text("h1") == "唇形同步" and page.evaluate("document.documentElement.lang") == "zh"
    page.click("#send")
    expect(page.locator("#state")).to_contain_text("合成", timeout=60_000)
    page.reload()  # the job goes on, and so does what the page shows of it
    expect(page.locator("#state")).to_contain_text("合成", timeout=60_000)
    page.click("#cancel")
    expect(page.locator("#state")).to_have_text("已取消")
    page.click("#language")
    assert page.inner_text("#state") == "Cancelled"
    assert not complaints
    page.close()


def test_job_is_followed_and_cancelled_behind_a_proxy_that_answers_for_a_service_that_is_away(
    browser: Browser, service: Service, clip: Path, tmp_path: Path
) -> None:
    page, complaints = open_with_files(browser, service, "en-GB", clip, write_speech(tmp_path / "long.wav", 40.0))
    page.route("**/events?*", lambda route: route.fulfill(status=502))  # a browser asks no more for events after an error
    page.click("#send")
    expect(page.locator("#error")).to_contain_text("is lost")
    page.unroute("**/events?*")
    expect(page.locator("#error")).to_be_hidden()
    expect(page.locator("#state")).to_contain_text("Rendering")
    page.route("**/cancel", lambda route: route.abort(), times=1)
    page.click("#cancel")
    expect(page.locator("#error")).to_contain_text("nothing is cancelled")
    page.click("#cancel")
    expect(page.locator("#state")).to_have_text("Cancelled")
    assert page.is_hidden("#error")
    page.route("**/events?*", lambda route: route.fulfill(status=502))
    with page.expect_response(lambda response: response.url.endswith("/v2/generate")) as answer:
        page.click("#send")
    service.http.delete(f"/v2/generate/{answer.value.json()['id']}").raise_for_status()
    expect(page.locator("#error")).to_contain_text("The job is gone")
    assert page.is_hidden("#job") and page.is_hidden("#cancel") and page.is_enabled("#send")
    assert not complaints
    page.close()


def test_visitor_clicks_the_face_that_speaks(browser: Browser, service: Service, clip: Path, speech: Path) -> None:
    page, complaints = open_with_files(browser, service, "en-GB", clip, speech)
    page.click("summary")
    page.select_option("#speaker", label="the face I click")
    page.select_option("#sync_mode", "cut_off")
    page.click("#send")
    assert "Click the face" in page.inner_text("#error")
    page.set_input_files("#video", {"name": "raw.mov", "mimeType": "video/quicktime", "buffer": b"not for browsers"})
    expect(page.locator("#point-hint")).to_contain_text("cannot show")
    page.set_input_files("#video", clip)
    expect(page.locator("#point-hint")).to_contain_text("Click the face")
    expect(page.locator("#preview-video")).to_be_visible()
    page.locator("#picture").click()
    assert page.is_visible("#mark")
    page.fill("#moment", "0.4")
    assert page.is_hidden("#mark"), "another picture shows, maybe without that face"
    wait_until(lambda: not page.evaluate("document.querySelector('#preview-video').seeking"), "the picture of that time is there")
    page.focus("#picture")
    for key in ("ArrowUp", "ArrowUp", "ArrowRight"):
        page.keyboard.press(key)
    assert page.evaluate("[document.querySelector('#mark').style.left, document.querySelector('#mark').style.top]") == ["52%", "48%"]
    box = page.locator("#picture").bounding_box()
    assert box is not None
    page.locator("#picture").click(position={"x": 0.45 * box["width"], "y": 0.4 * box["height"]})
    with page.expect_response(lambda response: response.url.endswith("/v2/generate")) as answer:
        page.click("#send")
    generation = answer.value.json()
    assert generation["options"]["sync_mode"] == "cut_off"
    x, y, time = generation["options"]["speaker"].split(",")
    assert abs(int(x) - 288) <= 2 and abs(int(y) - 256) <= 2, "px of the picture, whatever its size on the page"
    assert time == "0.400s"
    expect(page.locator("#state")).to_have_text("Done", timeout=60_000)
    assert not complaints
    page.close()


def test_visitor_has_speech_in_parts_of_the_video_alone(browser: Browser, service: Service, clip: Path, speech: Path) -> None:
    page, complaints = open_with_files(browser, service, "en-GB", clip, speech)
    page.click("summary")
    assert page.is_hidden("#preview") and page.is_visible("#sync_mode") and page.is_hidden("#parts-hint")
    for _ in range(3):
        page.click("#add-part")
    assert page.is_visible("#preview-video") and page.is_hidden("#sync_mode") and page.is_visible("#parts-hint")
    assert page.evaluate("document.querySelector('#preview-video').controls"), "which shows the times"
    page.locator(".part").nth(1).get_by_role("button", name="Remove").click()
    assert page.locator(".part legend").all_inner_texts() == ["Part 1", "Part 2"]
    first, second = page.locator(".part").nth(0), page.locator(".part").nth(1)

    def fill(part: Locator, *times: str) -> None:
        for label, time in zip(("the part begins", "the part ends", "the speech it begins", "the speech it ends"), times, strict=False):
            part.get_by_label(f"{label}", exact=False).fill(time)

    fill(first, "0:00.2", "0.4")
    for times in (
        ("", ""),
        ("0.6", ""),
        ("0.8", "0.6"),
        ("a", "1"),
        ("0.6", "0.8", "1", "1"),
        ("0.6", "0.8", "x"),
        ("0.6", "1:0:0:0"),
        ("0.6", "-1"),
    ):
        fill(second, *times, *[""] * (4 - len(times)))
        page.click("#send")
        assert page.inner_text("#error").startswith("Part 2 needs times"), times
    fill(second, "0,6", " 0:00:00.8 ", "1", "1.5")
    second.get_by_label("Where lengths differ").select_option(label="the video's speed follows")
    with page.expect_response(lambda response: response.url.endswith("/v2/generate")) as answer:
        page.click("#send")
    options = answer.value.json()["options"]
    assert options == {
        "segments": [
            {"start": 0.2, "end": 0.4, "audio_start": 0, "audio_end": None, "sync_mode": None},
            {"start": 0.6, "end": 0.8, "audio_start": 1, "audio_end": 1.5, "sync_mode": "remap"},
        ]
    }
    expect(page.locator("#state")).to_have_text("Done · The speech of the segment from 0.2 s on is 2.30 s longer than that; it was cut.")
    assert service.job(answer.value.json()["id"])["outputDuration"] == pytest.approx(1.28, abs=0.05)
    page.click("#language")
    assert page.locator(".part legend").all_inner_texts() == ["第 1 段", "第 2 段"] and page.inner_text("#add-part") == "再加一段"
    for part in (second, first):
        part.get_by_role("button", name="删除").click()
    assert page.is_visible("#sync_mode") and page.is_hidden("#preview") and page.inner_text("#add-part") == "只在视频的一段中说话"
    page.set_viewport_size({"width": 360, "height": 800})
    page.click("#add-part")
    assert page.evaluate("document.documentElement.scrollWidth") == 360, "nothing sticks out of a telephone's screen"
    assert not complaints
    page.close()


def test_speaker_in_a_picture_is_offered_where_a_model_knows_faces(browser: Browser, service: Service, clip: Path, speech: Path) -> None:
    page, complaints = open_page(browser, service, "en-GB")
    page.wait_for_load_state("networkidle")
    assert page.locator("#by-image").is_hidden()
    page.route("**/readyz", lambda route: route.fulfill(json={"roles": {"face_embedder": {}}}))
    page.evaluate(f"sessionStorage.setItem('key', '{KEY}')")
    page.reload()
    choose(page, clip, speech)
    page.click("summary")
    expect(page.locator("#by-image")).not_to_have_attribute("hidden", "")
    page.select_option("#speaker", label="somebody in a picture")
    page.click("#send")
    assert "Choose a picture" in page.inner_text("#error")
    page.set_input_files("#speaker-image", clip)
    page.click("#send")
    expect(page.locator("#error")).to_contain_text("which speaker_image needs")  # by the service, which has no such model in truth
    assert not complaints
    page.close()


def test_error_is_shown_as_a_sentence(browser: Browser, service: Service, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("not a sound")
    page, _ = open_with_files(browser, service, "en-GB", clip, tmp_path / "text.wav")
    page.click("#send")
    page.wait_for_selector("#error", state="visible")
    assert "cannot be read" in page.inner_text("#error")
    assert page.is_enabled("#send")
    page.route("**/v2/generate", lambda route: route.abort(), times=1)
    page.click("#send")
    expect(page.locator("#error")).to_contain_text("The upload broke off")
    page.route("**/v2/generate", lambda route: route.fulfill(status=429, json={"message": "As many jobs wait."}), times=1)
    page.route("**/v2/generate", lambda route: route.abort(), times=1)  # the last one comes first
    page.click("#send")
    expect(page.locator("#error")).to_have_text("As many jobs wait.")
    page.route("**/v2/models", lambda route: route.abort(), times=1)
    page.click("#send")
    expect(page.locator("#error")).to_contain_text("does not answer")
    assert page.is_enabled("#send")
    page.close()


def test_api_can_be_read_without_fetching_anything_from_elsewhere(browser: Browser, service: Service) -> None:
    page, complaints = open_page(browser, service, "en-GB")
    page.goto(f"{service.url}/docs")
    expect(page.locator("#operations-v2-generate_v2_generate_post")).to_be_visible()
    assert not complaints
    page.close()


def test_page_may_run_its_own_script_and_nothing_else(service: Service) -> None:
    answer = httpx.get(service.url)
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy and policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "http" not in answer.text.partition("<body>")[0].replace(service.url, "")
