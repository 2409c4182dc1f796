"""`lipsync doctor` as a program."""

import json
from pathlib import Path

import pytest

from deploy.local.gpu import gpu_expected
from deploy.local.server import LocalTriton
from orchestrator import cli_doctor
from orchestrator.settings import Settings
from tests.programs import lipsync


@pytest.mark.usefixtures("nothing_left")
def test_doctor_starts_triton_tests_every_role_and_shows_where_it_runs() -> None:
    done = lipsync("doctor", "--device", "cpu", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert [check["ok"] for check in report["checks"]] == [True] * 7
    [nvenc] = [check["detail"] for check in report["checks"] if check["name"] == "NVENC"]
    assert "h264_nvenc" in nvenc and "av1_nvenc" in nvenc
    role = report["triton"]["roles"]["lip_sync"]
    assert (role["pack"], role["device"], role["execution_provider"], role["instance_count"]) == ("mouth-warp", "CPU", "CPUExecutionProvider", 2)


def test_doctor_prints_a_table_for_a_triton_elsewhere(triton: LocalTriton) -> None:
    done = lipsync("doctor", "--triton", triton.grpc_address)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "face_detector, lip_sync, voice_activity passed on Triton 2.51.0" in done.stdout
    for words in ("pack", "centerface", "mouth-warp", "licence", "CPUExecutionProvider", "ms an item, batch 1"):
        assert words in done.stdout


@pytest.mark.parametrize(
    ("data", "floor_bytes", "detail"),
    [
        ("new/deep", 0, "of space left"),
        ("file", 0, "cannot be written; check"),
        ("file/data", 0, "cannot be written; check"),
        ("new", 1 << 60, "GB of space left, less than 1152921504.6; free some"),
    ],
)
def test_doctor_looks_at_the_data_folder_and_makes_none(data: str, floor_bytes: int, detail: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    check = cli_doctor.check_data(Settings(data=tmp_path / data, free_space_floor_bytes=floor_bytes))
    assert (check.name, check.ok, detail in check.detail) == ("data folder", detail == "of space left", True), check.detail
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_doctor_fails_with_the_code_when_triton_is_not_there() -> None:
    done = lipsync("doctor", "--triton", "127.0.0.1:1", "--json")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert not report["ok"] and report["triton"] is None
    assert report["checks"][-1]["detail"].startswith("inference_unavailable: No Triton answers at 127.0.0.1:1")


@pytest.mark.skipif(gpu_expected() is not None, reason="this machine has a GPU")
@pytest.mark.parametrize("device", ["gpu", "tensorrt"])
def test_gpu_that_is_asked_for_and_not_there_is_an_error_and_no_fallback(device: str, clip: Path, speech: Path, tmp_path: Path) -> None:
    done = lipsync("doctor", "--device", device, "--json")
    assert done.returncode == 1
    [check] = [check for check in json.loads(done.stdout)["checks"] if not check["ok"]]
    assert check["name"] == "GPU" and "the NVIDIA driver is not there" in check["detail"]
    done = lipsync("render", "--device", device, "--video", clip, "--audio", speech, "-o", tmp_path / "out.mp4")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("gpu_unavailable: The GPU cannot be used: the NVIDIA driver is not there")
    assert not (tmp_path / "out.mp4").exists()
    done = lipsync("triton", "--device", device, "--grpc-port", "0", "--http-port", "0", "--metrics-port", "0")
    assert done.returncode == 1
    assert "gpu_unavailable" in done.stderr


def test_models_on_the_cpu_are_an_error_where_a_gpu_is_asked_for(triton: LocalTriton, clip: Path, speech: Path, tmp_path: Path) -> None:
    done = lipsync("doctor", "--triton", triton.grpc_address, "--device", "gpu")
    assert done.returncode == 1
    assert "gpu_unavailable: Model face_detector runs on the CPU though device gpu is asked for" in done.stdout
    done = lipsync("render", "--triton", triton.grpc_address, "--device", "gpu", "--video", clip, "--audio", speech, "-o", tmp_path / "out.mp4")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("gpu_unavailable: Model face_detector runs on the CPU though device gpu is asked for")
    assert not list(tmp_path.iterdir())
