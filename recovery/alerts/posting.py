"""JSON to an HTTP address, with the standard library: alerts need no client of their own.

Neither address nor credentials reach an exception's text: both may be secrets.
"""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from base64 import b64encode
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any

from recovery.errors import AlertNotDelivered, AlertRefused

ANSWER_SECONDS = 5.0

_LATER = frozenset({401, 403, 404, 405, 407, 408, 425, 429})
"""Answers of a server that is not set up yet, or busy: what is said is not at fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where to post to, and what shows that we may."""

    url: str = field(repr=False)
    token: str | None = field(default=None, repr=False)
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None


def post(address: Address, path: str, content: Any) -> None:
    """Raises ``AlertNotDelivered``, or ``AlertRefused`` where the content is not accepted."""
    request = urllib.request.Request(  # noqa: S310 - the policy accepts http and https alone
        address.url.rstrip("/") + path,
        data=json.dumps(content, separators=(",", ":")).encode(),
        headers={"content-type": "application/json", "user-agent": "recovery", **_proof(address)},
        method="POST",
    )
    try:
        with _opener(address).open(request, timeout=ANSWER_SECONDS) as answer:
            answer.read(1)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code >= 500 or error.code < 400 or error.code in _LATER:  # noqa: PLR2004
            raise AlertNotDelivered(f"answered {error.code}") from None
        raise AlertRefused(f"answered {error.code}") from None
    except urllib.error.URLError as error:
        reason = error.reason
        raise AlertNotDelivered(reason if isinstance(reason, str) else _named(reason)) from None
    except (OSError, HTTPException, ValueError) as error:
        raise AlertNotDelivered(_named(error)) from None


def _named(error: BaseException) -> str:
    """What a system call or TLS said; never what a library put into a sentence with the URL."""
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or type(error).__name__}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "timed out" if isinstance(error, TimeoutError) else type(error).__name__


def _proof(address: Address) -> dict[str, str]:
    if address.token is not None:
        return {"authorization": f"Bearer {address.token}"}
    if address.username is not None:
        pair = f"{address.username}:{address.password or ''}".encode()
        return {"authorization": f"Basic {b64encode(pair).decode()}"}
    return {}


class _Stay(urllib.request.HTTPRedirectHandler):
    """Another place has no business with what is sent here, nor with the token."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _opener(address: Address) -> urllib.request.OpenerDirector:
    trusted = ssl.create_default_context(cafile=address.ca_file)
    return urllib.request.build_opener(_Stay, urllib.request.HTTPSHandler(context=trusted))
