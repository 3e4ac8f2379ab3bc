"""An application reports what it met: from the exception to the event, and to the repair."""

from __future__ import annotations

import base64
import errno
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu import pools

import recovery.client
from recovery import audit
from recovery.client.reports import (
    _BY_CLASS,
    _BY_ERRNO,
    _BY_TEXT,
    _CALLED,
    DEFAULT_TARGET,
    failure_type,
)
from recovery.controlplane import ControlPlane
from recovery.finding import find_component
from tests.client.conftest import TARGET
from tests.fleet import ROOT, Fleet
from tests.servers import RedisServer, black_hole, free_port
from tests.stack import Stack
from tests.waiting import until


def met(action: Callable[[], object]) -> BaseException:
    """The first error: a server may need a moment to be as broken as it was made."""

    def fails() -> BaseException | None:
        try:
            action()
        except (redis.RedisError, OSError) as error:
            return error
        return None

    error = until(fails, what="something goes wrong")
    assert error is not None
    return error


def fresh(client: redis.Redis) -> None:
    client.connection_pool.disconnect()
    client.ping()


def events(control: ControlPlane) -> list[dict[str, Any]]:
    """The arguments of the messages that no dispatcher has taken yet."""
    found = []
    for text in control.redis.lrange("dispatch", 0, -1):
        message = json.loads(text)
        body = json.loads(base64.b64decode(message["body"]))
        found.append({"id": message["headers"]["id"], **body[1]})
    return found


def test_what_a_client_meets_is_named_as_the_probe_names_it(redis_server: RedisServer) -> None:
    client = redis_server.client()
    assert failure_type(met(lambda: client.execute_command("NOSUCH")), "redis") is None
    client.config_set("maxmemory", 1)
    assert failure_type(met(lambda: client.set("key", "value")), "redis") == "memory_pressure"
    client.config_set("maxmemory", 0)
    client.replicaof("127.0.0.1", str(free_port()))
    assert failure_type(met(lambda: client.set("key", "value")), "redis") == "read_only"
    client.replicaof("NO", "ONE")
    client.config_set("requirepass", "right")
    assert failure_type(met(redis_server.client().ping), "redis") == "auth_failure"
    client.close()


def test_a_full_a_dead_and_an_unreachable_server_are_told_apart(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.config_set("maxclients", 5)
    leaked = redis_server.leak(10)
    refused = redis_server.client()
    assert failure_type(met(lambda: fresh(refused)), "redis") == "clients_exhausted"
    for connection in leaked:
        connection.close()
    redis_server.kill()
    assert failure_type(met(refused.ping), "redis") == "connection_error"
    with black_hole() as port:
        silent = redis.Redis(port=port, socket_connect_timeout=0.05, retry=None)
        assert failure_type(met(silent.ping), "redis") == "connection_timeout"


def test_a_clients_own_limit_is_no_failure_of_the_server(redis_server: RedisServer) -> None:
    for kind, options in (
        (redis.ConnectionPool, {}),
        (redis.BlockingConnectionPool, {"timeout": 0.01}),
    ):
        pool = kind.from_url(redis_server.url, max_connections=1, **options)
        held = pool.get_connection()
        assert failure_type(met(pool.get_connection), "redis") is None
        pool.release(held)
        pool.disconnect()


@pytest.mark.parametrize(
    ("error", "component", "expected"),
    [
        (ConnectionRefusedError(), "openwebui", "service_unavailable"),
        (ConnectionRefusedError(), "chromadb", "temporary_failure"),
        (TimeoutError(), "chromadb", "connection_timeout"),
        (ConnectionRefusedError(), "system", None),
        (OSError(errno.ENOSPC, "full"), "system", "disk_full"),
        (OSError(errno.EMFILE, "many"), "system", "open_file_limit_reached"),
        (OSError(errno.EMFILE, "many"), "redis", None),
        (KeyError("bug"), "redis", None),
        (ConnectionRefusedError(), "nosuch", None),
    ],
)
def test_each_component_has_its_own_names(
    error: BaseException, component: str, expected: str | None
) -> None:
    assert failure_type(error, component) == expected


def test_every_name_that_a_report_may_give_is_declared_by_its_component() -> None:
    given = {component: set(names.values()) for component, names in _CALLED.items()}
    given["redis"] = {name for name in (*_BY_CLASS.values(), *_BY_TEXT.values()) if name}

    for component, names in given.items():
        declared = {failure.name for failure in find_component(component).failure_types}
        assert names <= declared, component
    assert set(_BY_ERRNO.values()) <= given["system"]


def test_a_thousand_reports_of_one_failure_are_one_event(
    listening: None, control: ControlPlane
) -> None:
    took: list[bool] = []

    def tell() -> None:
        lost = redis.ConnectionError("lost")
        took.extend(recovery.client.report(lost, target=TARGET) for _ in range(100))

    threads = [threading.Thread(target=tell) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert recovery.client.report("corruption_detected", target=TARGET)
    assert recovery.client.report("connection_error", target="redis", every=0)

    sent = until(lambda: found if len(found := events(control)) == 3 else None, seconds=20)
    assert sent is not None
    assert took.count(True) == 1
    first = next(event for event in sent if event["failure_type"] == "connection_error")
    assert {event.get("target") for event in sent} == {"cache", None}
    assert first["source"] == "api"
    assert DEFAULT_TARGET not in json.dumps(sent)


def test_an_exceptions_text_goes_nowhere(listening: None, control: ControlPlane) -> None:
    secret = redis.ConnectionError("cannot reach redis://user:hunter2@cache")

    assert recovery.client.report(secret, target=TARGET)

    (event,) = until(lambda: events(control), seconds=20)
    assert "hunter2" not in json.dumps(event)
    assert event["context"]["figures"]["error"] == "ConnectionError"
    assert event["context"]["figures"]["pid"] == os.getpid()


def test_a_report_leaves_the_applications_own_broker_pools_alone(
    listening: None, control: ControlPlane
) -> None:
    before = pools.get_limit()
    pools.set_limit(3)

    assert recovery.client.report("connection_error", target=TARGET)

    until(lambda: events(control), seconds=20)
    assert pools.get_limit() == 3
    pools.set_limit(before)

    def connections() -> int:
        return len(control.redis.client_list(_type="normal"))

    until(lambda: connections() == 1, what="no connection stays but the asking one")


@pytest.mark.kill
def test_a_report_waits_for_a_broker_that_is_away(
    listening: None, control: ControlPlane, control_redis: RedisServer
) -> None:
    control_redis.kill()

    assert recovery.client.report("connection_error", target=TARGET)

    control_redis.start()
    (event,) = until(lambda: events(control), seconds=30)
    assert event["failure_type"] == "connection_error"


class _Unprintable(ConnectionError):
    def __str__(self) -> str:
        raise ValueError("no text")


@pytest.mark.parametrize("failure", [_Unprintable(), "no such\nfailure", "x" * 100, None, 3])
@pytest.mark.parametrize("target", [TARGET, "", "no target/at all", None])
def test_a_report_never_raises(listening: None, failure: Any, target: Any) -> None:
    assert recovery.client.report(failure, target=target) in (True, False)


def test_what_an_application_reported_before_it_died_is_sent(
    control: ControlPlane, control_redis: RedisServer
) -> None:
    program = (
        "import recovery.client\n"
        "try:\n"
        "    raise ConnectionError('lost')\n"
        "except ConnectionError as error:\n"
        "    recovery.client.report(error, target='redis/cache')\n"
        "    raise\n"
    )
    environ = {**os.environ, "RECOVERY_REDIS_URL": control_redis.url}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 1, done.stderr
    (event,) = events(control)
    assert event["failure_type"] == "connection_error"


@pytest.mark.slow
def test_a_reported_failure_is_repaired(stack: Stack, fleet: Fleet, tmp_path: Path) -> None:
    fleet.start()
    recovery.client.stop()
    assert recovery.client.start(stack.environ["RECOVERY_REDIS_URL"], wait=20)
    stack.exhaust_clients()

    client = stack.target.client()

    def connect() -> None:
        # A place that somebody has left in the meantime is taken too.
        stack.leaked.extend(stack.target.leak(1))
        fresh(client)

    assert recovery.client.report(met(connect), target="redis")

    def entry() -> audit.AuditEntry | None:
        found = audit.history(stack.control, since=audit.last_hours(1))
        return next((e for e in found if e.fields["result"] == "recovered"), None)

    assert until(entry, seconds=20, what=fleet.logs())
    assert stack.target.answers()
    recovery.client.stop()
