"""The Redis probe on servers that are really broken."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import trustme
from pydantic import SecretStr

from recovery.components.redis.probe import probe
from recovery.components.redis.target import RedisTarget
from tests.servers import RedisServer, black_hole, free_port, redis_binary
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


def test_clients_near_the_limit_are_named_before_it_is_reached(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.config_set("maxclients", 20)
    leaked = redis_server.leak(12)

    assert found(redis_server) is None
    assert found(redis_server, thresholds={"clients_percent": 50}) == "clients_exhausted"
    for connection in leaked:
        connection.close()


def test_a_server_that_drops_packets_is_a_connection_timeout() -> None:
    with black_hole() as port:
        target = RedisTarget(url=f"redis://127.0.0.1:{port}/0", connect_timeout=0.2)

        report = probe(target, 5.0)

    assert report.failure_type == "connection_timeout"
    assert "0.2 s" in report.summary


def test_a_server_that_loads_its_data_is_left_alone(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        pipe = client.pipeline(transaction=False)
        for number in range(1_500):
            pipe.set(f"key:{number}", os.urandom(8_000))
        pipe.execute()
        client.config_set("save", "3600 1")
    redis_server.process.terminate()
    redis_server.process.wait()
    # Microseconds a key; the server looks at its clients every 2 MB.
    redis_server.options["key-load-delay"] = "5000"
    redis_server.start(wait=False)

    target = RedisTarget(url=redis_server.url)
    assert until(lambda: probe(target, 6.0).failure_type == "loading")
    redis_server.kill()


def test_a_server_on_a_unix_socket_is_probed(redis_server: RedisServer, tmp_path: Path) -> None:
    redis_server.stop()
    path = tmp_path / "redis.sock"
    redis_server.options["unixsocket"] = str(path)
    redis_server.start()

    assert probe(RedisTarget(url=f"unix://{path}"), 1.0).healthy


def test_a_server_behind_tls_is_probed_and_trusted_by_its_own_authority(tmp_path: Path) -> None:
    if not has_tls():
        pytest.skip(f"{redis_binary()} was built without TLS")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    port = free_port()
    server = RedisServer(
        tmp_path / "tls",
        {
            "tls-port": str(port),
            "tls-cert-file": str(tmp_path / "cert.pem"),
            "tls-key-file": str(tmp_path / "key.pem"),
            "tls-ca-cert-file": str(tmp_path / "ca.pem"),
            "tls-auth-clients": "no",
        },
    ).start()
    url = f"rediss://127.0.0.1:{port}/0"

    assert probe(RedisTarget(url=url, tls_ca_file=str(tmp_path / "ca.pem")), 2.0).healthy
    assert probe(RedisTarget(url=url), 2.0).failure_type == "connection_error"
    server.stop()


def has_tls() -> bool:
    command = [redis_binary(), "--port", "0", "--tls-port", "1", "--tls-cert-file", "/nowhere"]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    return "Bad directive" not in said.stdout + said.stderr
