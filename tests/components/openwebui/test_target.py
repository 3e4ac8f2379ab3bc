"""What a policy may say of an Open WebUI, and what it may not."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from recovery.components.openwebui.target import OpenWebuiTarget

DIRECT = {"model": "claude", "api_key_env": "ANTHROPIC_API_KEY"}


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"base_url": "127.0.0.1:8080"}, "http://"),
        ({"base_url": "http://me:secret@example.com"}, "credentials"),
        ({"email": "me@example.com"}, "go together"),
        ({"password": "x"}, "go together"),
        ({"email": "me", "password": "x", "password_file": "/x"}, "not both"),
        ({"api_key": "x", "api_key_file": "/x"}, "not both"),
        ({"email": "me", "password": "x", "api_key": "y"}, "not both"),
        ({"login_path": "signin"}, "login_path"),
        ({"direct": {"model": "claude"}}, "answers nobody"),
        ({"direct": {**DIRECT, "api_key_file": "/x"}}, "not both"),
        ({"direct": {**DIRECT, "headers": {"Authorization": "Bearer x"}}}, "api_key_env"),
        ({"direct": {**DIRECT, "api_key_env": "sk-ant-a-key-itself"}}, "api_key_env"),
        ({"direct": {**DIRECT, "api_key_env": "RECOVERY_SECRET_KEY"}}, "name another"),
        ({"direct": {**DIRECT, "base_url": "ftp://example.com"}}, "http://"),
    ],
)
def test_what_cannot_be_meant_is_refused(said: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        OpenWebuiTarget.model_validate(said)


def test_no_secret_shows_in_a_target() -> None:
    target = OpenWebuiTarget(email="me@example.com", password="hunter2-in-clear")

    assert "hunter2" not in repr(target)
    assert "hunter2" not in target.model_dump_json()


@pytest.mark.parametrize(
    ("chosen", "is_it"),
    [
        ({"host": "localhost"}, True),
        ({"host": "127.0.0.1", "port": 3000}, True),
        ({"port": 8080}, False),
        ({"base_url": "http://127.0.0.1:3000"}, True),
        ({"base_url": "http://elsewhere"}, False),
        ({"model": "llama-3"}, True),
        ({"model": "another"}, False),
    ],
)
def test_an_event_may_pick_a_target_by_where_it_is(chosen: dict[str, Any], is_it: bool) -> None:
    target = OpenWebuiTarget(base_url="http://127.0.0.1:3000/", model="llama-3")

    assert target.is_selected_by(chosen) is is_it
