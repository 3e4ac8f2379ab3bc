"""What the environment says: where the control Redis is, whose host this is, where state lives.

Cheap to import: applications come here too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import quote, urlsplit, urlunsplit

from recovery import places
from recovery.errors import ConfigError

SOCKET_NAME = "control.sock"

_OFF = frozenset({"off", "0", "false", "no"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """Read once a process. URLs may hold a password, so they never show in a repr."""

    redis_url: str | None = field(default=None, repr=False)
    broker_url: str | None = field(default=None, repr=False)
    result_backend: str | None = field(default=None, repr=False)
    prefix: str = "recovery:"
    state_dir: Path = Path()
    host: str = "localhost"

    @classmethod
    def read(
        cls,
        environ: Mapping[str, str] | None = None,
        *,
        redis_url: str | None = None,
        prefix: str | None = None,
    ) -> Self:
        """What is given wins over its variable. Raises ``ConfigError`` where one cannot be used."""
        found = os.environ if environ is None else environ
        url = redis_url or found.get("RECOVERY_REDIS_URL") or None
        password = secret("RECOVERY_REDIS_PASSWORD", found)
        if url and password:
            url = _with_password(url, password)
        return cls(
            redis_url=url,
            broker_url=found.get("RECOVERY_BROKER_URL") or None,
            result_backend=found.get("RECOVERY_RESULT_BACKEND") or None,
            prefix=prefix or found.get("RECOVERY_PREFIX", "recovery:"),
            state_dir=places.state_dir(found),
            host=places.host_name(found),
        )

    @property
    def is_embedded(self) -> bool:
        """True where no control Redis is configured and ours in the state directory is used."""
        return self.redis_url is None

    @property
    def control_url(self) -> str:
        """The control Redis, as redis-py takes it."""
        return self.redis_url or f"unix://{self.socket_path}"

    @property
    def celery_broker_url(self) -> str:
        return self.broker_url or self._celery_url

    @property
    def celery_result_backend(self) -> str:
        return self.result_backend or self._celery_url

    @property
    def socket_path(self) -> Path:
        return self.state_dir / SOCKET_NAME

    @property
    def shown_control_url(self) -> str:
        """The control Redis without its password, for people."""
        parts = urlsplit(self.control_url)
        place = parts.netloc.rpartition("@")[2]
        return urlunsplit(parts._replace(netloc=place))

    @property
    def _celery_url(self) -> str:
        if self.redis_url is None:
            return f"redis+socket://{self.socket_path}"
        scheme, rest = self.redis_url.split("://", 1)
        return f"redis+socket://{rest}" if scheme == "unix" else self.redis_url


def is_client_off(environ: Mapping[str, str] | None = None) -> bool:
    """Whether ``RECOVERY_CLIENT`` switches ``recovery.client`` off in this process."""
    found = os.environ if environ is None else environ
    return found.get("RECOVERY_CLIENT", "").strip().lower() in _OFF


def secret(name: str, environ: Mapping[str, str] | None = None) -> str | None:
    """A secret's variable, or the content of the file that ``<name>_FILE`` names.

    Raises ``ConfigError`` where the file cannot be read, or both are set.
    """
    found = os.environ if environ is None else environ
    direct, file = found.get(name), found.get(f"{name}_FILE")
    if direct and file:
        raise ConfigError(f"set {name} or {name}_FILE, not both")
    if not file:
        return direct or None
    try:
        return Path(file).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise ConfigError(f"{name}_FILE: cannot read {file}: {reason}") from error


def _with_password(url: str, password: str) -> str:
    parts = urlsplit(url)
    user, _, place = parts.netloc.rpartition("@")
    name = user.partition(":")[0]
    return urlunsplit(parts._replace(netloc=f"{name}:{quote(password, safe='')}@{place}"))
