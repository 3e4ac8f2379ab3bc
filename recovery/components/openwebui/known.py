"""What is known of a target before it is asked: the token to show it, and the model in use."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recovery import encryption
from recovery.components.openwebui.findings import Finding
from recovery.components.openwebui.target import OpenWebuiTarget
from recovery.components.openwebui.tokens import Token, is_sendable, lifetime
from recovery.credentials import reveal
from recovery.errors import ConfigError, MemoryAway, TargetRefused, Unreadable
from recovery.routes import Route, TokenKind

if TYPE_CHECKING:
    from recovery.strategy import Memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """``problem``: why there is no token that could be shown, where there should be one.

    ``is_remembered``: whether the control plane could be asked. ``model``: the active one.
    """

    token: Token | None = None
    problem: Finding | None = None
    model: str | None = None
    is_remembered: bool = False


def known(target: OpenWebuiTarget, memory: Memory | None) -> Known:
    route, is_remembered = None, memory is not None
    if memory is not None:
        try:
            route = memory.route()
        except MemoryAway:
            is_remembered = False
    model = (route.model if route else None) or target.model
    try:
        token = own_key(target) if target.has_api_key else stored_token(route)
        problem = _problem(target, token, route) if is_remembered else None
    except (ConfigError, TargetRefused, Unreadable) as error:
        token, problem = None, _refused(error.message)
    return Known(token=token, problem=problem, model=model, is_remembered=is_remembered)


def _problem(target: OpenWebuiTarget, token: Token | None, route: Route | None) -> Finding | None:
    """Why applications have no token, or another one than they should."""
    if token is None:
        wanted = target.has_password or target.has_api_key
        return _missing("no token is stored yet") if wanted else None
    if target.has_api_key:
        stored = stored_token(route)
        if stored is None or stored.text != token.text:
            return _missing("the policy's API key is not the one that is stored")
    elif target.has_password and token.kind is TokenKind.API_KEY:
        return _missing("an API key is stored, and the policy has a password")
    return None


def _missing(summary: str) -> Finding:
    return Finding(failure_type="token_expired", summary=summary)


def _refused(summary: str) -> Finding:
    return Finding(failure_type="auth_failure", summary=summary)


def stored_token(route: Route | None) -> Token | None:
    """Raises ``ConfigError`` and ``Unreadable``."""
    if route is None or route.token is None:
        return None
    return Token(
        text=encryption.decrypt(route.token),
        kind=route.token_kind or TokenKind.JWT,
        expires=route.token_expires,
    )


def own_key(target: OpenWebuiTarget) -> Token:
    """The API key of the policy; raises ``TargetRefused`` where it cannot be read or sent."""
    key = reveal(target.api_key, target.api_key_file)
    if not is_sendable(key):
        raise TargetRefused("the api_key cannot stand in a header")
    return Token(text=key, kind=TokenKind.API_KEY)


def seconds_until_refresh(
    target: OpenWebuiTarget, token: Token, share: float = 1.0
) -> float | None:
    """Until the token should be renewed, which is a part of its life before its end.

    ``share``: of that part, how much must be left.
    """
    if token.expires is None:
        return None
    whole = lifetime(token)
    margin = target.refresh_before if whole is None else min(target.refresh_before, whole / 4)
    return token.expires - share * margin - time.time()
