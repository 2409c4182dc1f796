"""`lipsync tune`: measured on the real Triton, written where it is read."""

import shutil
from pathlib import Path

import pytest

from orchestrator import tuning
from orchestrator.jobs.capacity import tuned_renders
from orchestrator.models.config import batching_of, with_batching
from orchestrator.settings import Settings
from orchestrator.tuning import ModelTrial, RenderTrial, apply, best_count, best_model, is_worth_more, tune


def test_choice_is_measured_on_a_copy_and_written_only_when_applied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "QUEUE_DELAYS_US", (700,))
    monkeypatch.setattr(tuning, "MAX_RENDERS", 1)
    monkeypatch.setattr(tuning, "_CLIP_S", 1)
    repository = tmp_path / "models"
    shutil.copytree(Settings().model_repository, repository)
    settings = Settings(model_repository=repository, data=tmp_path / "data", device="cpu")
    config = repository / "lip_sync" / "configs" / "cpu.pbtxt"
    before = config.read_text()
    seen: list[ModelTrial | RenderTrial] = []
    tuned = tune(settings, 0.2, seen.append)
    assert config.read_text() == before and not settings.data.exists()
    assert [type(trial) for trial in seen] == [ModelTrial] * len(tuned.model_trials) + [RenderTrial]
    assert tuned.model is not None and tuned.model.frames_per_s > 0 and tuned.model.queue_delay_us == 700
    assert set(apply(settings, tuned)) == {config, settings.data / "tuned.json"}
    assert batching_of(config.read_text()) == (tuned.model.instance_count, 700)
    assert with_batching(config.read_text(), *batching_of(before) or (0, 0)) == before, "nothing else was changed"
    assert tuned_renders(settings.data) == tuned.concurrent_renders == 2


def test_fastest_is_chosen_and_what_is_as_fast_with_less() -> None:
    trials = [ModelTrial(2, 0, 100, 8), ModelTrial(2, 500, 99, 8), ModelTrial(4, 0, 102, 8), ModelTrial(4, 500, 90, 8)]
    assert best_model(trials) == trials[0]
    assert best_model([*trials, ModelTrial(8, 500, 120, 8)]) == ModelTrial(8, 500, 120, 8)
    assert best_model([]) is None


def test_renders_are_added_while_that_makes_the_host_faster() -> None:
    rising = [RenderTrial(1, 50), RenderTrial(2, 80), RenderTrial(4, 100)]
    assert is_worth_more(rising[:1]) and is_worth_more(rising)
    flat = [*rising, RenderTrial(8, 101)]
    assert not is_worth_more(flat)
    assert best_count(flat) == 4
    assert best_count([RenderTrial(1, 50), RenderTrial(2, 49)]) == 2, "a short job need not wait for a long one"


def test_configuration_without_batching_is_left_alone() -> None:
    assert batching_of('name: "lip_sync"\nplatform: "ensemble"\n') is None
    with pytest.raises(ValueError, match="instance group"):
        with_batching("", 2, 0)
