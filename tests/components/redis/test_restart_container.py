"""``restart_container`` on real containers: what is the same afterwards, and what if it fails."""

from __future__ import annotations

import secrets
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from recovery.components.redis.probe import probe
from recovery.components.redis.restart_container import (
    RestartContainer,
    discard,
    restart_container,
    undo,
)
from recovery.components.redis.target import RedisTarget
from recovery.deadline import Deadline
from recovery.errors import (
    DeadlineExceeded,
    NeverReady,
    NotConfigured,
    NothingKept,
    NotReplaceable,
    OwnerChanged,
    RuntimeUnavailable,
    StillUnhealthy,
    WontStart,
    WrongProcess,
)
from recovery.runtime import DockerRuntime
from tests.containers import SERVER, RedisContainer
from tests.journals import MemoryJournal
from tests.servers import RedisServer, free_port
from tests.waiting import until

FAST = RestartContainer(stop_grace=2.0)
SHORT = "1a2b3c4d"


def restart(target: RedisTarget, journal: MemoryJournal) -> MemoryJournal:
    assert restart_container.remedy is not None
    restart_container.remedy(target, FAST, journal)
    return journal


def put_back(target: RedisTarget, journal: MemoryJournal) -> MemoryJournal:
    undo(target, FAST, journal, journal.keep())
    return journal


def configuration(shown: dict[str, Any]) -> dict[str, Any]:
    """What somebody chose of a container, without what the engine made of it."""
    host = dict(shown["HostConfig"])
    # The copy names the volumes that the old one had without a name; which they are: see mounts.
    host["Binds"] = sorted(bind for bind in host["Binds"] or () if ":/scratch" not in bind)
    host["Mounts"] = [{**mount, "Source": None} for mount in host.get("Mounts") or ()]
    networks = {
        name: {
            "IPAMConfig": endpoint["IPAMConfig"] or None,
            "Aliases": sorted(set(endpoint["Aliases"] or ()) - {shown["Id"][:12]}),
            "DriverOpts": endpoint["DriverOpts"],
            "Links": endpoint["Links"],
        }
        for name, endpoint in shown["NetworkSettings"]["Networks"].items()
    }
    mounts = {
        mount["Destination"]: (mount["Type"], mount.get("Name"), mount["Source"], mount["RW"])
        for mount in shown["Mounts"]
    }
    return {
        "Config": shown["Config"],
        "HostConfig": host,
        "Image": shown["Image"],
        "Name": shown["Name"],
        "Networks": networks,
        "Mounts": mounts,
        "Ports": shown["NetworkSettings"]["Ports"],
    }


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


def test_a_crashed_container_is_replaced_and_serves(
    redis_container: RedisContainer, tmp_path: Path
) -> None:
    redis_container.api.update_container(redis_container.name, restart_policy={"Name": "no"})
    redis_container.api.kill(redis_container.name, signal.SIGKILL)
    until(lambda: not redis_container.answers())

    restart(redis_container.target, MemoryJournal(tmp_path))

    assert redis_container.is_filled()


def test_one_that_ignores_term_is_killed_after_the_grace(
    redis_container: RedisContainer, tmp_path: Path
) -> None:
    with redis_container.client() as client:
        pid = client.info("server")["process_id"]
    redis_container.run("sh", "-c", f"kill -STOP {pid}")
    assert probe(redis_container.target, 1.0).failure_type == "unresponsive"

    restart(redis_container.target, MemoryJournal(tmp_path))

    aside = redis_container.inspect(f"{redis_container.name}.recovery-{SHORT}")
    assert aside["State"]["ExitCode"] == 128 + signal.SIGKILL
    assert redis_container.is_filled()


def test_a_dry_run_says_every_step_and_touches_nothing(
    redis_container: RedisContainer, tmp_path: Path
) -> None:
    before = redis_container.inspect()

    journal = restart(redis_container.target, MemoryJournal(tmp_path, dry_run=True))

    name = redis_container.name
    aside = f"{name}.recovery-{SHORT}"
    assert journal.texts == [
        "own connection closed",
        f"a copy of {name} made: {aside}-new",
        f"{name} stopped",
        f"{name} kept from restarting by itself",
        f"{name} renamed to {aside}",
        f"{aside}-new renamed to {name}",
        f"{name} started",
    ]
    assert all(step.planned for step in journal.steps)
    assert redis_container.inspect() == before
    assert list(redis_container.family()) == [name]
    assert not (tmp_path / "kept").exists()


def test_a_second_run_of_the_same_recovery_does_nothing(
    redis_container: RedisContainer, tmp_path: Path
) -> None:
    restart(redis_container.target, MemoryJournal(tmp_path))
    first = redis_container.inspect()

    restart(redis_container.target, MemoryJournal(tmp_path))

    assert redis_container.inspect()["Id"] == first["Id"]
    assert redis_container.inspect()["State"]["StartedAt"] == first["State"]["StartedAt"]
    assert len(redis_container.family()) == 2


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

    def test_when_only_the_images_name_is_gone_the_copy_has_the_same_image(
        self, redis_container: RedisContainer, tmp_path: Path
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
        journal = MemoryJournal(tmp_path, seconds=8)
        journal.after(" started", lambda: redis_container.api.pause(redis_container.name))

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

    def test_when_the_policy_names_the_wrong_container(
        self, redis_container: RedisContainer, redis_server: RedisServer, tmp_path: Path
    ) -> None:
        before = redis_container.inspect()
        until(lambda: uptime(redis_server) > 3, what="it runs for long enough to tell")
        target = redis_container.target.model_copy(update={"url": redis_server.url})

        with pytest.raises(WrongProcess):
            restart(target, MemoryJournal(tmp_path))

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


def uptime(server: RedisServer) -> int:
    with server.client() as client:
        return int(client.info("server")["uptime_in_seconds"])


def test_a_new_one_that_is_loading_is_left_to_load(
    redis_container: RedisContainer, tmp_path: Path
) -> None:
    slow = ["--key-load-delay", "50000", "--loading-process-events-interval-bytes", "1024"]
    redis_container.remove()
    redis_container.create({**redis_container.document(), "Cmd": [*SERVER, *slow]})
    redis_container.start()
    with redis_container.client() as client:
        for number in range(100):
            client.set(f"key:{number}", secrets.token_hex(2000))
        # In this form of the file a server that loads it answers in between.
        client.bgrewriteaof()
        until(lambda: not client.info("persistence")["aof_rewrite_in_progress"])
    before = redis_container.inspect()

    with pytest.raises(StillUnhealthy, match="more time"):
        restart(redis_container.target, MemoryJournal(tmp_path, seconds=7.5))

    assert redis_container.inspect()["Id"] != before["Id"]
    until(redis_container.answers, seconds=30, what="it has loaded")


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


def test_a_target_without_runtime_is_told_which_key_is_missing(tmp_path: Path) -> None:
    with pytest.raises(NotConfigured, match="runtime") as missing:
        restart(RedisTarget(), MemoryJournal(tmp_path))

    assert missing.value.facts == {"key": "runtime"}


def test_an_engine_that_is_away_is_unavailable(tmp_path: Path) -> None:
    pytest.importorskip("docker")
    away = DockerRuntime(
        kind="docker", container="cache", base_url=f"tcp://127.0.0.1:{free_port()}"
    )

    with pytest.raises(RuntimeUnavailable):
        restart(RedisTarget(runtime=away), MemoryJournal(tmp_path))
