"""``restart_container`` on a Redis that is really broken."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from recovery.components.redis.probe import probe
from recovery.components.redis.target import RedisTarget
from recovery.deadline import Deadline
from recovery.errors import (
    NeverReady,
    NotConfigured,
    NothingKept,
    RuntimeUnavailable,
    StillUnhealthy,
    WrongProcess,
)
from recovery.runtime import CommandRuntime, DockerRuntime, Process, manage
from recovery.runtime.docker_replace import BACK_SECONDS
from tests.containers import SERVER, SHORT, RedisContainer, configuration, put_back, restart
from tests.journals import MemoryJournal
from tests.runtime import swapping
from tests.servers import RedisServer, free_port, redis_binary
from tests.waiting import until


@pytest.mark.docker
def test_a_crashed_container_is_replaced_and_serves(
    redis_container: RedisContainer, tmp_path: Path
) -> None:
    redis_container.api.update_container(redis_container.name, restart_policy={"Name": "no"})
    redis_container.api.kill(redis_container.name, signal.SIGKILL)
    until(lambda: not redis_container.answers())

    restart(redis_container.target, MemoryJournal(tmp_path))

    assert redis_container.is_filled()


@pytest.mark.docker
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


@pytest.mark.docker
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


def uptime(server: RedisServer) -> int:
    with server.client() as client:
        return int(client.info("server")["uptime_in_seconds"])


@pytest.mark.docker
def test_a_policy_that_names_the_wrong_container_is_found_out(
    redis_container: RedisContainer, redis_server: RedisServer, tmp_path: Path
) -> None:
    before = redis_container.inspect()
    until(lambda: uptime(redis_server) > 3, what="it runs for long enough to tell")
    target = redis_container.target.model_copy(update={"url": redis_server.url})

    with pytest.raises(WrongProcess):
        restart(target, MemoryJournal(tmp_path))

    until(redis_container.answers, what="the old container serves")
    assert configuration(redis_container.inspect()) == configuration(before)


@pytest.mark.docker
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

    journal = MemoryJournal(tmp_path)
    journal.after(" started", lambda: journal.begin(BACK_SECONDS + 3))

    with pytest.raises(StillUnhealthy, match="more time"):
        restart(redis_container.target, journal)

    assert redis_container.inspect()["Id"] != before["Id"]
    until(redis_container.answers, seconds=30, what="it has loaded")


def test_a_target_without_runtime_is_told_which_key_is_missing(tmp_path: Path) -> None:
    with pytest.raises(NotConfigured, match="runtime") as missing:
        restart(RedisTarget(), MemoryJournal(tmp_path))

    assert missing.value.facts == {"key": "runtime"}


@pytest.mark.docker
def test_an_engine_that_is_away_is_unavailable(tmp_path: Path) -> None:
    pytest.importorskip("docker")
    away = DockerRuntime(
        kind="docker", container="cache", base_url=f"tcp://127.0.0.1:{free_port()}"
    )

    with pytest.raises(RuntimeUnavailable):
        restart(RedisTarget(runtime=away), MemoryJournal(tmp_path))


@dataclass(slots=True)
class OwnRedis:
    """A Redis that the policy starts by a command."""

    target: RedisTarget

    @property
    def process(self) -> Process:
        assert self.target.runtime is not None
        return manage(self.target.runtime, Deadline(20).remaining)


@pytest.fixture
def own_redis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OwnRedis]:
    monkeypatch.setenv("RECOVERY_STATE_DIR", str(tmp_path / "state"))
    server = RedisServer(tmp_path)
    start = (redis_binary(), "--port", str(server.port), "--bind", "127.0.0.1", "--save", "")
    runtime = CommandRuntime(kind="command", name="own", start=start)
    own = OwnRedis(RedisTarget(url=server.url, runtime=runtime))
    own.process.start()
    until(server.answers)
    yield own
    own.process.stop(grace=1)


class TestOtherRuntimes:
    """Where nothing can be put aside, the process is restarted in place."""

    def test_a_hung_process_is_another_one_afterwards(
        self, own_redis: OwnRedis, tmp_path: Path
    ) -> None:
        hung = own_redis.process.inspect()
        os.kill(hung.pid or 0, signal.SIGSTOP)
        assert probe(own_redis.target, 1.0).failure_type == "unresponsive"

        restart(own_redis.target, MemoryJournal(tmp_path))

        assert probe(own_redis.target, 1.0).healthy
        assert own_redis.process.inspect().id != hung.id

    def test_a_hung_one_that_somebody_else_started_is_another_one_afterwards(
        self, redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RECOVERY_STATE_DIR", str(tmp_path / "state"))
        start = (redis_binary(), "--port", str(redis_server.port), "--save", "")
        runtime = CommandRuntime(kind="command", name="found", start=start)
        target = RedisTarget(url=redis_server.url, runtime=runtime)
        with redis_server.client() as client:
            hung = client.info("server")["process_id"]
        os.kill(hung, signal.SIGSTOP)
        assert probe(target, 1.0).failure_type == "unresponsive"

        restart(target, MemoryJournal(tmp_path))

        assert probe(target, 1.0).healthy
        new = manage(runtime, Deadline(20).remaining)
        assert new.inspect().pid not in (None, hung)
        new.stop(grace=1)

    @pytest.mark.parametrize("step", ["process found", "process stopped", "process started"])
    def test_killed_anywhere_the_next_run_has_it_serving(
        self, own_redis: OwnRedis, tmp_path: Path, step: str
    ) -> None:
        journal = MemoryJournal(tmp_path).after(step, swapping.die)
        swapping.start(swapping.succeed, own_redis.target, journal).dies()

        restart(own_redis.target, MemoryJournal(tmp_path))

        assert probe(own_redis.target, 1.0).healthy

    def test_a_dry_run_leaves_it_alone(self, own_redis: OwnRedis, tmp_path: Path) -> None:
        before = own_redis.process.inspect()

        journal = restart(own_redis.target, MemoryJournal(tmp_path, dry_run=True))

        assert {"process stopped", "process started"} <= set(journal.texts)
        assert own_redis.process.inspect() == before

    def test_one_that_never_answers_is_a_failure(self, own_redis: OwnRedis, tmp_path: Path) -> None:
        elsewhere = own_redis.target.model_copy(update={"url": f"redis://127.0.0.1:{free_port()}"})

        with pytest.raises(NeverReady):
            restart(elsewhere, MemoryJournal(tmp_path, seconds=2))

    def test_nothing_is_kept_that_could_be_undone(
        self, own_redis: OwnRedis, tmp_path: Path
    ) -> None:
        journal = restart(own_redis.target, MemoryJournal(tmp_path))

        assert not (tmp_path / "kept").exists()
        with pytest.raises(NothingKept, match="restarted in place"):
            put_back(own_redis.target, journal)
