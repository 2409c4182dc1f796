"""The containers, as far as they can be checked without Docker: schema, rules, and every command, path and variable run as a plain process.

With Docker: `tests/containers`.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from deploy.local.home import DEFAULT_HOME, open_home
from deploy.local.server import LocalTriton
from orchestrator.models.config import CONFIG_FILES
from orchestrator.settings import Settings
from tests.clips import write_speech
from tests.programs import free_port, wait_until

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "deploy/docker/Dockerfile").read_text()
BIN = Path(sys.executable).parent
PROFILES = ("gpu", "cpu")
API_KEY = "a-key-of-the-tests-only"
SHARED_MEMORY = {"type": "volume", "source": "shared-memory", "target": "/dev/shm", "volume": {"nocopy": True}}


def interpolate(value: Any, variables: dict[str, str]) -> Any:
    """Replace ${NAME:-default} as Compose does."""
    if isinstance(value, dict):
        return {key: interpolate(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [interpolate(item, variables) for item in value]
    if isinstance(value, str):
        return re.sub(r"\$\{(\w+):-([^}]*)\}", lambda match: variables.get(match[1]) or match[2], value)
    return value


def compose(**variables: str) -> dict[str, Any]:
    text: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return dict(interpolate(text, variables))


def services(profile: str) -> dict[str, dict[str, Any]]:
    """Return what starts with a profile."""
    return {name: service for name, service in compose()["services"].items() if profile in service.get("profiles", (profile,))}


def dockerfile_environment() -> dict[str, str]:
    stages = DOCKERFILE.split("\nFROM ", 2)[2].replace("\\\n", " ")  # all but the build stage
    return dict(pair.split("=", 1) for line in stages.splitlines() if line.startswith("ENV ") for pair in line.split()[1:])


def test_compose_file_fits_the_compose_specification() -> None:
    command = [str(BIN / "check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(ROOT / "docker-compose.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_dockerfile_passes_hadolint() -> None:
    done = subprocess.run([BIN / "hadolint", ROOT / "deploy/docker/Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_plain_up_means_the_gpu_and_each_profile_is_whole() -> None:
    assert "COMPOSE_PROFILES=gpu" in (ROOT / ".env").read_text().splitlines()
    assert set(services("gpu")) == {"models", "triton", "orchestrator"}
    assert set(services("cpu")) == {"models", "triton-cpu", "orchestrator-cpu"}
    for profile in PROFILES:
        running = services(profile)
        for service in running.values():
            assert set(service.get("depends_on", {})) <= set(running), "Compose refuses a reference to a service that is not of the profile"


@pytest.mark.parametrize("profile", PROFILES)
def test_triton_and_orchestrator_share_memory_and_neither_needs_the_other_to_run_before_it_is_started(profile: str) -> None:
    sharing = {name for name, service in services(profile).items() if SHARED_MEMORY in service["volumes"]}
    assert sharing == set(services(profile)) - {"models"}
    assert compose()["volumes"]["shared-memory"]["driver_opts"]["type"] == "tmpfs"
    for service in services(profile).values():  # after a reboot Docker starts none that joins another container's namespace before that one runs
        assert not {"ipc", "network_mode", "pid"} & set(service)


@pytest.mark.parametrize("profile", PROFILES)
def test_nothing_is_privileged_and_everything_runs_as_a_user_without_capabilities(profile: str) -> None:
    for name, service in services(profile).items():
        assert service["user"] == "1000:1000", name
        assert service["cap_drop"] == ["ALL"] and "cap_add" not in service
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not {"privileged", "network_mode", "pid", "userns_mode", "devices"} & set(service)
        assert not any("docker.sock" in str(volume) for volume in service.get("volumes", ()))
        if not service["image"].startswith("nvcr.io"):
            assert service["read_only"] is True and service["tmpfs"] == ["/tmp:size=64m,mode=1777"]
    assert "USER 1000:1000" in DOCKERFILE and "tini" in DOCKERFILE


def test_images_are_pinned_and_triton_is_new_enough_for_blackwell() -> None:
    images = {service["image"] for service in compose()["services"].values()} | set(re.findall(r"^FROM (\S+:\S+)", DOCKERFILE, re.MULTILINE))
    for image in images:
        assert re.search(r":\d+\.\d+", image), image
    [triton] = {image for image in images if "tritonserver" in image}
    year, month = (int(part) for part in triton.split(":")[1].split("-")[0].split("."))
    assert (year, month) >= (25, 2), "CUDA 12.8, for compute capability 12.0"
    assert (year, month) < (25, 8), "CUDA 13 asks for drivers that many hosts do not have"


def test_only_the_gpu_profile_asks_docker_for_gpus_and_it_takes_the_gpu_configurations() -> None:
    asking = {
        name: service["deploy"]["resources"]["reservations"]["devices"] for name, service in compose()["services"].items() if "deploy" in service
    }
    assert asking == {
        "triton": [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}],
        "orchestrator": [{"driver": "nvidia", "count": "all", "capabilities": ["gpu", "compute", "utility", "video"]}],  # NVENC and NVDEC
    }
    assert "--model-config-name=gpu" in compose()["services"]["triton"]["command"]
    assert "configs/gpu.pbtxt" not in CONFIG_FILES.values(), "so that Triton takes config.pbtxt, which asks for GPU instances"
    assert "--model-config-name=tensorrt" in compose(LIPSYNC_MODEL_CONFIG="tensorrt")["services"]["triton"]["command"]
    assert "--model-config-name=cpu" in compose()["services"]["triton-cpu"]["command"]


@pytest.mark.parametrize("profile", PROFILES)
def test_models_are_read_only_for_triton_and_every_path_of_a_volume_exists_in_the_image_for_its_user(profile: str) -> None:
    made = re.search(r"install --directory --owner=1000 --group=1000 (.+)", DOCKERFILE)
    assert made
    folders = set(made[1].split())
    for name, service in services(profile).items():
        for volume in service.get("volumes", ()):
            if volume == SHARED_MEMORY:
                continue
            if isinstance(volume, dict):
                source, target, is_read_only = volume["source"], volume["target"], volume.get("read_only", False)
            else:
                (source, target), is_read_only = volume.split(":"), False
            assert source in compose()["volumes"]
            assert target in folders, f"{name}: a new volume takes its owner from the image's folder"
            assert is_read_only == (source == "models" and "triton" in name)
            takes_owner = not (isinstance(volume, dict) and volume["volume"]["nocopy"])
            assert takes_owner != ("triton" in name), f"{name}: Triton's image has none of these folders, and Docker would make root's"
    assert services("gpu")["triton"]["working_dir"] == "/var/cache/lipsync"


@pytest.mark.parametrize("given", [{}, {"LIPSYNC_PUBLIC_URL": "https://lips.example.org", "LIPSYNC_WEBHOOK_SECRET": "secret"}])
def test_every_variable_is_a_setting_with_a_valid_value(given: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    known = {f"LIPSYNC_{name.upper()}" for name in Settings.model_fields}
    environments = [service.get("environment", {}) for service in compose(**given)["services"].values()] + [dockerfile_environment()]
    for environment in environments:
        ours = {name: value for name, value in environment.items() if name.startswith("LIPSYNC_")}
        assert set(ours) <= known
        with monkeypatch.context() as patch:
            for name, value in ours.items():
                patch.setenv(name, value)
            settings = Settings()
        if "LIPSYNC_PUBLIC_URL" in ours:
            assert (settings.public_url, settings.webhook_secret) == (given.get("LIPSYNC_PUBLIC_URL"), given.get("LIPSYNC_WEBHOOK_SECRET", ""))


def test_image_holds_the_package_with_its_data_and_runs_from_anywhere(tmp_path: Path) -> None:
    """What the build stage installs, without the dependencies: backend, portrait and commands have to be in it."""
    copied = tmp_path / "src"
    copied.mkdir()
    for line in re.findall(r"^COPY (?!--from)(.+)", DOCKERFILE, re.MULTILINE):
        *sources, target = line.split()
        for source in sources:
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, copied / target)
            else:
                shutil.copy(ROOT / source, copied / target)
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {f"!{path.name}" for path in copied.iterdir()} <= set(ignored), "what the Dockerfile copies is not kept back from it"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path / "image"), str(copied)]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for part in ("deploy/local/backends/onnxruntime/model.py", "orchestrator/inference/golden/face.jpg", "deploy/docker/healthcheck.py"):
        assert (tmp_path / "image" / part).is_file(), part
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "image"), "LIPSYNC_MODEL_REPOSITORY": str(tmp_path / "models")}
    code = "import orchestrator; assert 'image' in orchestrator.__file__; from orchestrator.cli import main; main()"
    listed = subprocess.run(
        [sys.executable, "-P", "-c", code, "models", "list"], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert listed.returncode == 0, listed.stderr
    assert "mouth-warp" in listed.stdout


class Container:
    """A process with a read-only root file system, in which one folder (and /dev/shm) is writable."""

    def __init__(self, writable: Path) -> None:
        script = 'mount --make-rprivate / && mount --bind "$0" "$0" && mount -o remount,bind,ro / && exec "$@"'
        self._prefix = ["unshare", "--mount", "sh", "-c", script, str(writable)]

    def command(self, *arguments: str | Path) -> list[str]:
        return [*self._prefix, *map(str, arguments)]


@pytest.fixture
def container(tmp_path: Path) -> Container:
    made = Container(tmp_path)
    probe = subprocess.run(made.command("sh", "-c", f"touch {tmp_path}/x && ! touch {ROOT}/x && ! touch /x"), capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("this user cannot make a mount namespace with a read-only root file system")
    return made


def environment_of(service: dict[str, Any], folder: Path) -> dict[str, str]:
    """Make a service's environment, with the container's folders replaced by ones below `folder`."""
    places = {"/data": folder / "data", "/models": folder / "models", "/tmp": folder / "tmp", "/var/cache/lipsync": folder / "cache"}
    for place in places.values():
        place.mkdir(exist_ok=True)
    given = {**dockerfile_environment(), **service.get("environment", {})}
    replaced = {name: str(places.get(value, value)) for name, value in given.items() if name != "PATH"}
    return {"PATH": os.environ["PATH"], **{name: os.environ[name] for name in os.environ if name.startswith(("PIP_", "SSL_"))}, **replaced}


def test_model_set_up_command_builds_every_model_on_a_read_only_root(container: Container, tmp_path: Path) -> None:
    service = services("gpu")["models"]
    environment = environment_of(service, tmp_path)
    done = subprocess.run(
        container.command(BIN / "lipsync", *service["command"]), env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for role in ("face_detector", "lip_sync"):
        for part in ("1/model.onnx", "config.pbtxt", "configs/cpu.pbtxt", "configs/tensorrt.pbtxt"):
            assert (tmp_path / "models" / role / part).is_file()


def serve_on(port: int, profile: str, triton: LocalTriton, folder: Path) -> tuple[dict[str, Any], list[str], dict[str, str]]:
    """Return a profile's service, its command on a port of this host, and its environment with the Triton of the tests."""
    service = services(profile)["orchestrator" if profile == "gpu" else "orchestrator-cpu"]
    at = {"LIPSYNC_TRITON": triton.grpc_address, "LIPSYNC_TRITON_METRICS": triton.metrics_address, "LIPSYNC_PORT": str(port)}
    return service, list(service["command"]), environment_of(service, folder) | at | {"LIPSYNC_API_KEYS": f"test:{API_KEY}"}


def test_serve_command_and_health_check_work_on_a_read_only_root(container: Container, triton: LocalTriton, clip: Path, tmp_path: Path) -> None:
    port = free_port()
    service, command, environment = serve_on(port, "cpu", triton, tmp_path)
    check = [part.replace(":8383", f":{port}") for part in service["healthcheck"]["test"]]
    assert check[:2] == ["CMD", "python"]

    def health() -> "subprocess.CompletedProcess[str]":
        return subprocess.run([sys.executable, *check[2:]], env=environment, cwd=ROOT, capture_output=True, text=True, check=False)

    assert "does not answer" in health().stderr
    with subprocess.Popen(container.command(BIN / "lipsync", *command), env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until(lambda: answers(f"{url}/healthz"), "the service answers")
            checked = health()
            assert checked.returncode == 0, checked.stderr
            key = {"x-api-key": API_KEY}
            speech = write_speech(tmp_path / "speech.wav", 0.4)
            with clip.open("rb") as video, speech.open("rb") as audio:
                answer = httpx.post(f"{url}/render", files={"video": video, "audio": audio}, data={"preset": "ultrafast"}, headers=key, timeout=120)
            assert answer.status_code == 200
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)


def test_service_without_an_api_key_does_not_listen(tmp_path: Path) -> None:
    service = services("gpu")["orchestrator"]
    environment = environment_of(service, tmp_path) | {"LIPSYNC_PORT": str(free_port())}
    done = subprocess.run([BIN / "lipsync", *service["command"]], env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "does not listen on 0.0.0.0 without API keys; set LIPSYNC_API_KEYS" in done.stderr


def test_service_of_the_gpu_profile_refuses_a_triton_whose_models_are_on_the_cpu(triton: LocalTriton, tmp_path: Path) -> None:
    _, command, environment = serve_on(free_port(), "gpu", triton, tmp_path)
    done = subprocess.run([BIN / "lipsync", *command], env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("gpu_unavailable: Model face_detector runs on the CPU though device gpu is asked for")


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture
def tritonserver(tmp_path: Path) -> Iterator[Any]:
    """Start the tritonserver of the pip wheel with a service's own command; its backend folder and ports are all that is added."""
    home = open_home(DEFAULT_HOME)
    assert home is not None
    started: list[subprocess.Popen[bytes]] = []
    port = free_port()

    def start(command: list[str]) -> tuple[subprocess.Popen[bytes], str, Path]:
        assert command[0] == "tritonserver"
        arguments = [part.replace("/models", str(Settings().model_repository)) for part in command[1:]]
        added = [
            f"--backend-directory={home.backends}",
            f"--http-port={port}",
            "--http-address=127.0.0.1",
            "--allow-grpc=false",
            "--allow-metrics=false",
        ]
        log = tmp_path / "triton.log"
        with log.open("wb") as file:
            process = subprocess.Popen([home.tritonserver, *arguments, *added], env=home.environment(), cwd=tmp_path, stdout=file, stderr=file)
        started.append(process)
        return process, f"http://127.0.0.1:{port}", log

    yield start
    for process in started:
        process.terminate()
        process.wait(timeout=60)


def test_triton_command_of_the_cpu_profile_serves_the_models_and_is_well_by_either_profiles_check(tritonserver: Any) -> None:
    _, url, _ = tritonserver(services("cpu")["triton-cpu"]["command"])
    wait_until(lambda: answers(f"{url}/v2/health/ready"), "Triton is ready", timeout_s=120)
    for service in (services("cpu")["triton-cpu"], services("gpu")["triton"]):
        [config] = service["configs"]
        kind, python, script, trials = service["healthcheck"]["test"]
        assert (kind, python, script) == ("CMD", "python3", config["target"]) and service["init"], "only a process other than the first can be killed"
        file = ROOT / compose()["configs"][config["source"]]["file"]
        done = subprocess.run([sys.executable, file, trials, url, "nobody"], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has a GPU")
def test_triton_command_of_the_gpu_profile_is_understood_and_ends_without_a_gpu(tritonserver: Any) -> None:
    process, _, log = tritonserver(services("gpu")["triton"]["command"])
    assert process.wait(timeout=120) != 0
    text = log.read_text()
    assert "no GPUs are available" in text
    assert "unrecognized option" not in text and "Usage: tritonserver" not in text
