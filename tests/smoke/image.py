"""The image of our own Dockerfile, from wheels and the local base image: once for each state of the
sources.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.docker_engine import unavailable
from tests.fleet import ROOT

if TYPE_CHECKING:
    from docker import DockerClient

EXTRAS = "docker,flower,http,notify,openwebui,system"
"""Without chromadb's own package, which none of these tests needs."""

BUILD_SECONDS = 900
SOURCES = ("recovery", "workers", "celeryconfig.py", "recovery_config.yml", "pyproject.toml")


def digest(base: str) -> str:
    """Changes with whatever goes into the image."""
    found = hashlib.sha256(base.encode())
    files = [path for name in SOURCES for path in _files(ROOT / name)]
    for path in (*files, ROOT / "requirements.lock", ROOT / "compose" / "Dockerfile"):
        found.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return found.hexdigest()[:12]


def build(base: str, name: str) -> None:
    environ = {**os.environ, "EXTRAS": EXTRAS, "PYTHON": sys.executable}
    _run(["compose/wheels.sh", base], environ)
    command = ["docker", "build", "--quiet", "-f", "compose/Dockerfile", "-t", name]
    command += ["--build-arg", f"BASE_IMAGE={base}", "--build-arg", f"EXTRAS={EXTRAS}", "."]
    _run(command, {**environ, "DOCKER_BUILDKIT": "0"})


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted(p for p in path.rglob("*") if p.is_file() and p.suffix != ".pyc")


def _run(command: list[str], environ: dict[str, str]) -> None:
    ended = subprocess.run(
        command,
        check=False,
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.fixture(scope="session")
def recovery_image(docker_engine: DockerClient, docker_image: str) -> str:
    """One process builds it; the others wait for that."""
    from docker.errors import ImageNotFound

    python = docker_engine.containers.run(
        docker_image, ["python3", "--version"], remove=True, network_mode="none"
    )
    minor = python.decode().split()[1].rpartition(".")[0]
    if minor != f"{sys.version_info.major}.{sys.version_info.minor}":
        unavailable(f"wheels for the image's Python {minor} need the same one here")
    name = f"llm-stack-recovery:test-{digest(docker_image)}"
    with (Path(tempfile.gettempdir()) / "recovery-test-image.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            docker_engine.images.get(name)
        except ImageNotFound:
            build(docker_image, name)
    return name
