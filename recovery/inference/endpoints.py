"""From a route to endpoints: where a request goes, with which secret, in which way of speaking."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx

from recovery.encryption import decrypt
from recovery.errors import ConfigError, Unreadable
from recovery.inference import anthropic, openai
from recovery.inference.conversation import Conversation
from recovery.inference.dialect import StreamState, Whole
from recovery.inference.failures import Failed, unusable
from recovery.inference.own import Own, key_of
from recovery.routes import Direct, Provider, Road, Route

_SENDABLE = re.compile(r"[\x21-\x7e]{1,8192}")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")
_NOT_THEIRS = frozenset({"authorization", "content-length", "cookie", "host", "x-api-key"})
JSON = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}


class Dialect(Protocol):
    """A way of speaking to a model."""

    def whole(self, decoded: Any) -> Whole: ...

    def Stream(self) -> StreamState: ...  # noqa: N802 - a class, where it is a module


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """``model`` is the active one. ``health``: who can be asked whether anybody is there."""

    road: Road
    url: httpx.URL
    headers: Mapping[str, str] = field(repr=False)
    dialect: Dialect
    model: str | None
    primary_model: str | None = None
    max_tokens: int = 1024
    health: httpx.URL | None = None

    def content(self, said: Conversation, *, stream: bool) -> bytes:
        """The request's body; raises ``Failed`` where no model is known."""
        if self.road is Road.DIRECT and self.dialect is anthropic:
            asked = anthropic.body(
                said, self.model or "", max_tokens=self.max_tokens, stream=stream
            )
        else:
            asked = openai.body(said, self._model_for(said), stream=stream)
        return json.dumps(asked, ensure_ascii=False, separators=(",", ":")).encode()

    def _model_for(self, said: Conversation) -> str:
        """Whoever asks for the primary model gets the active one, which may be a fallback."""
        is_free = said.model is None or said.model == self.primary_model
        model = self.model if self.road is Road.DIRECT or is_free else said.model
        if not model:
            raise Failed(unusable(self.road, "no model is named"))
        return model


def openwebui(route: Route, own: Own) -> Endpoint:
    """Raises ``Failed`` where it cannot be used from here."""
    base = _server(Road.OPENWEBUI, route.base_url)
    token = _token(route, own)
    return Endpoint(
        road=Road.OPENWEBUI,
        url=httpx.URL(f"{base}/api/chat/completions"),
        headers={**JSON, "Authorization": f"Bearer {token}"},
        dialect=openai,
        model=route.model,
        primary_model=route.primary_model,
        health=httpx.URL(f"{base}/health"),
    )


def direct(found: Direct, own: Own) -> Endpoint:
    """Raises ``Failed`` where it cannot be used from here.

    The application's own key is for the provider that it named itself, and for no other.
    """
    base = _server(Road.DIRECT, found.base_url)
    try:
        key = (own.api_key if found is own.direct else None) or key_of(found)
    except ConfigError as error:
        raise Failed(unusable(Road.DIRECT, error.message)) from None
    if key is not None and not _SENDABLE.fullmatch(key):
        raise Failed(unusable(Road.DIRECT, "the provider's key has an odd shape"))
    is_anthropic = found.provider is Provider.ANTHROPIC
    return Endpoint(
        road=Road.DIRECT,
        url=_versioned(base, "messages" if is_anthropic else "chat/completions"),
        headers={**_extra(found.headers), **JSON, **_authorized(found, key)},
        dialect=anthropic if is_anthropic else openai,
        model=found.model,
        max_tokens=found.max_tokens,
    )


def _token(route: Route, own: Own) -> str:
    token, why = None, "no token is known"
    if route.token is not None:
        try:
            token = decrypt(route.token)
        except (ConfigError, Unreadable) as error:
            why = error.message
    token = token or own.token
    if token is None:
        raise Failed(unusable(Road.OPENWEBUI, why))
    if not _SENDABLE.fullmatch(token):
        raise Failed(unusable(Road.OPENWEBUI, "the token has an odd shape"))
    return token


def _server(road: Road, base_url: str) -> str:
    """Without credentials in it, which would be sent instead of ours, and logged."""
    try:
        url = httpx.URL(base_url.rstrip("/"))
    except (httpx.InvalidURL, ValueError):
        raise Failed(unusable(road, "its address is none")) from None
    if url.scheme not in {"http", "https"} or not url.host or url.userinfo or url.query:
        raise Failed(unusable(road, "its address is none"))
    return str(url)


def _versioned(base: str, what: str) -> httpx.URL:
    """Under ``/v1``, which an address may name already."""
    return httpx.URL(f"{base}/{what}" if base.endswith("/v1") else f"{base}/v1/{what}")


def _authorized(found: Direct, key: str | None) -> dict[str, str]:
    if found.provider is Provider.ANTHROPIC:
        return {"anthropic-version": found.anthropic_version, "x-api-key": key or ""}
    return {"Authorization": f"Bearer {key}"} if key else {}


def _extra(headers: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in headers.items()
        if name.lower() not in _NOT_THEIRS
        and _HEADER.fullmatch(name)
        and _HEADER_VALUE.fullmatch(value)
    }
