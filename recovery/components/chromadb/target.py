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
from recovery.strategy import Duration, Parameters, StrictModel, TargetModel

DEFAULT_URL = "http://127.0.0.1:8000"
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_PORTS = {"http": 80, "https": 443}


class ChromaThresholds(StrictModel):
    """When a ChromaDB that answers counts as unhealthy."""

    latency_ms: float = Field(default=1000.0, gt=0)


Method = Literal["quiesce", "stop"]


class SnapshotSettings(StrictModel):
    """When and how snapshots of the directory are taken, and how many are kept.

    ``quiesce`` has writers wait for the moment of the copy; ``stop`` stops the server for it, with
    ``grace`` seconds to end. ``interval``: null for none but those that are asked for. ``timeout``
    is for one snapshot, from its beginning until it is verified.
    """

    directory: Path | None = None
    method: Method = "quiesce"
    interval: Duration | None = 6 * 3600.0
    keep: int = Field(default=8, ge=1, le=10_000)
    grace: Duration = 10.0
    timeout: Duration = 900.0

    @field_validator("directory")
    @classmethod
    def _is_absolute(cls, directory: Path | None) -> Path | None:
        if directory is not None and not directory.is_absolute():
            raise ValueError("must be absolute: workers run in other folders")
        return directory


class ChromaTarget(TargetModel):
    """``url`` names the server, ``path`` its directory on this host; one of them is enough.

    Without both it is Chroma's own default address. ``collections`` are those that must be there,
    each with the least number of records that it must hold. The credentials come beside the URL,
    never in it: ``token`` or ``token_file``, sent in the header that ``auth_header`` names.
    ``answer_timeout`` is how long heartbeat and names may take until the server counts as silent.
    ``runtime`` says how the server's process is stopped and started.
    """

    selectors: ClassVar[tuple[str, ...]] = ("path", "url", "host", "port", "snapshot_dir")

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
    snapshots: SnapshotSettings = SnapshotSettings()

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

    def completed(
        self,
        name: str,
        here: str,  # noqa: ARG002
        strategies: Mapping[str, Parameters],  # noqa: ARG002
        integration: Mapping[str, Any],
    ) -> Self:
        """Each target has a folder of its own below ``integration.snapshot_dir``."""
        shared = integration.get("snapshot_dir")
        if self.snapshots.directory is not None or shared is None:
            return self
        own = self.snapshots.model_copy(update={"directory": Path(shared) / "chromadb" / name})
        return self.model_copy(update={"snapshots": own})

    def contradiction(self) -> str | None:
        """A snapshot inside the directory that a rollback replaces would go with it."""
        directory = self.snapshots.directory
        if directory is None or self.path is None:
            return None
        if _is_within(directory, self.path):
            return f"snapshots would lie in {directory}, inside {self.path}, which they protect"
        if _is_within(self.path, directory):
            return f"{self.path} lies inside {directory}, where its snapshots would"
        return None

    @property
    def server(self) -> str | None:
        """The server's URL, or None where the target is a directory that no server is known of."""
        return self.url or (None if self.path else DEFAULT_URL)

    def is_selected_by(self, chosen: Mapping[str, Any]) -> bool:
        if "path" in chosen and not self._is_at(chosen["path"]):
            return False
        if "url" in chosen and str(chosen["url"]).rstrip("/") != self.server:
            return False
        if "snapshot_dir" in chosen and not self._keeps_in(chosen["snapshot_dir"]):
            return False
        return not {"host", "port"} & set(chosen) or self._listens_on(chosen)

    def _is_at(self, path: object) -> bool:
        return self.path is not None and os.path.normpath(str(path)) == os.path.normpath(self.path)

    def _keeps_in(self, directory: object) -> bool:
        """Its own folder of snapshots, or the one that all targets share."""
        own = self.snapshots.directory
        wanted = Path(os.path.normpath(str(directory)))
        return own is not None and wanted in (own, own.parent.parent)

    def _listens_on(self, chosen: Mapping[str, Any]) -> bool:
        if self.server is None:
            return False
        parts = urlsplit(self.server)
        port = parts.port or _PORTS[parts.scheme]
        wanted = chosen.get("host", parts.hostname)
        same_host = wanted == parts.hostname or {wanted, parts.hostname} <= _LOOPBACK
        return same_host and chosen.get("port", port) == port


def _is_within(inner: Path, outer: Path) -> bool:
    """As written, and behind symlinks as far as they can be seen from here."""
    return any(
        one == other or other in one.parents
        for one, other in (
            (Path(os.path.normpath(inner)), Path(os.path.normpath(outer))),
            (Path(os.path.realpath(inner)), Path(os.path.realpath(outer))),
        )
    )
