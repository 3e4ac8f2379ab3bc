"""The tests of systemd, run where it is PID 1: a container that boots, with this tree in it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from tests.docker_engine import this_tree, unavailable
from tests.fleet import ROOT
from tests.units import find_manager
from tests.waiting import until

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

IMAGE = "RECOVERY_SYSTEMD_IMAGE"
DEFAULT_IMAGE = "recovery-systemd:bookworm"
TESTS = (
    *("tests/runtime/test_systemd.py", "tests/runtime/test_user_scope.py"),
    *("tests/components/system/test_units.py", "tests/components/system/test_sandbox.py"),
)
QUIET = ("-q", "-p", "no:cacheprovider", "--color=no", "-rs")

BOOT = {
    "entrypoint": "",
    "network_mode": "none",
    "cgroupns": "private",
    "cap_add": ["SYS_ADMIN"],
    "security_opt": ["seccomp=unconfined", "apparmor=unconfined"],
    "tmpfs": {"/run": "exec", "/run/lock": "", "/tmp": "exec"},
    "environment": {"container": "docker", "PYTHONDONTWRITEBYTECODE": "1"},
    "stop_signal": "SIGRTMIN+3",
}


def said(container: Container, *command: str) -> tuple[int, str]:
    done: Any = container.exec_run(list(command), workdir=str(ROOT))
    return done.exit_code, done.output.decode(errors="replace")


@pytest.fixture
def booted(docker_engine: DockerClient) -> Iterator[Container]:
    """Systemd has come up in it, and this interpreter with all its packages runs there too."""
    from docker.errors import ImageNotFound

    name = os.environ.get(IMAGE) or DEFAULT_IMAGE
    try:
        docker_engine.images.get(name)
    except ImageNotFound:
        unavailable(f"no local image {name}: compose/base-image.sh {name} systemd,dbus")
    container = docker_engine.containers.run(
        name,
        ["/lib/systemd/systemd"],
        name=f"recovery-test-{uuid4().hex[:8]}",
        detach=True,
        volumes=this_tree(),
        **BOOT,
    )
    try:
        until(lambda: takes_orders(container), seconds=60, what="systemd has come up")
        yield container
    finally:
        container.remove(force=True, v=True)


def takes_orders(container: Container) -> bool:
    container.reload()
    if container.status != "running":
        unavailable(f"systemd cannot be PID 1 in a container here: {container.logs()[-300:]!r}")
    code, state = said(container, "systemctl", "is-system-running")
    return state.strip() in {"running", "degraded"} or code == 0


@pytest.mark.docker
def test_units_are_handled_where_systemd_is_pid_1(booted: Container) -> None:
    if find_manager() is not None:
        pytest.skip("they run by themselves here: systemd takes orders on this machine")
    code, _ = said(booted, sys.executable, "-c", "import psutil, pydantic, pytest")
    if code:
        unavailable(f"{sys.executable} does not run in the image")

    code, output = said(booted, sys.executable, "-m", "pytest", *QUIET, *TESTS)

    assert code == 0, output
    assert "skipped" not in output, output
