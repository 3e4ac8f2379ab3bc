"""One Open WebUI as the policy describes it, and the road past it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, PrivateAttr, SecretStr, field_validator, model_validator

from recovery.credentials import one_of
from recovery.routes import Direct, Provider
from recovery.strategy import Duration, Memory, StrictModel, TargetModel

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_PORTS = {"http": 80, "https": 443}
_SECRET_HEADERS = frozenset({"authorization", "x-api-key", "api-key", "cookie"})


class OpenWebuiThresholds(StrictModel):
    """When an Open WebUI that answers counts as unhealthy."""

    latency_ms: float = Field(default=2000.0, gt=0)


class DirectProvider(StrictModel):
    """The road past Open WebUI: Anthropic's Messages API, or any OpenAI-compatible one.

    The key is read by each application and worker on its own host, from the variable that
    ``api_key_env`` names or from ``api_key_file``; it is stored nowhere. ``headers`` are stored and
    published, so they may hold no secret. ``test``: what proves the road: a tiny ``completion``, or
    the ``listing`` of models, which costs nothing and proves less.
    """

    provider: Provider = Provider.ANTHROPIC
    base_url: str = "https://api.anthropic.com"
    model: str = Field(min_length=1)
    api_key_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    api_key_file: Path | None = None
    headers: dict[str, str] = Field(default_factory=dict)
    anthropic_version: str = "2023-06-01"
    max_tokens: int = Field(default=1024, ge=1)
    test: Literal["completion", "listing"] = "completion"

    @field_validator("base_url")
    @classmethod
    def _names_a_server(cls, url: str) -> str:
        return _server(url)

    @field_validator("headers")
    @classmethod
    def _holds_no_secret(cls, headers: dict[str, str]) -> dict[str, str]:
        secret = sorted(name for name in headers if name.lower() in _SECRET_HEADERS)
        if secret:
            raise ValueError(f"{', '.join(secret)}: use api_key_env or api_key_file")
        return headers

    @field_validator("api_key_env")
    @classmethod
    def _is_no_secret_of_ours(cls, variable: str | None) -> str | None:
        """Applications refuse to send those anywhere, too."""
        if variable is not None and variable.startswith("RECOVERY_"):
            raise ValueError("RECOVERY_ variables are this system's own: name another")
        return variable

    @model_validator(mode="after")
    def _has_one_key(self) -> Self:
        if self.api_key_env is not None and self.api_key_file is not None:
            raise ValueError("give api_key_env or api_key_file, not both")
        if self.provider is Provider.ANTHROPIC and not (self.api_key_env or self.api_key_file):
            raise ValueError("give api_key_env or api_key_file: Anthropic answers nobody without")
        return self

    @property
    def published(self) -> Direct:
        """What applications are told of it."""
        return Direct(
            provider=self.provider,
            base_url=self.base_url,
            model=self.model,
            api_key_env=self.api_key_env,
            api_key_file=str(self.api_key_file) if self.api_key_file else None,
            headers=self.headers,
            anthropic_version=self.anthropic_version,
            max_tokens=self.max_tokens,
        )


class OpenWebuiTarget(TargetModel):
    """``base_url`` names the server; the account comes beside it: ``email`` and ``password``, or an
    ``api_key``, which does not run out.

    ``model`` is the primary one. ``test_completion``: when the probe asks it for a word: around
    ``repairs``, ``always``, or ``never``. A token is renewed when ``refresh_before`` is left of it.
    ``return_after``: how long the primary model, or Open WebUI itself, must have been healthy until
    applications go back to it.
    """

    selectors: ClassVar[tuple[str, ...]] = ("base_url", "model", "host", "port")

    base_url: str = "http://127.0.0.1:8080"
    email: str | None = None
    password: SecretStr | None = None
    password_file: Path | None = None
    api_key: SecretStr | None = None
    api_key_file: Path | None = None
    login_path: str = Field(default="/api/v1/auths/signin", pattern="^/")
    tls_ca_file: str | None = None
    model: str | None = None
    direct: DirectProvider | None = None
    thresholds: OpenWebuiThresholds = OpenWebuiThresholds()
    answer_timeout: Duration = 2.0
    completion_timeout: Duration = 5.0
    test_completion: Literal["repairs", "always", "never"] = "repairs"
    refresh_before: Duration = 300.0
    return_after: Duration = 60.0

    _memory: Memory | None = PrivateAttr(default=None)

    @field_validator("base_url")
    @classmethod
    def _names_a_server(cls, url: str) -> str:
        return _server(url)

    @model_validator(mode="after")
    def _has_one_account(self) -> Self:
        one_of("password", self.password, self.password_file)
        one_of("api_key", self.api_key, self.api_key_file)
        if self.has_password != (self.email is not None):
            raise ValueError("email and password go together")
        if self.has_password and self.has_api_key:
            raise ValueError("give email and password, or an api_key, not both")
        return self

    @property
    def has_password(self) -> bool:
        return self.password is not None or self.password_file is not None

    @property
    def has_api_key(self) -> bool:
        return self.api_key is not None or self.api_key_file is not None

    @property
    def memory(self) -> Memory | None:
        """What the control plane remembers of it; None where nobody could be asked."""
        return self._memory

    def reminded(self, memory: Memory) -> Self:
        copy = self.model_copy()
        copy._memory = memory  # noqa: SLF001 - its own
        return copy

    def is_selected_by(self, chosen: Mapping[str, Any]) -> bool:
        if chosen.get("base_url", self.base_url) != self.base_url:
            return False
        if chosen.get("model", self.model) != self.model:
            return False
        parts = urlsplit(self.base_url)
        port = parts.port or _PORTS[parts.scheme]
        wanted = chosen.get("host", parts.hostname)
        same_host = wanted == parts.hostname or {wanted, parts.hostname} <= _LOOPBACK
        return same_host and chosen.get("port", port) == port


def _server(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError("must begin with http:// or https:// and name a host")
    if parts.password or parts.username or parts.query:
        raise ValueError("must hold no credentials and no query")
    return url.rstrip("/")
