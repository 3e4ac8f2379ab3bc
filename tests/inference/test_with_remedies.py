"""The whole of it: an application asks, things break, the remedies run, and it is answered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import recovery.client
from recovery import degraded
from recovery.controlplane import ControlPlane
from recovery.events import Result
from recovery.returning import Way
from tests.components.openwebui.describing import DIRECT_KEY
from tests.components.openwebui.installation import Installation, install
from tests.inference.conftest import QUESTION, Askers
from tests.openwebui import OpenWebui
from tests.servers import RedisServer
from tests.upstreams import KEY, AnthropicUpstream
from tests.waiting import until


@pytest.fixture
def installation(
    environ: pytest.MonkeyPatch,
    tmp_path: Path,
    control: ControlPlane,
    control_redis: RedisServer,
    openwebui: OpenWebui,
    anthropic_upstream: AnthropicUpstream,
) -> Iterator[Installation]:
    """Signed in, with an application that listens."""
    environ.setenv(DIRECT_KEY, KEY)
    environ.setenv("RECOVERY_STATE_DIR", str(tmp_path / "state"))
    found = install(tmp_path, control, openwebui, anthropic_upstream)
    found.sign_in()
    recovery.client.stop()
    recovery.client.start(control_redis.url)
    yield found
    recovery.client.stop()


@pytest.mark.kill
def test_a_dead_openwebui_is_gone_around_and_come_back_to(
    installation: Installation, asker: Askers
) -> None:
    ours = asker()
    assert (ours.chat(QUESTION).road, ours.chat(QUESTION).after) == ("openwebui", "")
    installation.server.kill()
    assert ours.chat(QUESTION).after == "service_unavailable"

    assert installation.recover("service_unavailable").result is Result.REROUTED

    until(lambda: not degraded.may_use("model_switching"), seconds=40, what="the mode is heard")
    until(lambda: ours.roads.plan().endpoints[0].road == "direct", seconds=40)
    assert (ours.chat(QUESTION).road, ours.chat(QUESTION).after) == ("direct", "")
    assert ours.stream(QUESTION)[1].road == "direct"
    installation.server.start()
    until(lambda: installation.follow().way is Way.LED_BACK, seconds=40)
    until(lambda: ours.chat(QUESTION).road == "openwebui", seconds=40, what="it is taken back")
    until(lambda: degraded.may_use("model_switching"), seconds=40, what="the mode is over")


def test_a_refused_token_and_a_dead_model_are_mended_behind_the_applications_back(
    installation: Installation, asker: Askers
) -> None:
    ours = asker()
    assert ours.chat(QUESTION).road == "openwebui"
    installation.server.secret = b"second"
    assert ours.chat(QUESTION).after == "auth_failure"

    assert installation.recover("auth_failure").result is Result.RECOVERED

    until(lambda: ours.chat(QUESTION).road == "openwebui", seconds=40, what="the new token holds")
    installation.upstream.modes["llama-3"] = "500"
    assert ours.chat(QUESTION).after == "model_error"
    assert installation.recover("model_error").result is Result.RECOVERED
    until(lambda: ours.chat(QUESTION).model == "deepseek-chat", seconds=40, what="the other model")
