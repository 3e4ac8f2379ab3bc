"""A surgery on each kind of server that a flush meets: by scripts, by transactions, before 7.0."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.components.redis.flushing import Surgery, servers_on_this_machine, surgery
from tests.servers import RedisServer

SCRIPTS, TRANSACTIONS, BEFORE_7 = "scripts", "transactions", "before 7.0"


@pytest.fixture
def patient(tmp_path: Path, redis_server: RedisServer, control_redis: RedisServer) -> Surgery:
    """On the machine's usual server."""
    return surgery(tmp_path, redis_server.url, control_redis.url)


@pytest.fixture(params=[SCRIPTS, TRANSACTIONS, BEFORE_7])
def any_patient(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    control_redis: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Surgery]:
    """The same on each kind of server in turn."""
    known = servers_on_this_machine()
    wanted = [version for version in known if (version < 7) is (request.param == BEFORE_7)]
    if not wanted:
        pytest.skip(f"no redis-server for {request.param!r} on this machine")
    monkeypatch.setenv("RECOVERY_REDIS_SERVER", known[wanted[0]])
    server = RedisServer(tmp_path / "other-target").start()
    if request.param == TRANSACTIONS:
        with server.client() as client:
            client.execute_command("ACL SETUSER limited on >pw ~* &* +@all -@scripting")
        said = {"username": "limited", "password": "pw"}
    else:
        said = {}
    yield surgery(tmp_path, server.url, control_redis.url, **said)
    server.stop()
