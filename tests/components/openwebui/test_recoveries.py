"""From a failure to its end, and back again: what is claimed, and what is true."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from recovery import lifecycle, metrics
from recovery.controlplane import ControlPlane
from recovery.events import Refusal, Result
from recovery.finding import find_probe
from recovery.memory import reminded
from recovery.returning import Way
from recovery.routing import Road
from tests.components.openwebui.describing import PRIMARY, REF, store
from tests.components.openwebui.installation import Installation, install
from tests.openwebui import OpenWebui
from tests.upstreams import AnthropicUpstream
from tests.waiting import until


def probed(installation: Installation) -> Any:
    target = reminded(installation.control, installation.policy, REF)
    return find_probe("openwebui")(target, 10.0)


def led_back(installation: Installation) -> None:
    until(lambda: installation.follow().way is Way.LED_BACK, seconds=30, what="they are led back")


def test_a_refused_token_is_recovered_from(installation: Installation) -> None:
    store(installation.server, installation.memory, "garbage", None)

    outcome = installation.recover("auth_failure")

    assert (outcome.result, outcome.after.healthy) == (Result.RECOVERED, True)
    assert outcome.before.failure_type == "auth_failure"


def test_a_refused_password_calls_a_person_at_once(
    tmp_path: Path,
    control: ControlPlane,
    openwebui: OpenWebui,
    anthropic_upstream: AnthropicUpstream,
) -> None:
    installation = install(tmp_path, control, openwebui, anthropic_upstream, password="wrong")

    outcome = installation.recover("token_expired")

    assert (outcome.result, outcome.error) == (Result.FAILED, "credentials_refused")
    assert (outcome.attempts, openwebui.signed_in) == (1, [400])
    assert installation.level == 3
    assert any('"level":3' in alert or '"level": 3' in alert for alert in installation.alerts)


def test_a_dead_model_is_recovered_from_with_another_one(installation: Installation) -> None:
    installation.upstream.modes[PRIMARY] = "500"

    outcome = installation.recover("model_error")

    assert outcome.result is Result.RECOVERED
    assert outcome.after.figures["model"] == "deepseek-chat"
    assert any('"kind":"route"' in alert for alert in installation.alerts)


def test_being_served_past_a_dead_server_is_no_recovery_of_it(installation: Installation) -> None:
    installation.server.kill()

    outcome = installation.recover("service_unavailable")

    assert outcome.result is Result.REROUTED
    assert (outcome.after.healthy, outcome.proof.healthy) == (False, True)
    assert installation.route.road is Road.DIRECT
    assert installation.is_degraded
    assert installation.level == 2
    entry = json.loads(installation.audit[-1])
    assert entry["result"] == "rerouted"
    assert entry["after"]["found"] == "service_unavailable"
    assert "claude-test answers directly" in entry["other_road"]


def test_without_an_answer_on_the_other_road_it_failed_and_a_person_is_called(
    installation: Installation,
) -> None:
    installation.server.kill()
    installation.direct.mode = "529"

    outcome = installation.recover("service_unavailable")

    assert (outcome.result, outcome.proof) == (Result.FAILED, None)
    assert installation.route.road is Road.OPENWEBUI
    assert (installation.is_degraded, installation.level) == (True, 3)


def test_whoever_is_led_around_is_not_led_again_but_may_be_mended(
    installation: Installation,
) -> None:
    installation.server.kill()
    installation.recover("service_unavailable")

    again, _ = installation.decide("service_unavailable")
    token, _ = installation.decide("token_expired")

    assert (again.reason, again.strategy) == (Refusal.REROUTED, "graceful_degradation")
    assert token.admitted
    assert metrics.snapshot(installation.control).success_rate == 1.0


def test_they_are_led_back_once_it_has_been_healthy_for_a_while(
    installation: Installation,
) -> None:
    installation.server.kill()
    installation.recover("service_unavailable")
    assert installation.follow().way is Way.UNHEALTHY
    installation.server.start()

    first = installation.follow()
    led_back(installation)

    assert (first.way, first.seconds) == (Way.WAITING, pytest.approx(0.3))
    assert installation.route.is_home
    assert (installation.is_degraded, installation.level) == (False, 1)
    assert probed(installation).healthy
    entry = json.loads(installation.audit[-1])
    assert (entry["result"], entry["id"]) == ("led_back", "r-1")
    assert installation.follow().way is Way.HOME
    assert installation.decide("service_unavailable")[0].admitted


def test_a_mended_token_does_not_end_the_degraded_mode_before_they_are_led_back(
    installation: Installation,
) -> None:
    installation.server.kill()
    installation.recover("service_unavailable")
    installation.server.secret = b"second"
    installation.server.start()

    outcome = installation.recover("auth_failure")

    assert outcome.result is Result.RECOVERED
    assert installation.route.road is Road.DIRECT
    assert (installation.is_degraded, installation.level) == (True, 2)
    led_back(installation)
    assert not installation.is_degraded


def test_a_primary_model_that_is_well_again_is_gone_back_to(installation: Installation) -> None:
    installation.upstream.modes[PRIMARY] = "500"
    installation.recover("model_error")
    assert installation.follow().way is Way.UNHEALTHY
    installation.upstream.modes.clear()

    led_back(installation)

    assert installation.route.model == PRIMARY
    assert installation.route.is_home


def test_from_the_direct_road_they_go_back_with_a_fallback_where_the_primary_is_dead(
    installation: Installation,
) -> None:
    installation.upstream.modes[PRIMARY] = "500"
    installation.recover("model_error")
    installation.server.kill()
    installation.recover("service_unavailable")
    installation.server.start()

    led_back(installation)

    route = installation.route
    assert (route.road, route.model) == (Road.OPENWEBUI, "deepseek-chat")
    assert not installation.is_degraded


def test_one_bad_look_begins_the_wait_anew(installation: Installation) -> None:
    installation.server.kill()
    installation.recover("service_unavailable")
    installation.server.start()
    assert installation.follow().way is Way.WAITING
    installation.upstream.modes[PRIMARY] = "503"
    assert installation.follow().way is Way.UNHEALTHY
    installation.upstream.modes.clear()

    again = installation.follow()

    assert (again.way, again.seconds) == (Way.WAITING, pytest.approx(0.3))


def test_health_that_nobody_saw_is_proven_anew(installation: Installation) -> None:
    installation.server.kill()
    installation.recover("service_unavailable")
    installation.server.start()
    installation.follow()
    # Nobody has looked for an hour.
    looks = f"recovery:returning:{REF}"
    redis = installation.control.redis
    for field in ("healthy_from", "last"):
        redis.hset(looks, field, int(redis.hget(looks, field)) - 3_600_000)

    assert installation.follow().way is Way.WAITING


def test_what_comes_and_goes_has_to_stay_for_longer_each_time(installation: Installation) -> None:
    waits = []
    for _ in range(3):
        installation.server.kill()
        installation.recover("service_unavailable")
        installation.server.start()
        waits.append(installation.follow().seconds)
        led_back(installation)

    assert waits == [pytest.approx(0.3), pytest.approx(0.6), pytest.approx(1.2)]


def test_a_disabled_target_keeps_its_road(installation: Installation) -> None:
    installation.recover(
        strategy="graceful_degradation", source="cli", by="me", force=True, reason="maintenance"
    )
    installation.control.redis.set(f"recovery:disabled:{REF}", "maintenance")

    assert installation.follow().way is Way.DISABLED
    assert installation.route.road is Road.DIRECT


def test_a_recovery_under_way_decides_by_itself(installation: Installation) -> None:
    installation.server.kill()
    installation.recover("service_unavailable")
    installation.server.start()
    installation.decide("token_expired")

    assert installation.follow().way is Way.BUSY


def test_a_policy_that_forbids_the_mode_leads_around_without_it(
    tmp_path: Path,
    control: ControlPlane,
    openwebui: OpenWebui,
    anthropic_upstream: AnthropicUpstream,
    installation: Installation,
) -> None:
    quiet = {
        "name": "graceful_degradation",
        "degraded_mode": False,
        "conditions": ["service_unavailable"],
    }
    installation = install(tmp_path, control, openwebui, anthropic_upstream, strategies=[quiet])
    openwebui.kill()

    assert installation.recover("service_unavailable").result is Result.REROUTED
    assert not installation.is_degraded


@pytest.mark.parametrize("until_step", ["the direct road answers", "led applications"])
def test_killed_anywhere_it_goes_on_where_it_was(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, until_step: str
) -> None:
    """A worker that dies concludes nothing; whoever resumes its recovery does."""
    installation.server.kill()
    _, assignments = installation.decide("service_unavailable")

    class Killed(BaseException):
        pass

    write = lifecycle.RecordingJournal._write

    def die(self: Any, text: str, *rest: Any, **said: Any) -> None:
        write(self, text, *rest, **said)
        if until_step in text:
            raise Killed

    monkeypatch.setattr(lifecycle.RecordingJournal, "_write", die)
    with pytest.raises(Killed):
        lifecycle.run(installation.control, installation.policy, assignments[0], "test:1")
    monkeypatch.setattr(lifecycle.RecordingJournal, "_write", write)
    installation.control.redis.delete(f"recovery:lease:{REF}")
    installation.control.redis.hset(
        f"recovery:lease:{REF}",
        mapping={"id": "r-1", "phase": "queued", "give_up": 9e15, "expires": 9e15},
    )

    outcome = lifecycle.run(installation.control, installation.policy, assignments[0], "test:2")

    assert outcome.result is Result.REROUTED
    assert installation.route.road is Road.DIRECT
    assert installation.is_degraded


def test_a_new_primary_of_the_policy_becomes_the_active_model(
    installation: Installation,
    tmp_path: Path,
    control: ControlPlane,
    openwebui: OpenWebui,
    anthropic_upstream: AnthropicUpstream,
) -> None:
    changed = install(tmp_path, control, openwebui, anthropic_upstream, model="gemini-pro")

    assert changed.follow().way is Way.HOME
    assert (changed.route.model, changed.route.primary_model) == ("gemini-pro", "gemini-pro")
    assert changed.route.token == installation.route.token


def test_a_direct_road_that_left_the_policy_leads_nobody_any_more(
    installation: Installation,
    tmp_path: Path,
    control: ControlPlane,
    openwebui: OpenWebui,
    anthropic_upstream: AnthropicUpstream,
) -> None:
    openwebui.kill()
    installation.recover("service_unavailable")

    changed = install(tmp_path, control, openwebui, anthropic_upstream, direct=None)
    changed.follow()

    assert (changed.route.road, changed.route.direct) == (Road.OPENWEBUI, None)
    assert not control.redis.hexists(f"recovery:target:{REF}", "rerouted")
