"""What is looked after so that it never becomes a failure: tokens, and the route itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from recovery import encryption
from recovery.components.openwebui.known import stored_token
from recovery.controlplane import ControlPlane
from recovery.returning import Way
from tests.components.openwebui.describing import store
from tests.components.openwebui.installation import Installation, install
from tests.openwebui import EMAIL, OpenWebui
from tests.upstreams import AnthropicUpstream


def nearly_over(installation: Installation, *, left: float = 40.0) -> str:
    """A token of ten minutes of which little is left."""
    server = installation.server
    token = str(server.token(left, made_ago=600 - left))
    store(server, installation.memory, token, server.ends(left))
    return token


def test_a_token_is_renewed_before_its_end_without_a_recovery(installation: Installation) -> None:
    old = nearly_over(installation)
    entries = len(installation.audit)

    installation.follow()

    token = stored_token(installation.route)
    assert token is not None
    assert token.text != old
    assert installation.server.signed_in == [200]
    assert len(installation.audit) == entries


def test_a_token_with_life_enough_is_left_alone(installation: Installation) -> None:
    nearly_over(installation, left=300)

    installation.follow()

    assert installation.server.sign_ins == []


def test_a_renewal_that_fails_waits_for_the_probe(installation: Installation) -> None:
    old = nearly_over(installation)
    installation.server.fill_limiter(EMAIL)

    assert installation.follow().way is Way.HOME
    assert installation.follow().way is Way.HOME

    token = stored_token(installation.route)
    assert token is not None
    assert token.text == old
    assert installation.server.signed_in == [429]


def test_a_rotated_key_encrypts_the_stored_token_anew(
    installation: Installation, secret_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = stored_token(installation.route)
    new = encryption.new_key()
    monkeypatch.setenv("RECOVERY_SECRET_KEY", f"{new},{secret_key}")

    installation.follow()
    monkeypatch.setenv("RECOVERY_SECRET_KEY", new)

    assert stored_token(installation.route) == token


def test_a_first_route_is_there_before_anything_fails(
    tmp_path: Path,
    control: ControlPlane,
    openwebui: OpenWebui,
    anthropic_upstream: AnthropicUpstream,
) -> None:
    installation = install(tmp_path, control, openwebui, anthropic_upstream)

    assert installation.follow().way is Way.HOME

    route = installation.route
    assert (route.base_url, route.model, route.token) == (openwebui.url, "llama-3", None)
    assert route.direct is not None
    assert route.direct.base_url == anthropic_upstream.url


def test_a_server_that_moved_is_told_to_applications(
    installation: Installation,
    tmp_path: Path,
    control: ControlPlane,
    openwebui: OpenWebui,
    anthropic_upstream: AnthropicUpstream,
) -> None:
    moved = install(tmp_path, control, openwebui, anthropic_upstream, base_url="http://127.0.0.1:9")

    moved.follow()

    assert moved.route.base_url == "http://127.0.0.1:9"
    assert moved.route.generation > 1
