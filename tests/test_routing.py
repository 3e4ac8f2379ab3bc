"""Routes in the control plane: merged, published and fenced in one step."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from recovery import routing
from recovery.controlplane import ControlPlane
from recovery.errors import LeaseLost
from recovery.routing import Provider, Road, TokenKind
from tests.servers import RedisServer
from tests.waiting import until

TARGET = "openwebui/default"
DIRECT = {
    "provider": "anthropic",
    "base_url": "https://api.example.com",
    "model": "claude-test",
    "api_key_env": "ANTHROPIC_API_KEY",
    "api_key_file": None,
    "headers": {},
    "anthropic_version": "2023-06-01",
    "max_tokens": 256,
}
FIRST = {
    "road": "openwebui",
    "base_url": "http://127.0.0.1:3000",
    "model": "llama",
    "primary_model": "llama",
    "direct": DIRECT,
}


@pytest.fixture
def control(control_redis: RedisServer) -> Iterator[ControlPlane]:
    control = ControlPlane(control_redis.client())
    yield control
    control.redis.close()


@pytest.fixture
def heard(control: ControlPlane) -> Iterator[Any]:
    """A subscription to the channel of routes, heard as far as it has come."""
    with control.redis.pubsub(ignore_subscribe_messages=True) as subscription:
        subscription.subscribe(control.key("routes"))
        until(
            lambda: subscription.subscribed and control.redis.pubsub_numsub("recovery:routes")[0][1]
        )
        messages: list[dict[str, Any]] = []

        def all_of_them() -> list[dict[str, Any]]:
            while message := subscription.get_message(timeout=0.1):
                messages.append(json.loads(message["data"]))
            return messages

        yield all_of_them


def test_a_route_is_stored_and_published_as_the_same_text(
    control: ControlPlane, heard: Any
) -> None:
    route = routing.change(control, TARGET, **FIRST)

    assert route == routing.read(control, TARGET)
    assert (route.road, route.direct.provider) == (Road.OPENWEBUI, Provider.ANTHROPIC)
    assert route.is_home
    until(heard)
    assert heard() == [json.loads(control.redis.hget("recovery:routes", TARGET))]
    assert set(heard()[0]) == set(route.as_dict())


def test_a_change_keeps_the_rest_and_raises_the_generation(control: ControlPlane) -> None:
    routing.change(control, TARGET, **FIRST)

    token = routing.change(control, TARGET, token="gAAAA", token_kind="jwt", token_expires=1.5e9)
    away = routing.change(control, TARGET, road="direct", recovery_id="r-1")

    assert (token.generation, away.generation) == (2, 3)
    assert (away.token, away.token_kind, away.model) == ("gAAAA", TokenKind.JWT, "llama")
    assert (token.recovery_id, away.recovery_id) == (None, "r-1")
    assert away.since >= token.since
    assert not away.is_home


def test_what_changes_nothing_is_not_told(control: ControlPlane, heard: Any) -> None:
    routing.change(control, TARGET, **FIRST)

    again = routing.change(control, TARGET, **FIRST)

    until(heard)
    assert (again.generation, len(heard())) == (1, 1)


def test_whoever_lost_the_lease_changes_nothing(control: ControlPlane) -> None:
    routing.change(control, TARGET, **FIRST)
    control.redis.hset(f"recovery:lease:{TARGET}", mapping={"id": "r-2", "token": "new"})

    with pytest.raises(LeaseLost):
        routing.change(control, TARGET, fence="old", road="direct")
    assert routing.read(control, TARGET).road is Road.OPENWEBUI


def test_changes_at_once_are_all_kept(control: ControlPlane) -> None:
    routing.change(control, TARGET, **FIRST)

    def change(number: int) -> None:
        routing.change(control, TARGET, model=f"model-{number}")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(change, range(40)))

    assert routing.read(control, TARGET).generation == 41


def test_a_damaged_route_is_none_and_is_made_anew(control: ControlPlane) -> None:
    control.redis.hset("recovery:routes", TARGET, "{not json")

    assert routing.read(control, TARGET) is None
    assert routing.routes(control) == {}
    assert routing.change(control, TARGET, **FIRST).generation == 1


def test_a_field_of_a_later_release_does_not_hinder(control: ControlPlane) -> None:
    routing.change(control, TARGET, **FIRST)
    stored = json.loads(control.redis.hget("recovery:routes", TARGET))
    stored["direct"]["later"] = stored["later"] = 1
    control.redis.hset("recovery:routes", TARGET, json.dumps(stored))

    assert routing.read(control, TARGET).model == "llama"


def test_a_token_shows_in_no_repr(control: ControlPlane) -> None:
    route = routing.change(control, TARGET, **FIRST, token="gAAAA-secret")

    assert "gAAAA-secret" not in repr(route)
    assert "gAAAA-secret" not in str(route.shown())
