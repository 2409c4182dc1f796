"""Installing the pip-packaged Triton: fast when there is nothing to do, safe when killed or run twice at once."""

import json
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from deploy.local import install as installer
from deploy.local.gpu import RUNTIME_SETS, RuntimeSet
from deploy.local.home import DEFAULT_HOME, open_home, read_stamp, stamp_file
from deploy.local.install import InstallError, install


@pytest.fixture
def home_like(tmp_path: Path) -> Path:
    """A finished home in miniature: the stamp of the real one, and empty files for what it names."""
    root = tmp_path / "home"
    real = install(DEFAULT_HOME)
    site_packages = root / "venv" / "site-packages"
    server = site_packages / real.tritonserver.relative_to(real.site_packages)
    for part in (server, root / "venv/bin/python3", root / "backends/python/triton_python_backend_stub", root / "backends/onnxruntime/model.py"):
        part.parent.mkdir(parents=True)
        part.touch()
    shutil.copy(real.onnxruntime_model, root / "backends" / "onnxruntime" / "model.py")
    record = json.loads(stamp_file(real.root).read_text()) | {"site_packages": str(site_packages)}
    stamp_file(root).write_text(json.dumps(record))
    return root


def test_current_home_is_recognised_by_its_stamp_at_once() -> None:
    install(DEFAULT_HOME)
    began_s = time.process_time()
    install(DEFAULT_HOME)
    assert time.process_time() - began_s < 0.1


def test_home_holds_real_files_only() -> None:
    backends = install(DEFAULT_HOME).backends
    names = {str(path.relative_to(backends)) for path in backends.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert names == {
        "onnxruntime/model.py",
        "python/libtriton_python.so",
        "python/triton_python_backend_stub",
        "python/triton_python_backend_utils.py",
    }
    assert not [path for path in backends.rglob("*") if path.is_symlink()]


def test_changed_backend_is_copied_and_nothing_else_is_installed(home_like: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = tmp_path / "model.py"
    changed.write_text("# a newer backend\n")
    monkeypatch.setattr(installer, "BACKEND_SOURCE", changed)
    monkeypatch.setattr(installer, "_build", None)
    home = install(home_like)
    assert home.onnxruntime_model.read_text() == "# a newer backend\n"


def test_home_without_stamp_or_server_is_not_usable(home_like: Path) -> None:
    home = open_home(home_like)
    assert home is not None
    home.tritonserver.unlink()
    assert open_home(home_like) is None
    home.tritonserver.touch()
    stamp_file(home_like).unlink()
    assert open_home(home_like) is None


def test_killed_install_is_made_good_by_two_that_run_at_once(tmp_path: Path) -> None:
    root = tmp_path / "home"
    command = [sys.executable, "-m", "deploy.local.install", "--home", str(root)]
    with subprocess.Popen(command) as first:
        deadline = time.monotonic() + 60
        while not (root / "venv" / "bin" / "python3").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        first.kill()
    assert open_home(root) is None
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert outputs == [f"Triton is ready in {root}\n"] * 2
    assert open_home(root) is not None


@pytest.mark.parametrize(
    ("function", "answer", "message"),
    [
        ("system", "Darwin", "runs on x86-64 Linux, not on x86_64 Darwin"),
        ("machine", "aarch64", "runs on x86-64 Linux, not on aarch64 Linux"),
        ("libc_ver", ("glibc", "2.31"), r"needs glibc 2\.35 or later, found glibc 2\.31: use Debian 12"),
        ("libc_ver", ("", ""), r"needs glibc 2\.35 or later, found another C library"),
    ],
)
def test_unsupported_platform_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, answer: object, message: str) -> None:
    monkeypatch.setattr(platform, function, lambda: answer)
    with pytest.raises(InstallError, match=message):
        install(tmp_path / "home")


def test_home_with_a_space_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InstallError, match="choose a home without spaces"):
        install(tmp_path / "my home")


def test_home_for_a_gpu_serves_the_cpu_too_and_one_for_the_cpu_is_rebuilt_for_a_gpu() -> None:
    cpu = installer._stamp_text(installer.CPU_PACKAGES)
    gpu, tensorrt = (installer._stamp_text(packages) for packages in installer._gpu_packages(RUNTIME_SETS[0]))
    serves = {device: [installer._serves(stamp, device) for stamp in (cpu, gpu, tensorrt, "")] for device in ("cpu", "gpu", "tensorrt")}
    assert serves == {"cpu": [True, True, True, False], "gpu": [False, True, True, False], "tensorrt": [False, False, True, False]}


def test_auto_installs_for_a_gpu_where_one_shows_and_keeps_one_where_none_does(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu = installer._stamp_text(installer.CPU_PACKAGES), installer._stamp_text(RUNTIME_SETS[1].packages)
    monkeypatch.setattr(installer, "choose_runtime", lambda: RUNTIME_SETS[1])
    monkeypatch.setattr(installer, "gpu_expected", lambda: "/dev/nvidiactl")
    assert installer._choose_packages("auto") == installer._choose_packages("gpu") == RUNTIME_SETS[1].packages
    assert (installer._serves(cpu, "auto"), installer._serves(gpu, "auto")) == (False, True)
    assert installer._choose_packages("cpu") == installer.CPU_PACKAGES
    assert installer._choose_packages("tensorrt")[-1].startswith("tensorrt-cu12-libs")
    monkeypatch.setattr(installer, "gpu_expected", lambda: None)
    assert installer._choose_packages("auto") == installer.CPU_PACKAGES
    assert (installer._serves(cpu, "auto"), installer._serves(gpu, "auto")) == (True, True)


@pytest.mark.parametrize(("device", "is_installed_again"), [("gpu", True), ("tensorrt", True), ("auto", False), ("cpu", False)])
def test_home_for_another_driver_or_card_is_installed_again_where_a_gpu_is_asked_for_by_name(
    device: str, is_installed_again: bool, home_like: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamp = read_stamp(home_like) | {"packages": installer._stamp_text(installer._gpu_packages(RUNTIME_SETS[0])[1])}
    stamp_file(home_like).write_text(json.dumps(stamp))
    built: list[tuple[str, ...]] = []

    def build(*arguments: Any) -> dict[str, str]:
        built.append(arguments[-1])
        raise InstallError("far enough")

    monkeypatch.setattr(installer, "_build", build)
    monkeypatch.setattr(installer, "choose_runtime", lambda: RUNTIME_SETS[1])
    monkeypatch.setattr(installer, "is_unfit", lambda *_, **__: True)
    if not is_installed_again:
        assert install(home_like, device).root == home_like
        assert not built
        return
    with pytest.raises(InstallError, match="far enough"):
        install(home_like, device)
    assert built == [installer._gpu_packages(RUNTIME_SETS[1])[device == "tensorrt"]]


def test_install_that_fails_leaves_the_home_as_it_was(home_like: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.read_bytes() for path in home_like.rglob("*") if path.is_file()}
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(InstallError, match=r"^Pip could not install nvidia-pytriton==.*: ERROR: No matching distribution found for nvidia-pytriton"):
        install(home_like, "tensorrt")
    assert open_home(home_like) is not None
    (home_like / "install.lock").unlink()
    assert {path: path.read_bytes() for path in home_like.rglob("*") if path.is_file()} == before


def test_another_installation_keeps_no_engines_of_the_tensorrt_before(home_like: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home_like / "tensorrt_cache").mkdir()
    (home_like / "tensorrt_cache-1").mkdir()
    packages = installer._stamp_text(installer._gpu_packages(RUNTIME_SETS[0])[1])

    def build(*_: Any) -> dict[str, str]:
        for part in (home_like / "before").iterdir():
            part.rename(home_like / part.name)
        return read_stamp(home_like) | {"packages": packages}

    monkeypatch.setattr(installer, "_build", build)
    install(home_like, "tensorrt")
    assert not list(home_like.glob("tensorrt_cache*"))


def test_failure_of_pip_says_what_failed_and_not_where_to_look_for_it() -> None:
    placeholder = """
      urllib.error.URLError: <urlopen error [Errno -2] Name or service not known>
      wheel_stub.error.InstallFailedError:
      The installation of tensorrt-cu13-libs for version 10.16.1.11 failed.
      [end of output]
    error: metadata-generation-failed

    note: This is an issue with the package mentioned above, not pip.
    hint: See above for details.
    """
    assert installer._last_line(placeholder) == "urllib.error.URLError: <urlopen error [Errno -2] Name or service not known>"
    assert installer._last_line("bash: not found\n\n") == "bash: not found"


def test_cuda_libraries_that_pip_installed_are_on_the_library_path(home_like: Path) -> None:
    home = open_home(home_like)
    assert home is not None
    assert home.cuda_libraries() == []
    folders = [home.site_packages / part for part in ("nvidia/cu13/lib", "nvidia/cudnn/lib", "tensorrt_libs")]
    for folder in folders:
        folder.mkdir(parents=True)
    assert home.cuda_libraries() == folders
    path = home.environment()["LD_LIBRARY_PATH"].split(":")
    assert [entry for entry in path if entry in map(str, folders)] == list(map(str, folders))


@pytest.mark.parametrize("runtime", RUNTIME_SETS, ids=lambda runtime: f"cuda{runtime.cuda_major}")
def test_gpu_packages_and_their_cuda_libraries_resolve(runtime: RuntimeSet) -> None:
    """pip resolves the whole set without installing it: 2 GB that this test need not fetch."""
    home = install(DEFAULT_HOME)
    command = [str(home.python), "-I", "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed", "--report", "-"]
    done = subprocess.run([*command, *installer.NUMPY_PACKAGES, *runtime.packages], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names = {item["metadata"]["name"].lower() for item in json.loads(done.stdout)["install"]}
    assert "onnxruntime-gpu" in names and "onnxruntime" not in names
    for library in ("cublas", "cudnn", "cufft", "curand", "cuda-runtime"):
        assert any(name.startswith(f"nvidia-{library}") for name in names), library


@pytest.mark.parametrize(("own", "micro", "expected"), [(True, "99", "own"), (False, "0", "brought"), (False, "99", None)])
def test_stub_embeds_the_python_library_of_its_own_release_not_an_older_one_of_the_wheel(
    home_like: Path, tmp_path: Path, own: bool, micro: str, expected: str | None
) -> None:
    """The wheel brings a library of Python 3.13.0, with which the extension modules of Debian's 3.13.5 cannot be loaded."""
    [brought] = install(DEFAULT_HOME).site_packages.glob("nvidia_pytriton.libs/libpython3-*.13.so*")
    record = json.loads(stamp_file(home_like).read_text()) | {"library_folder": str(tmp_path)}
    stamp_file(home_like).write_text(json.dumps(record))
    home = open_home(home_like)
    assert home is not None
    library = home.site_packages / "nvidia_pytriton.libs" / brought.name
    library.parent.mkdir()
    shutil.copy(brought, library)
    if own:
        (tmp_path / "libpython3.13.so.1.0").write_text("the library of the own Python")
    facts = {"version": "3.13", "micro": micro}
    if expected is None:
        with pytest.raises(InstallError, match=r"needs the shared library of Python 3\.13: install libpython3\.13"):
            installer._embed_own_python(home, facts)
    else:
        installer._embed_own_python(home, facts)
        assert (library.resolve() == tmp_path / "libpython3.13.so.1.0") == (expected == "own")
