"""A container stopped and started in place, and which one a policy means."""

from __future__ import annotations

import pytest

from recovery.deadline import Deadline
from recovery.errors import NoSuchProcess
from recovery.runtime import DockerRuntime, Process, manage
from tests.containers import RedisContainer
from tests.waiting import until

pytestmark = pytest.mark.docker


def opened(**said: object) -> Process:
    return manage(DockerRuntime.model_validate({"kind": "docker", **said}), Deadline(60).remaining)


def test_it_is_seen_stopped_and_started(redis_container: RedisContainer) -> None:
    container = opened(container=redis_container.name)
    before = container.inspect()
    assert before.running
    assert before.id == redis_container.inspect()["Id"]

    container.stop(grace=2)
    container.stop(grace=2)
    assert not container.inspect().running
    assert not redis_container.answers()

    container.start()
    container.start()
    until(redis_container.answers)
    after = container.inspect()
    assert after.id == before.id
    assert (after.started_at or 0) > (before.started_at or 0)


def test_a_paused_one_is_restarted(redis_container: RedisContainer) -> None:
    redis_container.api.pause(redis_container.name)

    opened(container=redis_container.name).restart(grace=1)

    until(redis_container.answers)
    assert redis_container.is_filled()


def test_a_container_that_is_not_there_is_said(redis_container: RedisContainer) -> None:
    unknown = opened(container=f"{redis_container.name}-unknown")

    assert not unknown.inspect().exists
    with pytest.raises(NoSuchProcess):
        unknown.start()


def test_the_beginning_of_an_id_is_no_name(redis_container: RedisContainer) -> None:
    prefix = opened(container=redis_container.inspect()["Id"][:12])

    assert not prefix.inspect().exists
    with pytest.raises(NoSuchProcess):
        prefix.stop(grace=1)
    assert redis_container.answers()


def test_labels_that_two_containers_have_name_none(redis_container: RedisContainer) -> None:
    labels = {"com.docker.compose.project": redis_container.name}
    assert opened(labels=labels).inspect().running

    second = f"{redis_container.name}-2"
    document = {"Image": redis_container.image, "Cmd": ["true"], "Labels": labels}
    redis_container.api.create_container_from_config(document, name=second)

    ambiguous = opened(labels=labels).inspect()
    assert not ambiguous.exists
    assert second in ambiguous.detail
