"""Install the pip-packaged Triton into a home of its own: `python -m deploy.local.install [--home DIR]`.

A home holds a virtual environment (the `tritonserver` program, and the Python that Triton embeds for its backends) and a folder of
backends made of real files, because Triton refuses a backend library that is a symbolic link. The environment is not the
orchestrator's: with numpy 2, what a Python model reads through Triton's `as_numpy()` is wrong without an error, so it gets numpy 1.
"""

import argparse
import contextlib
import fcntl
import hashlib
import importlib.util
import json
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from deploy.local.gpu import RUNTIME_SETS, GpuError, RuntimeSet, choose_runtime, gpu_expected, is_unfit
from deploy.local.home import DEFAULT_HOME, ENGINES, TritonHome, backends_folder, open_home, read_stamp, stamp_file, venv_folder

PYTHON_VERSIONS = ("3.11", "3.12", "3.13")
"""Those that both this project and a stub in the wheel are for."""

GLIBC_MINIMUM = (2, 35)
"""From the wheel's platform tag, manylinux_2_35_x86_64."""

TRITON_PACKAGE = "nvidia-pytriton==0.7.0"
"""The wheel that carries tritonserver 2.51. What it needs for its own Python interface is not installed."""

NUMPY_PACKAGES = ("numpy>=1.26,<2; python_version<'3.13'", "numpy>=2.1,<3; python_version>='3.13'")
"""The backend can exchange arrays with either numpy, and there is no numpy 1 for Python 3.13."""

CPU_PACKAGES = ("onnxruntime>=1.21,<1.33",)
"""onnxruntime 1.32 was tried with numpy 1.26 and 2.5; later ones come in when they have been. For GPUs see `RUNTIME_SETS`."""

DEVICES = ("auto", "cpu", "gpu", "tensorrt")
"""What an installation can be for. One for a GPU also runs models on the CPU; one for TensorRT is one for a GPU with some gigabytes more."""

BACKEND_SOURCE = Path(__file__).resolve().parent / "backends" / "onnxruntime" / "model.py"
"""The onnxruntime backend; every home holds a copy."""


class InstallError(RuntimeError):
    """Triton cannot be installed here; the message says what to do."""


def install(root: Path = DEFAULT_HOME, device: str = "auto") -> TritonHome:
    """Bring the Triton home at `root` up to date and return it.

    `device` is one of `DEVICES`; "auto" keeps what is there if it is current, and otherwise installs for a GPU where one is expected, else for
    the CPU. "gpu" and "tensorrt" also look whether what is there runs with this machine's driver and cards, which may have changed.

    A home that is up to date is recognised by its stamp within milliseconds, by that look in a second. One process installs at a time; the others
    wait, then find the home ready. An install that fails leaves the home as it was; one that is killed leaves a home without a stamp, which the
    next one builds anew.

    Raises:
        InstallError: this machine cannot run the wheel, or pip could not fetch it.
    """
    if (home := _open_current(root, device)) is not None and not _is_unfit(home, device):
        return home
    _check_platform(root)
    python = _find_python()
    root.mkdir(parents=True, exist_ok=True)
    with _one_at_a_time(root / "install.lock") as lock:
        record, home = read_stamp(root), open_home(root)
        if home is None or not _serves(record.get("packages", ""), device) or _is_unfit(home, device):
            packages = _choose_packages(device)
            with _as_before_if_it_fails(root):
                record = _build(root, python, lock, packages)
            for engines in root.glob(f"{ENGINES}*"):  # another TensorRT does not read them
                shutil.rmtree(engines)
        elif record.get("backend") == _backend_hash():
            return home
        _copy_into_place(BACKEND_SOURCE, backends_folder(root) / "onnxruntime" / "model.py")
        _write_stamp(root, record | {"backend": _backend_hash()})
    home = _open_current(root, device)
    if home is None:
        raise InstallError(f"The Triton home {root} changed while it was being installed; run the installation again.")
    return home


def _open_current(root: Path, device: str) -> TritonHome | None:
    record = read_stamp(root)
    current = _serves(record.get("packages", ""), device) and record.get("backend") == _backend_hash()
    return open_home(root) if current else None


def _serves(installed: str, device: str) -> bool:
    """Tell whether the packages of a stamp are what `device` wants now."""
    gpu, tensorrt = ([_stamp_text(packages) for packages in sets] for sets in zip(*map(_gpu_packages, RUNTIME_SETS), strict=True))
    cpu = [_stamp_text(CPU_PACKAGES)]
    if device == "auto":
        return installed in gpu + tensorrt or (installed in cpu and gpu_expected() is None)
    return installed in {"cpu": cpu + gpu + tensorrt, "gpu": gpu + tensorrt, "tensorrt": tensorrt}[device]


def _is_unfit(home: TritonHome, device: str) -> bool:
    """Tell whether a home for a GPU is for another one than this machine's.

    Raises:
        InstallError: the driver cannot be asked.
    """
    if device not in ("gpu", "tensorrt"):
        return False
    try:
        return is_unfit(home.python, home.environment(), tensorrt=device == "tensorrt")
    except GpuError as error:
        raise InstallError(str(error)) from error


def _choose_packages(device: str) -> tuple[str, ...]:
    """Choose ONNX Runtime for a device: for a GPU, by what its driver supports.

    Raises:
        InstallError: the driver cannot be asked.
    """
    if device == "cpu" or (device == "auto" and gpu_expected() is None):
        return CPU_PACKAGES
    try:
        gpu, tensorrt = _gpu_packages(choose_runtime())
    except GpuError as error:
        raise InstallError(str(error)) from error
    return tensorrt if device == "tensorrt" else gpu


def _gpu_packages(runtime: RuntimeSet) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what to install for a GPU, and for TensorRT on it."""
    return runtime.packages, (*runtime.packages, *runtime.tensorrt)


def _has_tensorrt(packages: tuple[str, ...]) -> bool:
    return any(package.startswith("tensorrt") for package in packages)


def _stamp_text(packages: tuple[str, ...]) -> str:
    return " ".join((TRITON_PACKAGE, *NUMPY_PACKAGES, *packages))


def _backend_hash() -> str:
    return hashlib.sha256(BACKEND_SOURCE.read_bytes()).hexdigest()


def _check_platform(root: Path) -> None:
    system, machine = platform.system(), platform.machine()
    if (system, machine) != ("Linux", "x86_64"):
        raise InstallError(f"The pip-packaged Triton runs on x86-64 Linux, not on {machine} {system}: start Triton elsewhere and give its address.")
    library, version = platform.libc_ver()
    if library != "glibc" or tuple(int(part) for part in version.split(".")[:2]) < GLIBC_MINIMUM:
        raise InstallError(
            f"The pip-packaged Triton needs glibc {GLIBC_MINIMUM[0]}.{GLIBC_MINIMUM[1]} or later, found {library or 'another C library'} {version}: "
            "use Debian 12, Ubuntu 22.04 or later, or the Docker deployment."
        )
    if shutil.which("bash") is None:
        raise InstallError("Triton starts its Python backend with bash, which is not installed: install bash.")
    if shlex.quote(str(root.absolute())) != str(root.absolute()):
        raise InstallError(f"Triton cannot start its backend from {root}: choose a home without spaces, quotes or letters beyond ASCII in its path.")


def _find_python() -> Path:
    """Choose the interpreter for the venv: the running one if Triton has a stub for it, else one from PATH."""
    if f"{sys.version_info.major}.{sys.version_info.minor}" in PYTHON_VERSIONS:
        return Path(sys.executable)
    for version in reversed(PYTHON_VERSIONS):
        if found := shutil.which(f"python{version}"):
            return Path(found)
    raise InstallError(
        f"The pip-packaged Triton needs Python {' or '.join(PYTHON_VERSIONS)}, found {platform.python_version()}: install one of them."
    )


@contextlib.contextmanager
def _one_at_a_time(lock_file: Path) -> Iterator[int]:
    """Hold the lock. What writes into the home inherits it: a pip that outlives a killed install holds it until it ends."""
    with lock_file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()


@contextlib.contextmanager
def _as_before_if_it_fails(root: Path) -> Iterator[None]:
    """Put what is in the home aside, and back where it was if the block raises."""
    aside = root / "before"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    parts = (venv_folder(root), backends_folder(root), stamp_file(root))
    for part in reversed(parts):  # without a stamp first
        if part.exists():
            part.rename(aside / part.name)
    try:
        yield
    except BaseException:
        for part in parts:
            shutil.rmtree(part, ignore_errors=True)
            if (aside / part.name).exists():
                (aside / part.name).rename(part)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _build(root: Path, python: Path, lock: int, runtime: tuple[str, ...]) -> dict[str, str]:
    """Build a home from nothing and prove that its programs start; return the record to stamp it with."""
    what = " with TensorRT" if _has_tensorrt(runtime) else ""
    size = "200 MB" if runtime == CPU_PACKAGES else "about 3 GB, and TensorRT" if what else "about 3 GB"
    print(f"Installing Triton{what} into {root} ({size}) ...", file=sys.stderr, flush=True)
    venv_python = _make_venv(root, python, lock)
    pip = (str(venv_python), "-I", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    for packages, named in ((("--no-deps", TRITON_PACKAGE), TRITON_PACKAGE), ((*NUMPY_PACKAGES, *runtime), " ".join(runtime))):
        failure = f"pip could not install {named}; check the network and the space on the disk, or name a mirror in PIP_INDEX_URL"
        if _has_tensorrt(packages):
            failure += (
                ". What stands for TensorRT there fetches it from NVIDIA's own package index, which has to be reachable too, or a mirror in "
                "PIP_EXTRA_INDEX_URL"
            )
        _run((*pip, *packages), failure, lock=lock)
    facts = _ask_python(venv_python)
    home = TritonHome(root.absolute(), Path(facts["site_packages"]), _library_folder(facts))
    wheel = home.site_packages / "pytriton" / "tritonserver"
    for source in (
        wheel / "backends" / "python" / "libtriton_python.so",
        wheel / "backends" / "python" / "triton_python_backend_utils.py",
        wheel / "python_backend_stubs" / facts["version"] / "triton_python_backend_stub",
    ):
        _copy_into_place(source, home.backends / "python" / source.name)
    _embed_own_python(home, facts)
    _prove(home, facts["version"])
    return {
        "packages": _stamp_text(runtime),
        "python": facts["version"],
        "site_packages": str(home.site_packages),
        "library_folder": str(home.library_folder),
    }


def _make_venv(root: Path, python: Path, lock: int) -> Path:
    venv = venv_folder(root)
    has_ensurepip = subprocess.run((python, "-c", "import ensurepip"), capture_output=True, check=False).returncode == 0
    if has_ensurepip:
        command: tuple[str, ...] = (str(python), "-m", "venv", str(venv))
    elif importlib.util.find_spec("virtualenv") is not None:
        command = (sys.executable, "-m", "virtualenv", "--quiet", "--python", str(python), str(venv))
    else:
        raise InstallError(f"{python} cannot make a virtual environment with pip: install python3-venv, or `pip install virtualenv`.")
    _run(command, f"the virtual environment {venv} could not be made", lock=lock)
    return venv / "bin" / "python3"


def _ask_python(python: Path) -> dict[str, str]:
    """Ask an interpreter for its version, its site-packages and where its shared library should be."""
    question = (
        "import json, sys, sysconfig; get = sysconfig.get_config_var; print(json.dumps({"
        "'version': '%d.%d' % sys.version_info[:2], 'micro': str(sys.version_info[2]), 'site_packages': sysconfig.get_path('purelib'),"
        "'prefix': sys.base_prefix,"
        "'libdir': get('LIBDIR') or ''}))"
    )
    answer: dict[str, str] = json.loads(_run((str(python), "-I", "-c", question), f"{python} did not answer"))
    return answer


def _library_folder(facts: dict[str, str]) -> Path:
    """Find the shared library of the venv's Python; a stub that picked up another Python's would mix two standard libraries."""
    folders = [Path(facts["libdir"]), Path(facts["prefix"]) / "lib"]
    return next((folder for folder in folders if any(folder.glob(f"libpython{facts['version']}.so*"))), folders[0])


def _embed_own_python(home: TritonHome, facts: dict[str, str]) -> None:
    """Have the stub embed the library of the venv's own Python where the wheel brings another one, as it does for 3.13.

    Extension modules of a later release of Python call what that library does not have.
    """
    for brought in (home.site_packages / "nvidia_pytriton.libs").glob(f"libpython3-*{facts['version'].removeprefix('3')}.so*"):
        own = home.library_folder / f"libpython{facts['version']}.so.1.0"
        if own.exists():
            brought.unlink()
            brought.symlink_to(own)
        elif int(facts["micro"]) > _micro_of(brought):
            raise _missing_library(facts["version"])


def _micro_of(library: Path) -> int:
    """Read which release a shared library of Python is of: the third number."""
    ask = "import ctypes, sys; ask = ctypes.CDLL(sys.argv[1]).Py_GetVersion; ask.restype = ctypes.c_char_p; print(ask().decode())"
    return int(re.findall(r"\d+", _run((sys.executable, "-I", "-c", ask, str(library)), f"{library} cannot be loaded"))[2])


def _missing_library(python_version: str) -> InstallError:
    return InstallError(
        f"Triton's stub needs the shared library of Python {python_version}: install libpython{python_version} (Debian, Ubuntu), "
        "or use a Python built with --enable-shared."
    )


def _prove(home: TritonHome, python_version: str) -> None:
    """Run each program once: a library that is missing shows here, not as a Triton that never becomes ready."""
    env = home.environment()
    _run((str(home.python), "-c", "import onnxruntime"), "ONNX Runtime does not start in Triton's environment", env=env)
    for program in (home.tritonserver, home.stub):
        tried = subprocess.run((program, "--help"), env=env, capture_output=True, text=True, check=False)
        if "libpython" in tried.stderr:
            raise _missing_library(python_version)
        if tried.returncode != 1:  # both end so after a complaint or a usage text; the loader's failure is 127, a crash negative
            raise InstallError(f"{program.name} does not start: {_last_line(tried.stderr)}")


def _run(command: tuple[str, ...], failure: str, *, env: dict[str, str] | None = None, lock: int | None = None) -> str:
    """Run a program that inherits `lock`, and return what it prints."""
    inherited = () if lock is None else (lock,)
    done = subprocess.run(command, env=env, pass_fds=inherited, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise InstallError(f"{failure[0].upper()}{failure[1:]}: {_last_line(done.stderr or done.stdout)}")
    return done.stdout


def _last_line(text: str) -> str:
    """Return the last line that says something; pip ends with where to look for what it says."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if re.match(r"(ERROR|[\w.]+Error): \S", line)]
    return (telling or lines or ["no output"])[-1]


def _copy_into_place(source: Path, target: Path) -> None:
    """Copy a file so that a reader sees the old one or the new one, never a part."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as part:
        part.write(source.read_bytes())
    shutil.copymode(source, part.name)
    Path(part.name).replace(target)


def _write_stamp(root: Path, record: dict[str, str]) -> None:
    part = stamp_file(root).with_suffix(".part")
    part.write_text(json.dumps(record, indent=2) + "\n")
    part.replace(stamp_file(root))


def main() -> None:
    """Install from the command line."""
    parser = argparse.ArgumentParser(prog="python -m deploy.local.install", description="Install the pip-packaged Triton.")
    parser.add_argument("--home", type=Path, default=DEFAULT_HOME, help="where to install it (default: %(default)s)")
    parser.add_argument("--device", choices=DEVICES, default="auto", help="what to install ONNX Runtime for (default: a GPU where there is one)")
    arguments = parser.parse_args()
    try:
        home = install(arguments.home, arguments.device)
    except InstallError as error:
        sys.exit(f"error: {error}")
    print(f"Triton is ready in {home.root}")


if __name__ == "__main__":
    main()
