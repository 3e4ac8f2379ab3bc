"""One Redis as the policy describes it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from recovery.credentials import one_of
from recovery.runtime import Runtime
from recovery.strategy import Duration, StrictModel, TargetModel

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_SCHEMES = ("redis", "rediss", "unix")


class RedisThresholds(StrictModel):
    """When a Redis that answers counts as unhealthy."""

    latency_ms: float = Field(default=10.0, gt=0)
    memory_percent: float = Field(default=95.0, gt=0, le=100)
    clients_percent: float = Field(default=95.0, gt=0, le=100)


class RedisTarget(TargetModel):
    """``url`` names the server; credentials come beside it, never in it.

    ``runtime`` says how the server's process is stopped and started, or replaced.
    """

    selectors: ClassVar[tuple[str, ...]] = ("host", "port")

    url: str = "redis://127.0.0.1:6379/0"
    username: str | None = None
    password: SecretStr | None = None
    password_file: Path | None = None
    tls_ca_file: str | None = None
    role: str = Field(default="primary", pattern="^(primary|replica|any)$")
    thresholds: RedisThresholds = RedisThresholds()
    connect_timeout: Duration = 1.0
    runtime: Runtime | None = None

    @field_validator("url")
    @classmethod
    def _names_a_server(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in _SCHEMES:
            raise ValueError(f"must begin with one of {', '.join(f'{s}://' for s in _SCHEMES)}")
        if parts.password or parts.username:
            raise ValueError(
                "must not hold credentials: use username and password or password_file"
            )
        return url

    @model_validator(mode="after")
    def _has_one_password(self) -> Self:
        one_of("password", self.password, self.password_file)
        return self

    def is_selected_by(self, chosen: Mapping[str, Any]) -> bool:
        parts = urlsplit(self.url)
        wanted = chosen.get("host", parts.hostname)
        same_host = wanted == parts.hostname or {wanted, parts.hostname} <= _LOOPBACK
        return same_host and chosen.get("port", parts.port or 6379) == (parts.port or 6379)
