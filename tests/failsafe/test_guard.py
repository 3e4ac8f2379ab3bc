"""A host alone: what it repairs while the control plane is really away, and what it never does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import pytest
import redis

from recovery import audit, metrics, records
from recovery.cli.running import guard_command
from recovery.components.redis.connection import hold, release
from recovery.config import Environment, Policy
from recovery.controlplane import ControlPlane
from recovery.events import Result, TargetRef
from recovery.failsafe.guard import LOCK, Guard
from recovery.failsafe.ledger import Ledger
from recovery.failsafe.merging import merge
from recovery.instance import only_one
from tests.fleet import ROOT
from tests.policies import make_policy
from tests.servers import RedisServer, filled, redis_binary
from tests.waiting import until

TARGET = TargetRef("redis")


class Host:
    """One host with a guard, a target of its own, and a control plane that a test takes away."""

    def __init__(self, folder: Path, control: RedisServer, target: RedisServer) -> None:
        self.folder = folder
        self.control_server = control
        self.target = target
        self.control = ControlPlane(control.client())
        self.environ = {
            "RECOVERY_REDIS_URL": control.url,
            "RECOVERY_STATE_DIR": str(folder / "state"),
            "RECOVERY_HOST": "web-1",
        }
        self.leaked: list[Any] = []
        self.turn()

    def turn(
        self,
        reconnect: dict[str, Any] | None = None,
        control_plane: dict[str, Any] | None = None,
        **failsafe: Any,
    ) -> Policy:
        said = {"after_seconds": 0.01, "interval_seconds": 0.05, **failsafe}
        target = {"url": self.target.url, "host": "web-1"}
        self.policy = make_policy(
            self.folder,
            {"default": target},
            reconnect=reconnect,
            sections={"failsafe": said, "control_plane": control_plane or {}},
        )
        self.guard = Guard(Environment.read(self.environ), self.policy)
        return self.policy

    def fill(self) -> None:
        hold(self.policy.target(TARGET))
        self.leaked += filled(self.target)

    def live(self, ticks: int) -> None:
        for _ in range(ticks):
            self.guard.tick()

    def spawn(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        """The guard as a process of its own."""
        policy_file = str(self.folder / "recovery_config.yml")
        environ = {**os.environ, **self.environ, "RECOVERY_CONFIG": policy_file}
        command = [sys.executable, "-m", "recovery.failsafe"]
        return subprocess.Popen(command, cwd=ROOT, env=environ, stdout=log, stderr=log)

    def entries(self) -> list[Any]:
        return [e.fields for e in audit.history(self.control, since=audit.last_hours(2))]

    def close(self) -> None:
        release(self.policy.target(TARGET))
        self.guard.control.redis.close()
        self.control.redis.close()
        for connection in self.leaked:
            connection.close()


@pytest.fixture
def host(tmp_path: Path, control_redis: RedisServer, redis_server: RedisServer) -> Iterator[Host]:
    host = Host(tmp_path, control_redis, redis_server)
    yield host
    host.close()


def killed(server: RedisServer) -> None:
    server.kill()


def hung(server: RedisServer) -> None:
    server.send_signal(signal.SIGSTOP)


def full(server: RedisServer) -> None:
    with server.client() as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 1)


def read_only(server: RedisServer) -> None:
    with server.client() as client:
        client.replicaof("127.0.0.1", "1")


@pytest.mark.parametrize("take_away", [killed, hung, full, read_only])
def test_a_full_target_is_repaired_however_the_control_plane_is_away(
    host: Host, take_away: Callable[[RedisServer], None]
) -> None:
    host.live(1)
    host.fill()
    take_away(host.control_server)

    until(lambda: host.live(1) or host.target.answers(), seconds=30, what="the target is repaired")

    (entry,) = host.guard.ledger.entries
    assert entry.outcome is not None
    assert entry.outcome.result is Result.RECOVERED
    assert entry.outcome.before is not None
    assert entry.outcome.before.failure_type == "clients_exhausted"


def test_what_was_done_alone_is_told_exactly_once(host: Host) -> None:
    host.fill()
    host.control_server.kill()
    until(lambda: host.live(1) or host.target.answers(), what="the target is repaired")
    host.control_server.start()

    until(lambda: host.live(1) or not host.guard.ledger.unmerged, what="it is told")
    (entry,) = host.guard.ledger.entries
    again = Ledger(host.guard.ledger.path)
    again._entries = {entry.id: type(entry)(**{**as_fields(entry), "merged": False})}
    merge(host.control, host.policy, again)

    assert [found["result"] for found in host.entries()] == ["recovered"]
    assert host.entries()[0]["by"] == "failsafe"
    assert host.control.redis.zcard(host.control.key("attempts", TARGET)) == 1
    assert metrics.snapshot(host.control).recovered == 1
    assert records.load(host.control, entry.id).state == "concluded"


def as_fields(entry: Any) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in entry.__slots__}


def test_a_dead_target_cools_down_and_stays_within_the_limit(host: Host) -> None:
    host.target.kill()
    host.control_server.kill()

    until(lambda: host.live(1) or host.guard.ledger.entries, what="something was tried")
    host.live(5)

    assert [entry.result for entry in host.guard.ledger.entries] == [Result.FAILED]
    host.control_server.start()
    until(lambda: host.live(1) or not host.guard.ledger.unmerged, what="it is told")
    left = host.control.redis.pttl(host.control.key("cooldown", TARGET))
    assert 0 < left < 300_000
    assert host.control.redis.hget(host.control.key("target", TARGET), "level") == "2"


@pytest.mark.parametrize(
    "said", [{"requires_approval": True}, {"auto_trigger": False}], ids=["approval", "by hand"]
)
def test_what_needs_a_person_is_not_done_alone(host: Host, said: dict[str, Any]) -> None:
    host.turn(reconnect=said)
    host.fill()
    host.control_server.kill()

    host.live(5)

    assert not host.guard.ledger.entries
    assert not host.target.answers()


def test_a_target_of_another_host_is_left_alone(host: Host) -> None:
    host.environ["RECOVERY_HOST"] = "web-2"
    host.turn()

    assert not host.guard.own_targets()


def test_a_target_of_no_host_belongs_to_the_one_that_the_policy_names(host: Host) -> None:
    host.policy = make_policy(host.folder, {"default": {"url": host.target.url}})
    unnamed = Guard(Environment.read(host.environ), host.policy)
    host.policy = make_policy(
        host.folder,
        {"default": {"url": host.target.url}},
        sections={"failsafe": {"unbound_host": "web-1"}},
    )
    named = Guard(Environment.read(host.environ), host.policy)

    assert not unnamed.own_targets()
    assert named.own_targets() == (TARGET,)
    for guard in (unnamed, named):
        guard.control.redis.close()


def test_nothing_is_done_before_the_control_plane_has_been_away_for_a_while(host: Host) -> None:
    host.turn(after_seconds=3600)
    host.fill()
    host.control_server.kill()

    host.live(5)

    assert not host.guard.is_alone
    assert not host.guard.ledger.entries


def test_a_second_guard_of_a_host_stands_by(host: Host) -> None:
    host.target.kill()
    host.control_server.kill()
    log = (host.folder / "guard.log").open("wb")
    with only_one(host.folder / "state", LOCK):
        second = host.spawn(log)
        until(lambda: host.live(1) or host.guard.ledger.entries, what="the first one acts")
        assert "guard watches" not in (host.folder / "guard.log").read_text()
    second.terminate()
    second.wait(10)
    log.close()


@pytest.mark.kill
def test_a_guard_killed_under_a_remedy_does_not_repeat_it_and_tells_of_it(host: Host) -> None:
    host.target.send_signal(signal.SIGSTOP)
    host.control_server.kill()
    log = (host.folder / "guard.log").open("wb")
    first = host.spawn(log)
    path = host.folder / "state" / "failsafe" / "ledger.jsonl"
    until(lambda: path.exists() and "begun" in path.read_text(), what="a remedy begins")
    first.kill()
    first.wait()
    host.target.send_signal(signal.SIGCONT)
    begun = Ledger(path)
    assert len(begun.entries) == 1
    assert begun.entries[0].outcome is None

    host.target.kill()
    second = host.spawn(log)
    until(
        lambda: "cooldown" in (host.folder / "guard.log").read_text(),
        seconds=20,
        what="the second guard refuses to repeat it",
    )
    host.control_server.start()
    until(lambda: len(host.entries()) == 1, seconds=20, what="it is told")
    second.terminate()
    second.wait(10)
    log.close()

    assert len(Ledger(path).entries) == 1
    assert host.entries()[0]["error"] == "worker_lost"


@pytest.mark.parametrize("cut", [1, 7, 40])
def test_a_torn_last_line_is_cut_off_and_the_rest_stands(host: Host, cut: int) -> None:
    host.fill()
    host.control_server.kill()
    until(lambda: host.live(1) or host.guard.ledger.entries, what="something was done")
    path = host.guard.ledger.path
    os.truncate(path, path.stat().st_size - cut)

    read = Ledger(path)

    assert [entry.id for entry in read.entries] == [host.guard.ledger.entries[0].id]
    assert read.entries[0].outcome is None
    read.mark_merged(read.entries[0].id)
    assert Ledger(path).entries[0].merged


def test_a_guard_is_started_where_the_policy_wants_one(host: Host) -> None:
    assert guard_command(host.policy)
    assert not guard_command(host.turn(enabled=False))


def runtime_of(server: RedisServer) -> dict[str, Any]:
    command = [redis_binary(), "--port", str(server.port), "--dir", str(server.folder)]
    command += ["--bind", "127.0.0.1", "--appendonly", "yes", "--save", ""]
    return {"kind": "command", "name": "control", "start": command}


def stop_started(server: RedisServer) -> None:
    with server.client() as client, suppress(redis.RedisError):
        client.shutdown(nosave=True)


def test_a_killed_control_redis_is_restarted_first_and_the_trail_says_so(host: Host) -> None:
    host.turn(control_plane={"runtime": runtime_of(host.control_server)})
    host.live(1)
    host.target.kill()
    host.control_server.kill()

    until(lambda: host.live(1) or host.control_server.answers(), seconds=30, what="it answers")
    until(lambda: host.live(1) or not host.guard.ledger.unmerged, what="it is told")

    (entry,) = host.entries()
    assert (entry["target"], entry["strategy"]) == ("control/web-1", "restart")
    assert (entry["result"], entry["by"]) == ("recovered", "failsafe")
    stop_started(host.control_server)


def test_a_control_redis_of_another_host_is_not_restarted_here(host: Host) -> None:
    runtime = runtime_of(host.control_server)
    host.turn(control_plane={"runtime": runtime, "host": "db-1"})
    host.control_server.kill()

    host.live(5)

    assert not host.guard.ledger.entries
    assert not host.control_server.answers()


def test_a_control_redis_that_answers_and_refuses_is_not_restarted(host: Host) -> None:
    host.turn(control_plane={"runtime": runtime_of(host.control_server)})
    full(host.control_server)

    host.live(5)

    assert host.guard.away_since is not None
    assert not host.guard.ledger.entries
