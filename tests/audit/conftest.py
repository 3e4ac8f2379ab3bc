"""The trail of a test, and one control Redis for tests that try many trails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from recovery.controlplane import ControlPlane
from tests.audit.trails import Trail
from tests.servers import RedisServer


@pytest.fixture(scope="module")
def audit_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("control")).start()
    yield server
    server.stop()


@pytest.fixture
def trail(audit_redis: RedisServer, tmp_path: Path) -> Iterator[Trail]:
    """Empty, on host ``one``."""
    with audit_redis.client() as client:
        client.flushdb()
        yield Trail(ControlPlane(client), tmp_path / "audit")
