"""Stand-ins for the images that ours start from, for a host that cannot reach their registries: `python -m tests.containers.stand_ins`, as root.

They are made of Debian's packages, of a Python of this host and of its embedded Triton. So they have other releases than their tags say, and in
place of Triton's own ONNX Runtime backend that of `deploy/local`.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from deploy.local.home import DEFAULT_HOME, open_home
from tests.debian import install

ROOT = Path(__file__).resolve().parents[2]
DEBIAN = "lipsync-stand-in-debian"
PACKAGES = "ca-certificates,libbz2-1.0,libexpat1,libffi8,liblzma5,libncursesw6,libreadline8,libsqlite3-0,libssl3,libuuid1,netbase,tzdata,zlib1g"
ENVIRONMENT = ("LD_LIBRARY_PATH", "PYTHONNOUSERSITE", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")

# Where no registry is reached, the package index often is by a proxy with a certificate of its own, which the host knows.
PYTHON_IMAGE = f"""
FROM {DEBIAN}
COPY --from=python . /usr/local
COPY --from=certificates {CERTIFICATES.name} {CERTIFICATES}
RUN printf '[global]\\ncert = {CERTIFICATES}\\n' > /etc/pip.conf && ldconfig
ENV PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
"""

TRITON_IMAGE = f"""
FROM {DEBIAN}
COPY --from=python . {{python}}
COPY --from=home . {{home}}
COPY --chmod=755 <<EOF /usr/local/bin/tritonserver
#!/bin/sh
export PATH={{path}}:$PATH {{environment}}
exec {{tritonserver}} --backend-directory={{backends}} "\\$@"
EOF
RUN ln -s {{python}}/bin/python3 /usr/local/bin/python3 && chmod a+rx /root && useradd --uid 1000 triton-server
ENV PATH=/usr/local/bin:/usr/bin:/bin
"""


def make(tag: str, dockerfile: str, **folders: Path) -> None:
    contexts = [part for name, folder in folders.items() for part in ("--build-context", f"{name}={folder}")]
    with tempfile.TemporaryDirectory() as nothing:
        subprocess.run(["docker", "build", "--tag", tag, *contexts, "--file", "-", nothing], input=dockerfile.encode(), check=True)


def make_debian() -> None:
    install("debootstrap")
    with tempfile.TemporaryDirectory() as root:
        subprocess.run(["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", root], check=True)
        with subprocess.Popen(["tar", "--create", "--directory", root, "."], stdout=subprocess.PIPE) as packed:
            subprocess.run(["docker", "import", "-", DEBIAN], stdin=packed.stdout, check=True)


def main(python: Path) -> None:
    """Make both, with the Python that is installed in a folder of its own, as the one that runs this has to be."""
    home, own_python = open_home(DEFAULT_HOME), Path(sys.base_prefix)
    if home is None:
        raise SystemExit("There is no embedded Triton; `make setup` installs it.")
    if own_python.is_relative_to("/usr"):
        raise SystemExit(f"The Python in {own_python} is the system's; set up with one that has a folder of its own: make PYTHON=/path/to/python3.11")
    [python_tag] = set(re.findall(r"^FROM (python:\S+)", (ROOT / "deploy/docker/Dockerfile").read_text(), re.MULTILINE))
    triton_tag = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["x-triton"]["image"]
    environment = home.environment()
    make_debian()
    make(python_tag, PYTHON_IMAGE, python=python, certificates=CERTIFICATES.parent)
    triton_image = TRITON_IMAGE.format(
        python=own_python,
        home=home.root,
        path=home.python.parent,
        environment=" ".join(f"{name}={environment[name]}" for name in ENVIRONMENT),
        tritonserver=home.tritonserver,
        backends=home.backends,
    )
    make(triton_tag, triton_image, python=own_python, home=home.root)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(sys.base_prefix))
