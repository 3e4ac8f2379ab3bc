"""Where the server listens and which tokens it knows, from policy, environment and command line.

What would leave the door open is refused here: an address beyond this machine without a token.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from recovery.credentials import make_once, reveal
from recovery.environment import secret
from recovery.errors import ConfigError, TargetRefused

if TYPE_CHECKING:
    from pydantic import SecretStr

    from recovery.config import Environment, Policy

SHORTEST_TOKEN = 16
HIGHEST_PORT = 65535
MADE_TOKEN_NAME = "http-token"  # noqa: S105 - the name of a file
"""In the state directory: the token that is made where none is configured."""

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How this server runs. ``is_exposed``: others than this machine's users may reach it.

    ``made_token``: the file of a token that nobody configured. ``hosts``: the names by which it
    may be called; None where any will do, because whoever calls needs a token anyway.
    """

    host: str
    port: int
    token: str = field(repr=False)
    read_token: str | None = field(default=None, repr=False)
    made_token: Path | None = None
    is_exposed: bool = False
    hosts: frozenset[str] | None = None
    is_behind_tls: bool = False
    public_url: str | None = None
    trusted_proxies: tuple[str, ...] = ()
    max_body_bytes: int = 1024 * 1024
    requests_per_second: float = 50.0
    max_streams: int = 64

    @property
    def url(self) -> str:
        """For people."""
        shown = f"[{self.host}]" if ":" in self.host else self.host
        return self.public_url or f"http://{shown}:{self.port}"


def settle(
    policy: Policy,
    environment: Environment,
    *,
    host: str | None = None,
    port: int | None = None,
    token_file: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """What is given wins over the environment, and that over the policy.

    Raises ``ConfigError`` and ``SetupError``.
    """
    section = policy.http
    found = os.environ if environ is None else environ
    address = host or found.get("RECOVERY_HTTP_HOST") or section.host
    token = _read(token_file) if token_file else secret("RECOVERY_HTTP_TOKEN", found)
    token = token or _reveal(section.token, section.token_file)
    read_token = secret("RECOVERY_HTTP_READ_TOKEN", found)
    read_token = read_token or _reveal(section.read_token, section.read_token_file)
    is_exposed = not is_loopback(address) or bool(section.public_url or section.allowed_hosts)
    if is_exposed and not token:
        raise ConfigError(
            f"{address} can be reached from elsewhere and no token is configured: set "
            "RECOVERY_HTTP_TOKEN_FILE or http.token_file, or listen on 127.0.0.1"
        )
    made = None if token else environment.state_dir / MADE_TOKEN_NAME
    known = token or make_once(environment.state_dir / MADE_TOKEN_NAME)
    _check(known, read_token)
    return Settings(
        host=address,
        port=port or _port(found.get("RECOVERY_HTTP_PORT")) or section.port,
        token=known,
        read_token=read_token,
        made_token=made,
        is_exposed=is_exposed,
        hosts=_hosts(address, section.public_url, section.allowed_hosts, exposed=is_exposed),
        is_behind_tls=(section.public_url or "").startswith("https://"),
        public_url=section.public_url.rstrip("/") if section.public_url else None,
        trusted_proxies=section.trusted_proxies,
        max_body_bytes=section.max_body_kb * 1024,
        requests_per_second=section.requests_per_second,
        max_streams=section.max_streams,
    )


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _hosts(
    address: str, public_url: str | None, allowed: tuple[str, ...], *, exposed: bool
) -> frozenset[str] | None:
    """Other names are refused, or a page elsewhere could have its own name point here."""
    if exposed and not (public_url or allowed):
        return None
    public = urlsplit(public_url).hostname if public_url else None
    names = {*LOOPBACK_NAMES, address, *allowed, *([public] if public else [])}
    return frozenset(name.lower() for name in names)


def _port(text: str | None) -> int | None:
    if not text:
        return None
    if not text.isdigit() or not 0 < int(text) <= HIGHEST_PORT:
        raise ConfigError(f"RECOVERY_HTTP_PORT: {text[:20]!r} is no port")
    return int(text)


def _read(file: Path) -> str:
    return _reveal(None, file) or ""


def _reveal(given: SecretStr | None, file: Path | None) -> str | None:
    try:
        return reveal(given, file)
    except TargetRefused as error:
        raise ConfigError(error.message) from error


def _check(token: str, read_token: str | None) -> None:
    for name, value in (("token", token), ("read token", read_token)):
        if value is not None and len(value) < SHORTEST_TOKEN:
            raise ConfigError(
                f"the HTTP {name} is shorter than {SHORTEST_TOKEN} characters; "
                "make one with: openssl rand -hex 32"
            )
    if token == read_token:
        raise ConfigError("the HTTP token and the read token are the same")
