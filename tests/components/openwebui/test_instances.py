"""The whole of it against an Open WebUI: tokens that run out, models that die, a server killed.

Against the one that stands for it, and with ``-m openwebui`` against a real one, whose tokens
should live for some seconds: ``JWT_EXPIRES_IN=8s``. ``pytest -s`` prints what was seen.
"""

# ruff: noqa: T201 - what a real one was seen to do is worth keeping

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recovery.controlplane import ControlPlane
from recovery.events import Outcome, ProbeReport, Result
from recovery.finding import find_probe
from recovery.memory import reminded
from recovery.returning import Way
from recovery.routing import Road, TokenKind
from tests.components.openwebui.describing import DIRECT_KEY, PRIMARY, REF, direct_to, store
from tests.components.openwebui.installation import Installation, load
from tests.components.openwebui.instances import Instance, StandIn
from tests.upstreams import KEY, AnthropicUpstream
from tests.waiting import until

PATIENCE = {"answer_timeout": "5s", "completion_timeout": "10s"}
Install = Callable[..., Installation]


@pytest.fixture
def install(
    tmp_path: Path,
    control: ControlPlane,
    instance: Instance,
    anthropic_upstream: AnthropicUpstream,
    monkeypatch: pytest.MonkeyPatch,
) -> Install:
    monkeypatch.setenv(DIRECT_KEY, KEY)
    monkeypatch.setenv("RECOVERY_STATE_DIR", str(tmp_path / "state"))

    def install(**said: Any) -> Installation:
        account = {"email": instance.email, "password": instance.password}
        target = {
            "base_url": instance.url,
            "model": PRIMARY,
            "direct": direct_to(anthropic_upstream),
            "return_after": "1s",
            **PATIENCE,
            **({} if "api_key" in said else account),
            **said,
        }
        policy = load(tmp_path, target, effective_after="1ms")
        return Installation(
            control=control,
            policy=policy,
            server=instance,
            upstream=instance.upstream,
            direct=anthropic_upstream,
        )

    return install


def probed(installation: Installation) -> ProbeReport:
    target = reminded(installation.control, installation.policy, REF)
    return find_probe("openwebui")(target, 20.0)


def say(what: str, outcome: Outcome) -> None:
    after = outcome.after.summary if outcome.after else ""
    past = f"; past it: {outcome.proof.summary}" if outcome.proof else ""
    print(f"\n{what}: {outcome.result.value} in {outcome.duration:.2f} s; {after}{past}")


def lives_shortly(installation: Installation) -> None:
    expires = installation.route.token_expires
    if expires is None or expires - time.time() > 60:
        pytest.skip("its tokens live for too long to see one run out")


@pytest.fixture
def brief(instance: Instance) -> None:
    if isinstance(instance, StandIn):
        instance.server.expires_in = 6


def test_a_token_that_ran_out_is_seen_coming_and_replaced(install: Install, brief: None) -> None:
    installation = install()
    assert probed(installation).failure_type == "token_expired"
    first = installation.recover("token_expired")
    say("first token", first)
    fetched = installation.route
    assert probed(installation).healthy
    lives_shortly(installation)

    ahead = until(lambda: not probed(installation).healthy and probed(installation), seconds=60)
    print(f"seen: {ahead.summary}")
    second = installation.recover("token_expired")
    say("second token", second)

    assert ahead.failure_type == "token_expired"
    assert (first.result, second.result) == (Result.RECOVERED, Result.RECOVERED)
    assert installation.route.token != fetched.token
    assert probed(installation).healthy


def test_a_token_that_is_looked_after_never_runs_out(install: Install, brief: None) -> None:
    """Three lives of a token, and no recovery: whoever uses it finds a good one each time."""
    installation = install()
    installation.recover("token_expired")
    lives_shortly(installation)
    seen, attempts = {installation.route.token}, len(installation.audit)

    def renewed() -> bool:
        installation.follow()
        assert probed(installation).healthy
        seen.add(installation.route.token)
        return len(seen) == 4

    began = time.monotonic()
    until(renewed, seconds=120, what="it was renewed three times")

    print(f"renewed three times in {time.monotonic() - began:.1f} s, healthy at every look")
    assert len(installation.audit) == attempts


def test_a_token_that_is_garbage_is_replaced(install: Install, instance: Instance) -> None:
    installation = install()
    store(instance, installation.memory, "garbage", None)
    assert probed(installation).failure_type == "auth_failure"

    outcome = installation.recover("auth_failure")

    say("garbage token", outcome)
    assert outcome.result is Result.RECOVERED


def test_an_api_key_serves_as_well(install: Install, instance: Instance) -> None:
    installation = install(api_key=instance.api_key())

    outcome = installation.recover("token_expired")

    say("API key", outcome)
    assert outcome.result is Result.RECOVERED
    assert installation.route.token_kind is TokenKind.API_KEY


def test_a_wrong_password_is_refused_once(install: Install) -> None:
    installation = install(email="nobody-of-that-name@example.com", password="wrong")

    first = installation.recover("token_expired")
    second = installation.recover(
        "token_expired", force=True, strategy="token_refresh", by="me", reason="x"
    )

    say("wrong password", first)
    assert (first.error, second.error) == ("credentials_refused", "credentials_refused")
    assert "not tried again" in second.detail
    assert installation.level == 3


@pytest.mark.parametrize("mode", ["500", "429", "401", "drop", "hang"])
def test_a_model_that_dies_is_left_and_gone_back_to(
    install: Install, instance: Instance, mode: str
) -> None:
    installation = install(completion_timeout="2s", api_key=instance.api_key())
    installation.recover("token_expired")
    instance.upstream.modes[PRIMARY] = mode
    found = probed(installation)

    outcome = installation.recover("model_error")
    say(f"model dead ({mode}, {found.figures.get('models')} listed)", outcome)
    left = installation.route.model
    instance.upstream.modes.clear()
    began = time.monotonic()
    until(lambda: installation.follow().way is Way.LED_BACK, seconds=60)
    print(f"gone back after {time.monotonic() - began:.1f} s of health")

    assert outcome.result is Result.RECOVERED
    assert left == "deepseek-chat"
    assert installation.route.is_home


def test_a_killed_server_is_led_around_and_gone_back_to(
    install: Install, instance: Instance
) -> None:
    installation = install(api_key=instance.api_key())
    installation.recover("token_expired")
    instance.kill()
    if probed(installation).healthy:
        pytest.skip("this instance cannot be killed: RECOVERY_OPENWEBUI_COMMAND is not set")

    outcome = installation.recover("service_unavailable")
    say("server killed", outcome)
    assert outcome.result is Result.REROUTED
    assert installation.route.road is Road.DIRECT
    assert installation.is_degraded
    began = time.monotonic()
    instance.start()
    started = time.monotonic() - began
    until(lambda: installation.follow().way is Way.LED_BACK, seconds=120)
    print(f"started in {started:.1f} s, gone back {time.monotonic() - began - started:.1f} s later")

    assert installation.route.is_home
    assert not installation.is_degraded
    assert probed(installation).healthy


def test_dead_models_behind_it_lead_to_the_direct_road(
    install: Install, instance: Instance
) -> None:
    installation = install(api_key=instance.api_key())
    installation.recover("token_expired")
    instance.upstream.kill()

    failed = installation.recover("model_unavailable")
    say("no model at all", failed)
    outcome = installation.recover(
        "model_unavailable", force=True, source="cli", by="me", reason="cooldown"
    )
    say("the last rung", outcome)
    instance.upstream.start()
    until(lambda: installation.follow().way is Way.LED_BACK, seconds=60)

    assert (failed.result, outcome.result) == (Result.FAILED, Result.REROUTED)
    assert installation.route.is_home
