"""The copy of a container: the same in every field, on the same volumes."""

from __future__ import annotations

from pathlib import Path

import pytest

from recovery.components.redis.probe import probe
from recovery.errors import NotReplaceable
from recovery.runtime import DockerRuntime
from tests.containers import RedisContainer, configuration, restart
from tests.journals import MemoryJournal

pytestmark = pytest.mark.docker


def test_the_new_container_is_the_old_one_in_every_field_and_has_its_data(
    redis_container: RedisContainer, tmp_path: Path
) -> None:
    before = redis_container.inspect()
    redis_container.api.pause(redis_container.name)
    assert probe(redis_container.target, 1.0).failure_type == "unresponsive"

    restart(redis_container.target, MemoryJournal(tmp_path))

    after = redis_container.inspect()
    assert after["Id"] != before["Id"]
    assert configuration(after) == configuration(before)
    assert redis_container.is_filled()
    assert probe(redis_container.target, 1.0).healthy


def test_a_container_without_choices_gets_a_hostname_and_address_of_its_own(
    redis_container: RedisContainer, tmp_path: Path
) -> None:
    redis_container.remove()
    port = {"6379/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(redis_container.port)}]}
    command = ["redis-server", "--protected-mode", "no"]
    plain = {
        "Image": redis_container.image,
        "Cmd": command,
        "ExposedPorts": {"6379/tcp": {}},
        "HostConfig": {"PortBindings": port},
    }
    redis_container.api.create_container_from_config(plain, name=redis_container.name)
    redis_container.start()
    before = redis_container.inspect()

    restart(redis_container.target, MemoryJournal(tmp_path))

    after = redis_container.inspect()
    assert after["Config"]["Hostname"] == after["Id"][:12]
    before["Config"]["Hostname"] = after["Config"]["Hostname"]
    assert configuration(after) == configuration(before)


def test_a_container_is_found_by_its_labels_and_what_is_aside_is_not(
    redis_container: RedisContainer, tmp_path: Path
) -> None:
    labels = {
        "com.docker.compose.project": redis_container.name,
        "com.docker.compose.service": "redis",
    }
    target = redis_container.target.model_copy(
        update={"runtime": DockerRuntime(kind="docker", labels=labels)}
    )
    first = redis_container.inspect()["Id"]

    restart(target, MemoryJournal(tmp_path))
    second = redis_container.inspect()["Id"]
    restart(target, MemoryJournal(tmp_path, recovery_id="another"))

    assert len({first, second, redis_container.inspect()["Id"]}) == 3
    assert redis_container.is_filled()


def test_where_only_the_images_name_is_gone_the_copy_has_the_same_image(
    redis_container: RedisContainer, tmp_path: Path
) -> None:
    container = redis_container
    container.engine.containers.get(container.name).commit(container.name, "moved")
    container.remove()
    container.create({**container.document(), "Image": f"{container.name}:moved"})
    container.start()
    container.fill()
    image = container.inspect()["Image"]
    container.api.remove_image(f"{container.name}:moved", force=True)

    restart(container.target, MemoryJournal(tmp_path))

    assert container.inspect()["Image"] == image
    assert container.is_filled()
    container.remove()
    container.api.remove_image(image)


def test_a_container_that_removes_itself_is_not_stopped(
    redis_container: RedisContainer, tmp_path: Path
) -> None:
    document = redis_container.document()
    redis_container.remove()
    host = {**document["HostConfig"], "AutoRemove": True, "RestartPolicy": {"Name": "no"}}
    redis_container.create({**document, "HostConfig": host})
    redis_container.start()

    with pytest.raises(NotReplaceable, match="--rm"):
        restart(redis_container.target, MemoryJournal(tmp_path))

    assert redis_container.answers()
