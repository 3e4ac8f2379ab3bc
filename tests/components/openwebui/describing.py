"""Targets as a policy describes them, and the tokens that the control plane holds of them."""

from __future__ import annotations

from typing import Any

from recovery import encryption
from recovery.components.openwebui.target import OpenWebuiTarget
from recovery.events import TargetRef
from recovery.memory import TargetMemory
from recovery.routing import Route
from tests.openwebui import EMAIL, PASSWORD, OpenWebui
from tests.upstreams import AnthropicUpstream

REF = TargetRef("openwebui")
PRIMARY = "llama-3"
DIRECT_KEY = "TEST_DIRECT_KEY"


def described(url: str, memory: TargetMemory | None, **said: Any) -> OpenWebuiTarget:
    account = {} if "api_key" in said or "api_key_file" in said else own_account(said)
    target = OpenWebuiTarget(**{"base_url": url, "model": PRIMARY, **account, **said})
    return target if memory is None else target.reminded(memory)


def own_account(said: dict[str, Any]) -> dict[str, Any]:
    if "password_file" in said:
        return {"email": EMAIL}
    return {"email": EMAIL, "password": PASSWORD}


def with_token(server: OpenWebui, memory: TargetMemory, **claims: Any) -> Route:
    """Store a token as a sign-in would have."""
    token = server.token(**claims)
    lives = claims.get("expires_in", server.expires_in)
    return store(server, memory, token, None if lives is None else server.ends(lives))


def store(server: Any, memory: TargetMemory, token: str, expires: float | None) -> Route:
    return memory.reroute(
        road="openwebui",
        base_url=server.url,
        model=PRIMARY,
        primary_model=PRIMARY,
        token=encryption.encrypt(token),
        token_kind="api_key" if token.startswith("sk-") else "jwt",
        token_expires=expires,
    )


def direct_to(upstream: AnthropicUpstream, **said: Any) -> dict[str, Any]:
    return {
        "provider": "anthropic",
        "base_url": upstream.url,
        "model": upstream.models[0],
        "api_key_env": DIRECT_KEY,
        **said,
    }
