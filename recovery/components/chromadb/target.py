"""One ChromaDB as the policy describes it: a server, a directory on this host, or both."""

from __future__ import annotations

import os.path
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, NonNegativeInt, SecretStr, field_validator, model_validator

from recovery.credentials import one_of
from recovery.runtime import Runtime
from recovery.strategy import Duration, StrictModel, TargetModel

DEFAULT_URL = "http://127.0.0.1:8000"
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_PORTS = {"http": 80, "https": 443}


class ChromaThresholds(StrictModel):
    """When a ChromaDB that answers counts as unhealthy."""

    latency_ms: float = Field(default=1000.0, gt=0)


class ChromaTarget(TargetModel):
    """``url`` names the server, ``path`` its directory on this host; one of them is enough.

    Without both it is Chroma's own default address. ``collections`` are those that must be there,
    each with the least number of records that it must hold. The credentials come beside the URL,
    never in it: ``token`` or ``token_file``, sent in the header that ``auth_header`` names.
    ``answer_timeout`` is how long heartbeat and names may take until the server counts as silent.
    ``runtime`` says how the server's process is stopped and started.
    """

    selectors: ClassVar[tuple[str, ...]] = ("path", "url", "host", "port")

    url: str | None = None
    path: Path | None = None
    tenant: str = "default_tenant"
    database: str = "default_database"
    token: SecretStr | None = None
    token_file: Path | None = None
    auth_header: Literal["authorization", "x-chroma-token"] = "authorization"
    tls_ca_file: str | None = None
    collections: dict[str, NonNegativeInt] = Field(default_factory=dict)
    thresholds: ChromaThresholds = ChromaThresholds()
    answer_timeout: Duration = 1.0
    runtime: Runtime | None = None

    @field_validator("url")
    @classmethod
    def _names_a_server(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        if parts.scheme not in _PORTS or not parts.hostname:
            raise ValueError("must begin with http:// or https:// and name a host")
        if parts.password or parts.username:
            raise ValueError("must not hold credentials: use token or token_file")
        return url.rstrip("/")

    @field_validator("path")
    @classmethod
    def _is_absolute(cls, path: Path | None) -> Path | None:
        if path is not None and not path.is_absolute():
            raise ValueError("must be absolute: workers run in other folders")
        return path

    @model_validator(mode="after")
    def _has_one_token(self) -> Self:
        one_of("token", self.token, self.token_file)
        return self

    @model_validator(mode="after")
    def _has_a_server_to_run(self) -> Self:
        if self.runtime is not None and self.server is None:
            raise ValueError("runtime is for a server: give its url beside the path")
        return self

    @property
    def server(self) -> str | None:
        """The server's URL, or None where the target is a directory that no server is known of."""
        return self.url or (None if self.path else DEFAULT_URL)

    def is_selected_by(self, chosen: Mapping[str, Any]) -> bool:
        if "path" in chosen and not self._is_at(chosen["path"]):
            return False
        if "url" in chosen and str(chosen["url"]).rstrip("/") != self.server:
            return False
        return not {"host", "port"} & set(chosen) or self._listens_on(chosen)

    def _is_at(self, path: object) -> bool:
        return self.path is not None and os.path.normpath(str(path)) == os.path.normpath(self.path)

    def _listens_on(self, chosen: Mapping[str, Any]) -> bool:
        if self.server is None:
            return False
        parts = urlsplit(self.server)
        port = parts.port or _PORTS[parts.scheme]
        wanted = chosen.get("host", parts.hostname)
        same_host = wanted == parts.hostname or {wanted, parts.hostname} <= _LOOPBACK
        return same_host and chosen.get("port", port) == port
