"""What a replacement keeps: brought back by undo, given up by discard."""

from __future__ import annotations

from pathlib import Path

import pytest

from recovery.components.redis.restart_container import discard
from recovery.errors import NothingKept, OwnerChanged
from tests.containers import FAST, SHORT, RedisContainer, configuration, put_back, restart
from tests.journals import MemoryJournal

pytestmark = pytest.mark.docker


class TestUndo:
    def test_the_old_one_is_back_and_the_new_one_kept(
        self, redis_container: RedisContainer, tmp_path: Path
    ) -> None:
        before = redis_container.inspect()
        restart(redis_container.target, MemoryJournal(tmp_path))
        new = redis_container.inspect()["Id"]

        for _ in range(2):
            put_back(redis_container.target, MemoryJournal(tmp_path))

            assert configuration(redis_container.inspect()) == configuration(before)
            assert redis_container.inspect()["Id"] == before["Id"]
            assert redis_container.is_filled()
            kept = redis_container.inspect(f"{redis_container.name}.recovery-{SHORT}-new")
            assert kept["Id"] == new
            assert not kept["State"]["Running"]
            assert kept["HostConfig"]["RestartPolicy"]["Name"] in {"", "no"}

    def test_a_dry_run_says_it_and_touches_nothing(
        self, redis_container: RedisContainer, tmp_path: Path
    ) -> None:
        restart(redis_container.target, MemoryJournal(tmp_path))
        before = redis_container.inspect()

        journal = put_back(redis_container.target, MemoryJournal(tmp_path, dry_run=True))

        assert all(step.planned for step in journal.steps)
        assert f"{redis_container.name} started again" in journal.texts
        assert redis_container.inspect() == before

    def test_the_later_one_has_to_be_undone_first(
        self, redis_container: RedisContainer, tmp_path: Path
    ) -> None:
        first = redis_container.inspect()["Id"]
        restart(redis_container.target, MemoryJournal(tmp_path, recovery_id="one"))
        restart(redis_container.target, MemoryJournal(tmp_path, recovery_id="two"))

        with pytest.raises(OwnerChanged):
            put_back(redis_container.target, MemoryJournal(tmp_path, recovery_id="one"))
        assert redis_container.is_filled()

        put_back(redis_container.target, MemoryJournal(tmp_path, recovery_id="two"))
        put_back(redis_container.target, MemoryJournal(tmp_path, recovery_id="one"))
        assert redis_container.inspect()["Id"] == first
        assert redis_container.is_filled()

    def test_what_was_discarded_cannot_be_undone(
        self, redis_container: RedisContainer, tmp_path: Path
    ) -> None:
        journal = restart(redis_container.target, MemoryJournal(tmp_path))
        discard(redis_container.target, FAST, journal.keep())

        with pytest.raises(NothingKept):
            put_back(redis_container.target, MemoryJournal(tmp_path))

        assert redis_container.is_filled()


class TestDiscard:
    def test_the_old_container_goes_and_every_volume_stays(
        self, redis_container: RedisContainer, tmp_path: Path
    ) -> None:
        journal = restart(redis_container.target, MemoryJournal(tmp_path))

        for _ in range(2):
            discard(redis_container.target, FAST, journal.keep())

            assert list(redis_container.family()) == [redis_container.name]
            assert redis_container.is_filled()

    def test_after_an_undo_the_new_container_goes(
        self, redis_container: RedisContainer, tmp_path: Path
    ) -> None:
        journal = restart(redis_container.target, MemoryJournal(tmp_path))
        put_back(redis_container.target, MemoryJournal(tmp_path))

        discard(redis_container.target, FAST, journal.keep())

        assert list(redis_container.family()) == [redis_container.name]
        assert redis_container.is_filled()

    def test_one_that_somebody_started_stays(
        self, redis_container: RedisContainer, tmp_path: Path
    ) -> None:
        journal = restart(redis_container.target, MemoryJournal(tmp_path))
        aside = f"{redis_container.name}.recovery-{SHORT}"
        redis_container.api.stop(redis_container.name, 1)
        redis_container.api.start(aside)

        discard(redis_container.target, FAST, journal.keep())

        assert redis_container.family()[aside] == "running"

    def test_without_the_target_its_anonymous_volumes_stay(
        self, redis_container: RedisContainer, tmp_path: Path
    ) -> None:
        journal = restart(redis_container.target, MemoryJournal(tmp_path))
        volumes = [m["Name"] for m in redis_container.inspect()["Mounts"] if m.get("Name")]
        redis_container.api.remove_container(redis_container.name, force=True)

        discard(redis_container.target, FAST, journal.keep())

        for volume in volumes:
            redis_container.api.inspect_volume(volume)
        for volume in set(volumes) - {redis_container.volume}:
            redis_container.api.remove_volume(volume)

    def test_anonymous_volumes_go_that_the_target_has_others_for(
        self, redis_container: RedisContainer, tmp_path: Path
    ) -> None:
        journal = restart(redis_container.target, MemoryJournal(tmp_path))
        mounts = {m["Destination"]: m for m in redis_container.inspect()["Mounts"]}
        redis_container.api.remove_container(redis_container.name, force=True)
        redis_container.create()

        discard(redis_container.target, FAST, journal.keep())

        left = {volume["Name"] for volume in redis_container.api.volumes()["Volumes"]}
        assert redis_container.volume in left
        assert not {mounts["/scratch"]["Name"], mounts["/spare"]["Name"]} & left
