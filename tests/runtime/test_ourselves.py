"""A worker in a container, with the engine's socket: it never stops the container it lives in."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from recovery.runtime import DockerRuntime
from recovery.runtime.container import Container
from recovery.runtime.engine import Engine
from recovery.runtime.ourselves import is_in
from tests.containers import RedisContainer
from tests.docker_engine import this_tree, unavailable
from tests.fleet import ROOT

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container as Made

pytestmark = pytest.mark.docker

SOCKET = Path("/var/run/docker.sock")

RESTART = """
import sys, tempfile
from pathlib import Path
from recovery.components.system.process_restart import OneProcess, ProcessRestart, process_restart
from recovery.components.system.target import HostTarget
from recovery.errors import RemedyError
from recovery.runtime import DockerRuntime, Readiness, manage
from recovery.runtime.docker_replace import replace
from tests.journals import MemoryJournal

name, way = sys.argv[1:]
runtime = DockerRuntime(kind="docker", container=name)
journal = MemoryJournal(state_dir=Path(tempfile.mkdtemp()), scope=OneProcess(process="it"))
target = HostTarget.model_validate({"processes": {"it": {"runtime": runtime.model_dump()}}})
ways = {
    "restart": lambda: process_restart.remedy(target, ProcessRestart(stop_grace=1), journal),
    "stop": lambda: manage(runtime, journal.remaining).stop(1),
    "replace": lambda: replace(runtime, journal, grace=1, ready=lambda: Readiness.READY),
}
try:
    ways[way]()
except RemedyError as error:
    print(error.code, error)
else:
    print("done")
"""
WAYS = ("restart", "stop", "replace")

Start = Callable[..., "Made"]


@pytest.fixture
def start(docker_engine: DockerClient, docker_image: str) -> Iterator[Start]:
    """Containers in which this tree runs and the engine can be asked."""
    if not SOCKET.is_socket():
        unavailable(f"the engine has no socket {SOCKET} here")
    volumes = {**this_tree(), str(SOCKET): {"bind": str(SOCKET), "mode": "rw"}}
    started: list[Made] = []

    def start_one(**surroundings: Any) -> Made:
        made: Made = docker_engine.containers.run(
            docker_image,
            ["sleep", "600"],
            entrypoint="",
            name=f"recovery-test-{uuid4().hex[:8]}",
            detach=True,
            volumes=volumes,
            working_dir=str(ROOT),
            environment={"PYTHONDONTWRITEBYTECODE": "1"},
            **surroundings,
        )
        started.append(made)
        return made

    yield start_one
    for made in started:
        made.remove(force=True)


def restarted_from(worker: Made, name: str, way: str) -> str:
    done: Any = worker.exec_run([sys.executable, "-c", RESTART, name, way])
    assert done.exit_code == 0, done.output.decode()
    return str(done.output.decode().strip())


@pytest.mark.parametrize("surroundings", [{}, {"cgroupns": "private"}, {"hostname": "another"}])
def test_a_worker_does_not_restart_the_container_that_it_lives_in(
    start: Start, surroundings: dict[str, str]
) -> None:
    worker = start(network_mode="none", **surroundings)
    before = worker.attrs["Id"]

    for way in WAYS:
        assert restarted_from(worker, worker.name, way).startswith("wrong_process"), way

    worker.reload()
    assert worker.status == "running"
    assert worker.attrs["Id"] == before


def test_nor_the_one_whose_network_it_shares(start: Start) -> None:
    owner = start(network_mode="none")
    worker = start(network_mode=f"container:{owner.name}", cgroupns="private")

    for way in WAYS:
        for name in (owner.name, worker.name):
            assert restarted_from(worker, name, way).startswith("wrong_process"), (way, name)


def test_another_container_is_restarted_from_inside_one(
    start: Start, redis_container: RedisContainer
) -> None:
    worker = start(network_mode="none", cgroupns="private")
    before = redis_container.inspect()["State"]["StartedAt"]

    assert restarted_from(worker, redis_container.name, "stop") == "done"
    assert not redis_container.answers()

    redis_container.start()
    assert redis_container.inspect()["State"]["StartedAt"] != before


def test_a_worker_of_the_host_lives_in_no_container(redis_container: RedisContainer) -> None:
    with Engine.open(None, lambda: 20.0) as engine:
        assert not is_in(engine.get(redis_container.name))
    runtime = DockerRuntime(kind="docker", container=redis_container.name)
    assert not Container(runtime, lambda: 20.0).inspect().carries_us
