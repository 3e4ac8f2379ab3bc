"""Through the stack's proxy a container can be replaced, put back, discarded, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recovery.components.redis.target import RedisTarget
from recovery.errors import NotReplaceable
from recovery.runtime import DockerRuntime
from recovery.runtime.docker_replace import discard
from tests.compose.filtering import PROGRAM, proxy
from tests.containers import SHORT, RedisContainer, configuration, put_back, restart
from tests.journals import MemoryJournal
from tests.waiting import until

pytestmark = pytest.mark.docker

REFUSED = {403, 405}


@pytest.fixture
def address() -> Iterator[str]:
    with proxy(binds="/etc/hostname") as found:
        yield found


def target_of(container: RedisContainer, address: str) -> RedisTarget:
    labels = {
        "com.docker.compose.project": container.name,
        "com.docker.compose.service": "redis",
    }
    runtime = DockerRuntime(kind="docker", labels=labels, base_url=address)
    return container.target.model_copy(update={"runtime": runtime})


def test_a_container_is_replaced_put_back_and_discarded_through_it(
    redis_container: RedisContainer, address: str, tmp_path: Path
) -> None:
    target, journal = target_of(redis_container, address), MemoryJournal(tmp_path)
    assert target.runtime is not None
    before = redis_container.inspect()
    redis_container.api.pause(redis_container.name)

    restart(target, journal)

    until(redis_container.answers)
    assert redis_container.inspect()["Id"] != before["Id"]
    assert redis_container.is_filled()

    put_back(target, journal)

    until(redis_container.answers)
    assert redis_container.inspect()["Id"] == before["Id"]
    assert configuration(redis_container.inspect()) == configuration(before)

    discard(target.runtime, journal.keep())  # type: ignore[arg-type]
    assert f"{redis_container.name}.recovery-{SHORT}-new" not in redis_container.family()


def test_nothing_else_of_the_engine_is_within_reach(
    redis_container: RedisContainer, address: str
) -> None:
    import requests

    name = redis_container.name
    base = f"{address.replace('tcp', 'http')}/v1.41"
    wanted: list[tuple[str, str, Any]] = [
        ("POST", f"/containers/{name}/exec", {"Cmd": ["id"]}),
        ("POST", f"/containers/{name}/attach", None),
        ("GET", f"/containers/{name}/logs?stdout=1", None),
        ("GET", f"/containers/{name}/archive?path=/data", None),
        ("PUT", f"/containers/{name}/archive?path=/data", None),
        ("GET", f"/containers/{name}/export", None),
        ("POST", "/images/create?fromImage=alpine&tag=latest", None),
        ("DELETE", f"/images/{redis_container.image}", None),
        ("POST", "/build", None),
        ("POST", "/commit?container=" + name, None),
        ("GET", "/volumes", None),
        ("DELETE", f"/volumes/{redis_container.volume}", None),
        ("POST", "/networks/create", {"Name": f"{name}-more"}),
        ("POST", "/swarm/init", {}),
        ("GET", "/secrets", None),
        ("GET", "/info", None),
        ("GET", "/events?until=1", None),
        ("POST", "/containers/prune", None),
    ]
    answered = {
        f"{method} {path}": requests.request(method, base + path, json=body, timeout=30).status_code
        for method, path, body in wanted
    }

    assert {what: code for what, code in answered.items() if code not in REFUSED} == {}
    assert redis_container.is_filled()


@pytest.mark.skipif(PROGRAM not in os.environ, reason=f"{PROGRAM} names no proxy")
def test_a_folder_of_the_machine_is_mounted_only_where_it_is_named(
    redis_container: RedisContainer, tmp_path: Path
) -> None:
    before = redis_container.inspect()

    with proxy(binds="/var/empty") as address, pytest.raises(NotReplaceable):
        restart(target_of(redis_container, address), MemoryJournal(tmp_path))

    until(redis_container.answers)
    assert redis_container.inspect()["Id"] == before["Id"]
