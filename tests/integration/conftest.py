"""What several of these tests need: databases, requests for small renders, and the installed Triton."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.local.home import DEFAULT_HOME
from deploy.local.install import install
from orchestrator.jobs.model import JobSpec
from orchestrator.pipeline.options import RenderOptions
from tests.clips import frames_of, write_speech, write_video
from tests.postgres import running_postgres

FAST = RenderOptions(preset="ultrafast", crf=30)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    with running_postgres() as url:
        yield url


@pytest.fixture
def postgres_database(postgres: str) -> str:
    """An empty database of the test's own."""
    import psycopg

    name = f"t{uuid.uuid4().hex}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")  # type: ignore[call-overload, unused-ignore]
    return postgres.rsplit("/", 1)[0] + f"/{name}"


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str | None:
    """A database of the test's own; None is SQLite in the data folder."""
    return None if request.param == "sqlite" else request.getfixturevalue("postgres_database")


@pytest.fixture(scope="session")
def small_clip(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clip at 256 x 256, so that tests of the jobs do not wait for pixels."""
    path = tmp_path_factory.mktemp("small") / "clip.mp4"
    return write_video(path, (frame.reformat(256, 256, format="yuv420p") for frame in frames_of(clip)), {"crf": "16", "preset": "veryfast"})


@pytest.fixture(scope="session")
def home() -> Path:
    """The repository's own Triton home, installed if it is not."""
    return install(DEFAULT_HOME).root


@pytest.fixture(scope="session")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Callable[[float], Path]:
    folder = tmp_path_factory.mktemp("sounds")

    def sound(duration_s: float) -> Path:
        path = folder / f"{duration_s:g}.wav"
        return path if path.exists() else write_speech(path, duration_s)

    return sound


@pytest.fixture
def spec(small_clip: Path, sounds: Callable[[float], Path]) -> Callable[..., JobSpec]:
    def make(duration_s: float = 1.0, **more: Any) -> JobSpec:
        return JobSpec.model_validate({"video": small_clip, "audio": sounds(duration_s), "options": FAST, **more})

    return make
