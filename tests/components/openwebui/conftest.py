"""What the tests of Open WebUI share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from recovery import encryption
from recovery.components.openwebui.target import OpenWebuiTarget
from recovery.controlplane import ControlPlane
from recovery.memory import TargetMemory
from tests.components.openwebui import instances
from tests.components.openwebui.describing import DIRECT_KEY, REF, described
from tests.components.openwebui.installation import Installation, install
from tests.components.openwebui.instances import Instance, Real, StandIn
from tests.journals import RECOVERY
from tests.openwebui import OpenWebui
from tests.servers import RedisServer
from tests.upstreams import KEY, AnthropicUpstream


@pytest.fixture(scope="session")
def real_one() -> Iterator[Real | None]:
    """Starting takes a while, so it is started once."""
    found = instances.real()
    yield found
    if found is not None:
        found.kill()


@pytest.fixture(params=["standing in", pytest.param("real", marks=pytest.mark.openwebui)])
def instance(request: pytest.FixtureRequest) -> Iterator[Instance]:
    """A running Open WebUI and its model server, which the test may kill."""
    if request.param == "standing in":
        yield StandIn(request.getfixturevalue("openwebui"))
        return
    found = request.getfixturevalue("real_one")
    if found is None:
        pytest.skip("RECOVERY_OPENWEBUI_URL names no real Open WebUI")
    found.upstream.reset()
    found.upstream.start()
    found.start()
    yield found
    found.upstream.kill()


@pytest.fixture(autouse=True)
def secret_key(monkeypatch: pytest.MonkeyPatch) -> str:
    key = encryption.new_key()
    monkeypatch.setenv("RECOVERY_SECRET_KEY", key)
    return key


@pytest.fixture
def control(control_redis: RedisServer) -> Iterator[ControlPlane]:
    control = ControlPlane(control_redis.client())
    yield control
    control.redis.close()


@pytest.fixture
def memory(control: ControlPlane) -> TargetMemory:
    """As a recovery has it: outside of one nobody asks a model."""
    return TargetMemory(control, REF, recovery_id=RECOVERY)


@pytest.fixture
def target(openwebui: OpenWebui, memory: TargetMemory) -> OpenWebuiTarget:
    return described(openwebui.url, memory)


@pytest.fixture
def installation(
    tmp_path: Path,
    control: ControlPlane,
    openwebui: OpenWebui,
    anthropic_upstream: AnthropicUpstream,
    monkeypatch: pytest.MonkeyPatch,
) -> Installation:
    """Everything is well, and applications have a token."""
    monkeypatch.setenv(DIRECT_KEY, KEY)
    monkeypatch.setenv("RECOVERY_STATE_DIR", str(tmp_path / "state"))
    found = install(tmp_path, control, openwebui, anthropic_upstream)
    found.sign_in()
    return found
