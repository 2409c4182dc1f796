"""`lipsync tune`: measured on the real Triton, written where it is read."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from deploy.local.gpu import Gpu, GpuError, gpu_expected
from deploy.local.server import LocalTriton
from orchestrator import cli_doctor, embedded, tuning
from orchestrator.cli_doctor import Check
from orchestrator.cores import available_cores
from orchestrator.embedded import device_config, start_embedded, wanted_device
from orchestrator.errors import GpuUnavailable, InferenceUnavailable
from orchestrator.inference.client import TritonClient
from orchestrator.inference.contract import LIP_SYNC, describe_model
from orchestrator.models.config import Batching, batching_of, with_batching
from orchestrator.pipeline.frames import REQUESTS_IN_FLIGHT
from orchestrator.settings import Settings
from orchestrator.tuned import TUNED_FILE, Tuned, read_tuned
from orchestrator.tuning import (
    ModelTrial,
    RenderTrial,
    Trial,
    apply,
    batchings,
    best_count,
    best_decoder,
    best_model,
    best_threads,
    is_worth_more,
    tune,
)
from tests.programs import lipsync


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "QUEUE_DELAYS_US", (700,))
    monkeypatch.setattr(tuning, "MAX_RENDERS", 1)
    monkeypatch.setattr(tuning, "_CLIP_S", 1)
    monkeypatch.setattr(tuning, "_RUNS", 1)


@pytest.mark.usefixtures("quick")
def test_choice_is_measured_on_a_copy_and_written_only_when_applied(tmp_path: Path) -> None:
    repository = tmp_path / "models"
    shutil.copytree(Settings().model_repository, repository)
    settings = Settings(model_repository=repository, data=tmp_path / "data", device="cpu")
    config = repository / "lip_sync" / "configs" / "cpu.pbtxt"
    before = config.read_text()
    seen: list[Trial] = []
    tuned = tune(settings, 0.2, seen.append)
    assert config.read_text() == before and not settings.data.exists()
    assert seen == [*tuned.model_trials, *tuned.render_trials]
    assert {trial.batching.preferred_size for trial in tuned.model_trials} == {None, 2, 4}
    for trial in tuned.model_trials:
        size = trial.batching.preferred_size or 8
        assert size <= trial.mean_batch <= min(8, REQUESTS_IN_FLIGHT * size), "requests of that size were sent"
    assert tuned.model is not None and tuned.model.frames_per_s > 0 and tuned.model.batching.queue_delay_us == 700
    tuned = replace(tuned, model=replace(tuned.model, batching=Batching(3, 700, 4)))
    assert set(apply(settings, tuned)) == {config, settings.data / TUNED_FILE}
    was = batching_of(before)
    assert was is not None and with_batching(config.read_text(), was) == before, "nothing else was changed"
    assert read_tuned(settings.data) == tuned.chosen
    assert len(json.loads((settings.data / TUNED_FILE).read_text())["models"]) == len(tuned.model_trials)
    with start_embedded(settings) as server, TritonClient(server.grpc_address) as client:
        description = describe_model(client, LIP_SYNC)
        assert (description.preferred_batch_size, description.request_batch_size, description.max_batch_size) == (4, 4, 8)


@pytest.mark.usefixtures("quick")
def test_on_a_triton_that_runs_by_itself_only_renders_are_measured(triton: LocalTriton, tmp_path: Path) -> None:
    settings = Settings(triton=triton.grpc_address, data=tmp_path / "data", triton_home=tmp_path / "none", model_repository=tmp_path / "none")
    tuned = tune(settings, 0.2)
    assert tuned.model is None and tuned.model_trials == () and tuned.chosen.device is None
    assert {trial.count for trial in tuned.render_trials} == {1} and all(trial.frames_per_s > 0 for trial in tuned.render_trials)
    assert apply(settings, tuned) == [settings.data / TUNED_FILE]
    assert read_tuned(settings.data) == tuned.chosen
    with pytest.raises(InferenceUnavailable):
        tune(settings.model_copy(update={"triton": "127.0.0.1:1"}), 0.2)


def test_choice_that_cannot_be_written_is_said_before_anything_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIPSYNC_DATA", "/proc/nothing")
    done = lipsync("tune", "--triton", "127.0.0.1:1")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("storage_failed: The choice cannot be written to /proc/nothing ")
    monkeypatch.setenv("LIPSYNC_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("LIPSYNC_MODEL_REPOSITORY", str(tmp_path))
    assert lipsync("tune").stderr.startswith("contract_mismatch: ")


@pytest.mark.usefixtures("quick")
@pytest.mark.skipif(gpu_expected() is not None, reason="this machine has a GPU")
def test_tensorrt_that_does_not_take_the_models_is_left_out_where_nobody_asked_for_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a GPU it does not; here it is the CPU that it comes second to."""
    monkeypatch.setattr(tuning, "batchings", lambda *_: [lambda best: iter([best])])
    trials = tuning._try_devices(Settings(), tmp_path, ["cpu", "tensorrt"], 0.2, lambda trial: None)
    assert {trial.device for trial in trials} == {"cpu"}
    assert "tensorrt is left out: The embedded Triton did not start on tensorrt with 1 instances, batches of any size, 700 us." in caplog.text
    with pytest.raises(GpuUnavailable, match="no GPUs are available"):
        tuning._try_devices(Settings(), tmp_path, ["tensorrt"], 0.2, lambda trial: None)


def test_fastest_is_chosen_and_what_is_as_fast_with_less() -> None:
    def trial(frames_per_s: float, *batching: int, device: str = "gpu") -> ModelTrial:
        return ModelTrial("tensorrt" if device == "tensorrt" else "gpu", Batching(*batching), frames_per_s, 8)

    trials = [trial(100, 2, 0), trial(99, 2, 500), trial(102, 4, 0), trial(90, 4, 500), trial(101, 2, 0, 4)]
    assert best_model(trials) == trials[0]
    assert best_model([*trials, trial(120, 8, 500, 4)]) == trial(120, 8, 500, 4)
    assert best_model([*trials, trial(104, 1, 0, device="tensorrt")]) == trials[4], "CUDA where TensorRT is hardly faster"
    assert best_model([*trials, trial(200, 1, 0, device="tensorrt")]) == trial(200, 1, 0, device="tensorrt")
    assert best_model([]) is None


def test_one_thing_is_tried_after_the_other_with_the_best_of_those_before() -> None:
    instances, sizes, delays = batchings("gpu", 32, 16)
    assert list(instances(Batching(2, 0))) == [Batching(2, 0), Batching(3, 0), Batching(4, 0)]
    assert list(sizes(Batching(3, 0))) == [Batching(3, 0, 16), Batching(3, 0, 8)], "the largest is what goes without saying"
    assert list(delays(Batching(3, 0, 8))) == [Batching(3, 500, 8), Batching(3, 2000, 8)]
    assert list(batchings("tensorrt", 32, 16)[0](Batching(1, 0))) == [Batching(1, 0)]
    assert [list(choices(Batching(2, 0)))[-1] for choices in batchings("cpu", 8, 16)[:2]] == [Batching(16, 0), Batching(2, 0, 2)]


def test_encoder_gets_the_fewest_threads_that_are_as_fast() -> None:
    alone = [RenderTrial(16, 1, 99), RenderTrial(8, 1, 101), RenderTrial(4, 1, 100), RenderTrial(2, 1, 60)]
    assert best_threads(alone) == alone[2]


def test_renders_are_added_while_that_makes_the_host_faster() -> None:
    rising = [RenderTrial(2, 1, 50), RenderTrial(2, 2, 80), RenderTrial(2, 4, 100)]
    assert is_worth_more(rising[:1]) and is_worth_more(rising)
    flat = [*rising, RenderTrial(2, 8, 101)]
    assert not is_worth_more(flat)
    assert best_count(flat) == 4
    assert best_count([RenderTrial(2, 1, 50), RenderTrial(2, 2, 49)]) == 2, "a short job need not wait for a long one"


def test_nvdec_is_taken_where_it_makes_the_host_faster() -> None:
    software = RenderTrial(4, 4, 100)
    assert best_decoder(software, RenderTrial(4, 4, 102, "nvdec")) == "software"
    assert best_decoder(software, RenderTrial(4, 4, 110, "nvdec")) == "nvdec"


@pytest.mark.usefixtures("quick")
def test_nvdec_is_measured_where_it_works(triton: LocalTriton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine where it does, which this one is made to look like: software decodes."""
    monkeypatch.setattr(tuning, "nvdec_problem", lambda: None)
    settings = Settings(triton=triton.grpc_address, data=tmp_path / "data")
    tuned = tune(settings, 0.2)
    software, nvdec = tuned.render_trials[-2:]
    assert (software.decoder, nvdec.decoder) == ("software", "nvdec") and software.count == nvdec.count == tuned.chosen.concurrent_renders
    assert tuned.chosen.decoder == best_decoder(software, nvdec)
    apply(settings, replace(tuned, chosen=tuned.chosen.model_copy(update={"decoder": "nvdec"})))
    stored = read_tuned(settings.data)
    assert stored is not None and stored.decoder == "nvdec"


def test_configuration_without_batching_is_left_alone() -> None:
    assert batching_of('name: "lip_sync"\nplatform: "ensemble"\n') is None
    with pytest.raises(ValueError, match="instance group"):
        with_batching("", Batching(2, 0))


def test_tensorrt_that_was_chosen_is_what_auto_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine with a GPU, which this one is made to look like."""
    asked: list[bool] = []
    gpu_is_there = True

    def check_gpu(*_: object, tensorrt: bool) -> None:
        asked.append(tensorrt)
        if not gpu_is_there:
            raise GpuError("The driver is not there.")
        if tensorrt and len(asked) > 2:
            raise GpuError("The libraries of TensorRT are not there.")

    for module in (embedded, tuning):
        monkeypatch.setattr(module, "gpu_expected", lambda: "/dev/nvidiactl")
    monkeypatch.setattr(embedded, "open_home", lambda _: SimpleNamespace(python=Path("python"), environment=dict))
    monkeypatch.setattr(embedded, "check_gpu", check_gpu)
    settings = Settings(data=tmp_path)
    assert device_config(settings) is None
    chosen = Tuned(cores=available_cores(), device="tensorrt", encoder_threads=1, concurrent_renders=2)
    (tmp_path / TUNED_FILE).write_text(chosen.model_dump_json())
    assert device_config(settings) == "tensorrt" and asked == [False, True]
    assert device_config(settings.model_copy(update={"device": "gpu"})) is None, "a setting wins"
    assert tuning._devices(settings.model_copy(update={"device": "gpu"})) == ["gpu"]
    assert tuning._devices(settings) == ["gpu"], "what was chosen and is gone does not keep from choosing again"
    gpu_is_there = False
    with pytest.raises(GpuUnavailable, match=r"^The driver is not there\. A GPU is expected here because of /dev/nvidiactl\.$"):
        tuning._devices(settings)
    gpu_is_there = True
    with pytest.raises(GpuUnavailable, match=r"TensorRT is what `lipsync tune` chose; run that again, or set LIPSYNC_DEVICE=gpu"):
        device_config(settings)


def test_doctor_and_self_test_look_for_the_tensorrt_that_was_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine with a GPU, which this one is made to look like."""
    tensorrt_is_there = True

    def check_gpu(*_: object, tensorrt: bool) -> list[Gpu]:
        if tensorrt and not tensorrt_is_there:
            raise GpuError("The libraries of TensorRT are not there.")
        return [Gpu("NVIDIA L4", (8, 9))]

    for module in (embedded, cli_doctor):
        monkeypatch.setattr(module, "gpu_expected", lambda: "/dev/nvidiactl")
        monkeypatch.setattr(module, "open_home", lambda _: SimpleNamespace(root=tmp_path, python=Path("python"), environment=dict))
    monkeypatch.setattr(embedded, "check_gpu", check_gpu)
    settings = Settings(data=tmp_path, triton=None)
    assert cli_doctor.check_host(settings)[0] == Check("GPU", True, "NVIDIA L4 (compute 8.9)")
    assert wanted_device(settings) == "gpu"
    chosen = Tuned(cores=available_cores(), device="tensorrt", encoder_threads=1, concurrent_renders=2)
    (tmp_path / TUNED_FILE).write_text(chosen.model_dump_json())
    assert cli_doctor.check_host(settings)[0] == Check("GPU", True, "NVIDIA L4 (compute 8.9), with TensorRT as `lipsync tune` chose")
    assert wanted_device(settings) == "tensorrt"
    assert cli_doctor.check_host(settings.model_copy(update={"device": "gpu"}))[0] == Check("GPU", True, "NVIDIA L4 (compute 8.9)"), "a setting wins"
    assert wanted_device(settings.model_copy(update={"triton": "host:8001"})) == "auto", "it is no choice for a Triton elsewhere"
    tensorrt_is_there = False
    gpu = cli_doctor.check_host(settings)[0]
    assert not gpu.ok
    assert gpu.detail == (
        "The libraries of TensorRT are not there. A GPU is expected here because of /dev/nvidiactl. "
        "TensorRT is what `lipsync tune` chose; run that again, or set LIPSYNC_DEVICE=gpu."
    )
