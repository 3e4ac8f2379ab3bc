"""Remedies of Open WebUI whose worker is killed at any moment: no route is lost, none is wrong.

``RECOVERY_KILLS``: how many rounds of the three, where somebody wants to know for sure.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recovery import encryption, routing
from recovery.events import Result
from recovery.routing import Road, Route
from tests.components.openwebui.describing import DIRECT_KEY, PRIMARY, REF
from tests.components.openwebui.installation import described_target, write
from tests.fleet import Fleet, Worker
from tests.openwebui import OpenWebui
from tests.stack import Stack
from tests.upstreams import KEY, AnthropicUpstream, OpenAiUpstream
from tests.waiting import until

ROUNDS = int(os.environ.get("RECOVERY_KILLS", "1"))
LONGEST_WAIT = 0.6
PATIENCE = 120.0

pytestmark = [pytest.mark.kill, pytest.mark.slow]


class Travel:
    """Applications that ask an Open WebUI, and workers that die while they repair it."""

    def __init__(self, stack: Stack, fleet: Fleet, webui: OpenWebui) -> None:
        self.stack = stack
        self.fleet = fleet
        self.webui = webui
        fleet.start(queues=("dispatch", "redis", "notify", "maintenance"))
        self.victim: Worker = self.worker()

    def worker(self) -> Worker:
        return self.fleet.start(queues=("openwebui",), beat=False, concurrency=1)

    def killed_while_it_repairs(self, failure: str) -> str:
        """An event whose worker dies somewhere on the way; how it ended under the next one."""
        sent = self.stack.trigger(failure, component="openwebui")
        wait = random.uniform(0, LONGEST_WAIT)
        time.sleep(wait)
        self.victim.kill()
        self.victim = self.worker()
        record = self.stack.concluded(sent, seconds=PATIENCE)
        assert record.outcome is not None
        assert record.outcome.result in {
            Result.RECOVERED,
            Result.REROUTED,
            Result.NOT_NEEDED,
        }, f"killed after {wait:.2f} s: {record.outcome}"
        return record.outcome.result.value

    @property
    def route(self) -> Route:
        found = routing.read(self.stack.control, REF)
        assert found is not None, "the route is lost"
        return found

    def becomes(self, what: str, is_so: Callable[[Route], bool]) -> None:
        until(lambda: is_so(self.route), seconds=PATIENCE, what=what)

    def has_a_good_token(self, route: Route) -> bool:
        token = encryption.decrypt(route.token) if route.token else ""
        return self.webui._is_valid(token)


@pytest.fixture
def road(
    stack: Stack,
    tmp_path: Path,
    fleet: Fleet,
    openwebui: OpenWebui,
    anthropic_upstream: AnthropicUpstream,
    secret_key: str,
) -> Travel:
    target: dict[str, Any] = described_target(
        openwebui, anthropic_upstream, completion_timeout="2s", answer_timeout="2s"
    )
    write(
        tmp_path,
        target,
        effective_after="1ms",
        max_attempts_per_hour=1000,
        cooldown_seconds=0.001,
        probation_seconds=0.001,
    )
    stack.environ |= {"RECOVERY_SECRET_KEY": secret_key, DIRECT_KEY: KEY}
    return Travel(stack, fleet, openwebui)


def test_a_worker_killed_at_any_moment_leaves_applications_a_right_route_and_leads_them_back(
    road: Travel, openwebui: OpenWebui, openai_upstream: OpenAiUpstream
) -> None:
    control = road.stack.control
    for _ in range(ROUNDS):
        openwebui.secret = os.urandom(8)
        openwebui.forget_sign_ins()
        road.killed_while_it_repairs("auth_failure")
        road.becomes("a token that is taken", road.has_a_good_token)
        assert (road.route.road, road.route.model) == (Road.OPENWEBUI, PRIMARY)

        openai_upstream.modes[PRIMARY] = "500"
        road.killed_while_it_repairs("model_error")
        assert (road.route.road, road.route.model) == (Road.OPENWEBUI, "deepseek-chat")
        del openai_upstream.modes[PRIMARY]
        road.becomes("the primary model again", lambda route: route.is_home)

        openwebui.kill()
        road.killed_while_it_repairs("service_unavailable")
        assert (road.route.road, road.route.direct is not None) == (Road.DIRECT, True)
        assert control.redis.hexists(control.key("degraded"), str(REF))
        openwebui.start()
        road.becomes("Open WebUI again", lambda route: route.is_home)
        until(
            lambda: not control.redis.hexists(control.key("degraded"), str(REF)),
            seconds=PATIENCE,
            what="the degraded mode is over",
        )
        assert road.has_a_good_token(road.route)
