"""A replacement that fails leaves the old container with its name, its policy and its process."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from recovery.deadline import Deadline
from recovery.errors import DeadlineExceeded, NeverReady, NotReplaceable, OwnerChanged, WontStart
from recovery.runtime.docker_replace import BACK_SECONDS
from tests.containers import SHORT, RedisContainer, configuration, restart
from tests.journals import MemoryJournal
from tests.waiting import until

pytestmark = pytest.mark.docker


def test_the_old_container_is_kept_and_cannot_come_up_by_itself(
    redis_container: RedisContainer, tmp_path: Path
) -> None:
    before = redis_container.inspect()

    journal = restart(redis_container.target, MemoryJournal(tmp_path))

    aside = redis_container.inspect(f"{redis_container.name}.recovery-{SHORT}")
    assert aside["Id"] == before["Id"]
    assert not aside["State"]["Running"]
    assert aside["HostConfig"]["RestartPolicy"]["Name"] in {"", "no"}
    facts = journal.keep().facts
    assert facts["old"] == before["Id"]
    assert facts["restart_policy"] == before["HostConfig"]["RestartPolicy"]
    assert "not-for-logs" not in str(facts) + str(journal.steps)


def test_a_second_run_of_the_same_recovery_does_nothing(
    redis_container: RedisContainer, tmp_path: Path
) -> None:
    restart(redis_container.target, MemoryJournal(tmp_path))
    first = redis_container.inspect()

    restart(redis_container.target, MemoryJournal(tmp_path))

    assert redis_container.inspect()["Id"] == first["Id"]
    assert redis_container.inspect()["State"]["StartedAt"] == first["State"]["StartedAt"]
    assert len(redis_container.family()) == 2


def silence(container: RedisContainer, journal: MemoryJournal) -> None:
    """Have it run and never answer, and little time left to wait for it."""
    container.api.pause(container.name)
    journal.begin(BACK_SECONDS + 1.5)


class TestGoingBack:
    """Whatever fails: the old container has its name, its restart policy and its process."""

    def check(self, container: RedisContainer, before: dict[str, Any]) -> None:
        until(container.answers, what="the old container serves")
        assert container.inspect()["Id"] == before["Id"]
        assert configuration(container.inspect()) == configuration(before)
        assert container.is_filled()
        assert list(container.family()) == [container.name]

    def test_when_the_image_is_gone(self, redis_container: RedisContainer, tmp_path: Path) -> None:
        container, api = redis_container, redis_container.api
        tag = f"{container.name}:gone"
        image = container.engine.containers.get(container.name).commit(container.name, "gone")
        container.api.stop(container.name, 1)
        container.remove()
        container.create({**container.document(), "Image": tag})
        container.start()
        container.fill()
        container.api.stop(container.name, 1)
        api.remove_image(image.id, force=True)
        before = container.inspect()

        with pytest.raises(NotReplaceable, match="image"):
            restart(container.target, MemoryJournal(tmp_path))

        assert container.inspect()["Id"] == before["Id"]
        assert not container.inspect()["State"]["Running"]
        assert list(container.family()) == [container.name]

    def test_when_the_port_was_taken_meanwhile(
        self, redis_container: RedisContainer, tmp_path: Path
    ) -> None:
        before = redis_container.inspect()
        thief = socket.socket()
        journal = MemoryJournal(tmp_path)
        journal.after("stopped", lambda: thief.bind(("127.0.0.1", redis_container.port)))
        journal.after("has its restart policy again", thief.close)

        with pytest.raises(WontStart, match="in use"):
            restart(redis_container.target, journal)

        self.check(redis_container, before)

    def test_when_the_new_one_is_never_ready(
        self, redis_container: RedisContainer, tmp_path: Path
    ) -> None:
        before = redis_container.inspect()
        journal = MemoryJournal(tmp_path)
        journal.after(" started", lambda: silence(redis_container, journal))

        with pytest.raises(NeverReady):
            restart(redis_container.target, journal)

        self.check(redis_container, before)

    def test_when_the_new_one_ends_at_once(
        self, redis_container: RedisContainer, tmp_path: Path
    ) -> None:
        redis_container.api.update_container(redis_container.name, restart_policy={"Name": "no"})
        before = redis_container.inspect()
        journal = MemoryJournal(tmp_path)
        journal.after(" started", lambda: redis_container.api.kill(redis_container.name))

        with pytest.raises(WontStart, match="ended: exited, exit code 137"):
            restart(redis_container.target, journal)

        self.check(redis_container, before)

    def test_when_the_time_is_over_before_the_new_one_runs(
        self, redis_container: RedisContainer, tmp_path: Path
    ) -> None:
        before = redis_container.inspect()
        journal = MemoryJournal(tmp_path)
        journal.after("renamed to", lambda: setattr(journal, "deadline", Deadline(0)))

        with pytest.raises(DeadlineExceeded):
            restart(redis_container.target, journal)

        self.check(redis_container, before)

    def test_when_the_worker_is_told_to_end(
        self, redis_container: RedisContainer, tmp_path: Path
    ) -> None:
        before = redis_container.inspect()
        journal = MemoryJournal(tmp_path)

        def interrupt() -> None:
            raise KeyboardInterrupt

        journal.after("renamed to", interrupt)
        with pytest.raises(KeyboardInterrupt):
            restart(redis_container.target, journal)

        self.check(redis_container, before)


def test_a_name_that_somebody_else_took_is_left_alone(
    redis_container: RedisContainer, tmp_path: Path
) -> None:
    api, name = redis_container.api, redis_container.name
    journal = MemoryJournal(tmp_path)
    stranger = {"Image": redis_container.image, "Cmd": ["sleep", "60"]}
    journal.after("renamed to", lambda: api.create_container_from_config(stranger, name=name))

    with pytest.raises(OwnerChanged):
        restart(redis_container.target, journal)

    assert redis_container.inspect()["Config"]["Cmd"] == ["sleep", "60"]
    assert f"{name}.recovery-{SHORT}" in redis_container.family()


def test_a_new_one_stays_whose_predecessor_somebody_removed(
    redis_container: RedisContainer, tmp_path: Path
) -> None:
    """It is the last one that there is."""
    api, name = redis_container.api, redis_container.name
    journal = MemoryJournal(tmp_path)
    journal.after("-new renamed to", lambda: api.remove_container(f"{name}.recovery-{SHORT}"))
    journal.after(" started", lambda: silence(redis_container, journal))

    with pytest.raises(NeverReady, match="somebody removed"):
        restart(redis_container.target, journal)

    api.unpause(name)
    until(redis_container.answers)


def test_one_that_crashes_and_is_restarted_again_and_again_is_replaced(
    redis_container: RedisContainer, tmp_path: Path
) -> None:
    container = redis_container
    container.run("sh", "-c", "mv /data/appendonlydir /data/aside && touch /data/appendonlydir")
    container.api.update_container(container.name, restart_policy={"Name": "always"})
    container.api.restart(container.name, 1)
    until(lambda: container.inspect()["State"]["Status"] == "restarting", what="it crashes")
    journal = MemoryJournal(tmp_path)
    # What made it crash is repaired while it is down.
    journal.after("stopped", lambda: container.mend("rm appendonlydir; mv aside appendonlydir"))

    restart(container.target, journal)

    assert container.is_filled()
