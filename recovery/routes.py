"""A route: by which road an application reaches a model now. The nouns and their JSON, no state.

It names where the direct provider's key is found and never holds it; the Open WebUI token is in it
as Fernet text alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any, Self


class Road(StrEnum):
    OPENWEBUI = "openwebui"
    DIRECT = "direct"


class Provider(StrEnum):
    """How a direct provider is spoken to."""

    ANTHROPIC = "anthropic"
    OPENAI = "openai"


class TokenKind(StrEnum):
    JWT = "jwt"
    API_KEY = "api_key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Direct:
    """The road past Open WebUI. The key is read by whoever needs it, on its own host."""

    provider: Provider
    base_url: str
    model: str
    api_key_env: str | None = None
    api_key_file: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    anthropic_version: str = "2023-06-01"
    max_tokens: int = 1024

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        known = _own(cls, plain)
        return cls(**{**known, "provider": Provider(known["provider"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """What the control plane holds of one Open WebUI target.

    ``base_url`` and ``model`` are those of Open WebUI, whatever the road. ``token_expires`` is in
    epoch seconds, ``since`` in milliseconds. ``generation`` rises with every change.
    """

    target: str
    road: Road
    base_url: str
    model: str | None = None
    primary_model: str | None = None
    token: str | None = field(default=None, repr=False)
    token_kind: TokenKind | None = None
    token_expires: float | None = None
    since: int = 0
    recovery_id: str | None = None
    generation: int = 0
    direct: Direct | None = None

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises ``ValueError`` where it is no route; fields of later releases are left out."""
        try:
            known = _own(cls, json.loads(text))
            known["road"] = Road(known["road"])
            known["generation"] = int(known["generation"])
            if known.get("token_kind") is not None:
                known["token_kind"] = TokenKind(known["token_kind"])
            if known.get("direct") is not None:
                known["direct"] = Direct.from_dict(known["direct"])
            return cls(**known)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            # Its text is not repeated: whatever it is, it may hold a token.
            raise ValueError(f"not a route: {type(error).__name__}") from None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def shown(self) -> dict[str, Any]:
        """For people: without the token, which helps nobody even when encrypted."""
        facts = self.as_dict()
        return {**facts, "token": "encrypted" if self.token else None}

    @property
    def is_home(self) -> bool:
        """Whether people are served as the policy wants it when all is well."""
        return self.road is Road.OPENWEBUI and self.model == self.primary_model


def _own(noun: type[Any], plain: Mapping[str, Any]) -> dict[str, Any]:
    return {one.name: plain[one.name] for one in fields(noun) if one.name in plain}
