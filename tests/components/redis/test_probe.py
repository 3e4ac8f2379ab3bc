"""The Redis probe on servers that are really broken."""

from __future__ import annotations

import shutil
import signal

from pydantic import SecretStr

from recovery.components.redis.probe import probe
from recovery.components.redis.target import RedisTarget
from tests.servers import RedisServer
from tests.waiting import until


def found(server: RedisServer, **said: object) -> str | None:
    return probe(RedisTarget(url=server.url, **said), 1.0).failure_type


def test_a_healthy_server_is_healthy_and_has_figures(redis_server: RedisServer) -> None:
    report = probe(RedisTarget(url=redis_server.url), 1.0)

    assert report.healthy
    assert report.figures["maxclients"]


def test_a_dead_server_refuses_connections(redis_server: RedisServer) -> None:
    redis_server.kill()

    assert found(redis_server) == "connection_error"


def test_a_stopped_process_accepts_and_never_answers(redis_server: RedisServer) -> None:
    redis_server.send_signal(signal.SIGSTOP)

    assert found(redis_server) == "unresponsive"


def test_a_full_server_is_named(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.config_set("maxclients", 5)
    leaked = redis_server.leak(10)

    until(lambda: found(redis_server) == "clients_exhausted")
    for connection in leaked:
        connection.close()


def test_a_refused_password_is_an_auth_failure(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.config_set("requirepass", "right")

    assert found(redis_server) == "auth_failure"
    assert found(redis_server, password=SecretStr("wrong")) == "auth_failure"
    assert found(redis_server, password=SecretStr("right")) is None


def test_used_up_memory_is_pressure(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.config_set("maxmemory", int(client.info("memory")["used_memory"]))

    assert found(redis_server) == "memory_pressure"


def test_a_replica_where_a_primary_is_expected_is_read_only(
    redis_server: RedisServer, control_redis: RedisServer
) -> None:
    with redis_server.client() as client:
        client.replicaof("127.0.0.1", str(control_redis.port))

    assert until(lambda: found(redis_server) == "read_only")
    assert found(redis_server, role="any") is None


def test_a_server_that_cannot_save_is_a_persistence_error(redis_server: RedisServer) -> None:
    shutil.rmtree(redis_server.folder)
    with redis_server.client() as client:
        client.bgsave()

    assert until(lambda: found(redis_server) == "persistence_error")


def test_a_slow_server_has_high_latency(redis_server: RedisServer) -> None:
    assert found(redis_server, thresholds={"latency_ms": 0.000001}) == "high_latency"
