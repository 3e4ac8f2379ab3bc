"""What an application itself says of its roads: by arguments, else by its environment.

The control plane's word stands before it. It fills what the control plane leaves open, and is all
there is where that one was never reached.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from recovery.environment import secret
from recovery.errors import ConfigError
from recovery.routes import Direct, Provider, Road, Route

LARGEST_KEY = 8 * 1024
_PROVIDERS = {
    Provider.ANTHROPIC: ("https://api.anthropic.com", "ANTHROPIC_API_KEY"),
    Provider.OPENAI: ("https://api.openai.com/v1", "OPENAI_API_KEY"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """``token``: Open WebUI's, a JWT or an API key. ``api_key``: the direct provider's."""

    base_url: str | None = None
    token: str | None = field(default=None, repr=False)
    model: str | None = None
    direct: Direct | None = None
    api_key: str | None = field(default=None, repr=False)

    @classmethod
    def read(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Raises ``ConfigError`` where a variable cannot be used."""
        found = os.environ if environ is None else environ
        return cls(
            base_url=found.get("RECOVERY_OPENWEBUI_URL") or None,
            token=secret("RECOVERY_OPENWEBUI_TOKEN", found),
            model=found.get("RECOVERY_OPENWEBUI_MODEL") or None,
            direct=_direct(found),
        )

    def or_else(self, other: Own) -> Own:
        """What is not said here is as ``other`` says it."""
        return Own(
            base_url=self.base_url or other.base_url,
            token=self.token or other.token,
            model=self.model or other.model,
            direct=self.direct or other.direct,
            api_key=self.api_key or other.api_key,
        )

    def completing(self, route: Route | None, target: str) -> Route | None:
        """The route with what it leaves open; ``None`` where nobody names any road."""
        if route is not None:
            return replace(
                route, model=route.model or self.model, direct=route.direct or self.direct
            )
        if self.base_url is None and self.direct is None:
            return None
        road = Road.OPENWEBUI if self.base_url else Road.DIRECT
        return Route(
            target=target,
            road=road,
            base_url=self.base_url or "",
            model=self.model,
            primary_model=self.model,
            direct=self.direct,
        )


def key_of(direct: Direct, environ: Mapping[str, str] | None = None) -> str | None:
    """The provider's key, as this host holds it; ``None`` where it wants none.

    Raises ``ConfigError``.
    """
    found = os.environ if environ is None else environ
    if direct.api_key_env:
        return _from_variable(direct.api_key_env, found)
    if direct.api_key_file:
        return _from_file(Path(direct.api_key_file))
    return None


def _from_variable(name: str, found: Mapping[str, str]) -> str:
    if name.startswith("RECOVERY_"):
        # A route must not make an application send the key that decrypts it.
        raise ConfigError(f"{name} is no provider's key")
    value = found.get(name, "").strip()
    if not value:
        raise ConfigError(f"the variable {name} is not set here")
    return value


def _from_file(path: Path) -> str:
    try:
        with path.open("rb") as source:
            content = source.read(LARGEST_KEY).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigError(f"the key in {path} cannot be read: {reason}") from None
    if not content:
        raise ConfigError(f"the key in {path} cannot be read: it is empty")
    return content


def _direct(found: Mapping[str, str]) -> Direct | None:
    """Named by its model: nothing else of it has to be said."""
    model = found.get("RECOVERY_DIRECT_MODEL")
    if not model:
        return None
    try:
        provider = Provider(found.get("RECOVERY_DIRECT_PROVIDER") or Provider.ANTHROPIC)
    except ValueError:
        known = ", ".join(Provider)
        raise ConfigError(f"RECOVERY_DIRECT_PROVIDER must be one of {known}") from None
    base_url, variable = _PROVIDERS[provider]
    return Direct(
        provider=provider,
        base_url=found.get("RECOVERY_DIRECT_URL") or base_url,
        model=model,
        api_key_env=found.get("RECOVERY_DIRECT_API_KEY_ENV") or variable,
    )
