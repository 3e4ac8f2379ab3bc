"""HTTP with an end: one conversation with a server, bounded in time and in size as a whole.

A timeout of httpx's holds for one read, so a server that sends a byte now and then is never late.
Here the connection itself is shut when the time is over.
"""

from __future__ import annotations

import json
import math
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from recovery.components.openwebui.findings import Unanswered, away, late
from recovery.cutoff import shut_after

if TYPE_CHECKING:
    import httpx

MOST_BYTES = 8 * 1024 * 1024
"""The longest answer that is read: some 20,000 models."""

SHORTEST = 0.05
LONGEST_WAIT = 86_400.0
"""What is believed of a server that says when to come back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a server said. ``body`` is what its JSON holds, None where it is none."""

    status: int
    body: Any
    is_json: bool
    headers: Mapping[str, str]
    seconds: float

    @property
    def retry_after(self) -> float | None:
        """Seconds; None where it is not said, or said as a date."""
        try:
            seconds = float(self.headers.get("retry-after", ""))
        except ValueError:
            return None
        return min(max(seconds, 0.0), LONGEST_WAIT) if math.isfinite(seconds) else None

    def said(self, field: str) -> str | None:
        """A field of the body as text, for judging and for people."""
        found = self.body.get(field) if isinstance(self.body, dict) else None
        if isinstance(found, dict):
            found = found.get("message", "")
        return None if found is None else str(found)[:160]

    def has(self, field: str) -> bool:
        return isinstance(self.body, dict) and self.body.get(field) is not None


class Conversation:
    """Every call raises ``Unanswered`` where no whole answer came in time.

    ``seconds``: what all of it may take. Authorization never shows in an error: only the URL does.
    """

    def __init__(
        self,
        base_url: str,
        seconds: float,
        *,
        headers: Mapping[str, str] | None = None,
        ca_file: str | None = None,
    ) -> None:
        # Every worker imports the remedies; only one that asks an Open WebUI pays for its client.
        import httpx

        from recovery.reaching import bound

        self.base_url = base_url
        self.seconds = seconds
        self._ends = time.monotonic() + seconds
        self._sockets: list[socket.socket] = []
        self._client = httpx.Client(
            base_url=base_url,
            headers={
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                **(headers or {}),
            },
            verify=_trust(base_url, ca_file),
            trust_env=False,
            follow_redirects=False,
        )
        bound(self._client)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def left(self) -> float:
        return max(self._ends - time.monotonic(), 0.0)

    def get(self, path: str, patience: float, **headers: str) -> Answer:
        return self._ask("GET", path, None, patience, headers)

    def post(self, path: str, said: Mapping[str, Any], patience: float, **headers: str) -> Answer:
        return self._ask("POST", path, said, patience, headers)

    def _ask(
        self,
        method: str,
        path: str,
        said: Mapping[str, Any] | None,
        patience: float,
        headers: Mapping[str, str],
    ) -> Answer:
        """``patience``: seconds for this answer, of those that are left for all."""
        seconds = max(min(patience, self.left()), SHORTEST)
        began = time.monotonic()
        with (
            shut_after(seconds, self._sockets) as cut,
            self._named_errors(path, seconds, lambda: cut.is_over),
            self._client.stream(
                method,
                path,
                json=said,
                headers=dict(headers),
                timeout=seconds,
                extensions={"trace": cut.see},
            ) as response,
        ):
            content = self._read(response, path)
        return _answer(response, content, time.monotonic() - began)

    def _read(self, response: httpx.Response, path: str) -> bytes:
        """As it was sent: of what is packed, a few bytes can become gigabytes at once."""
        if response.headers.get("content-encoding", "identity") != "identity":
            raise Unanswered(away(f"{self.base_url}{path} answers packed, which nobody asked for"))
        body = bytearray()
        for piece in response.iter_raw():
            body += piece
            if len(body) > MOST_BYTES:
                raise Unanswered(
                    away(f"{self.base_url}{path} answers more than {MOST_BYTES >> 20} MB")
                )
        return bytes(body)

    @contextmanager
    def _named_errors(
        self, path: str, seconds: float, is_over: Callable[[], bool]
    ) -> Iterator[None]:
        import httpx

        where = f"{self.base_url}{path}"
        try:
            yield
        except httpx.TimeoutException:
            raise Unanswered(late(f"{where} gives no answer within {seconds:.1f} s")) from None
        except httpx.ConnectError as error:
            raise Unanswered(away(f"{where} cannot be reached: {_reason(error)}")) from None
        except (httpx.LocalProtocolError, UnicodeEncodeError):
            # Its text holds what was to be sent.
            raise Unanswered(away(f"{where} cannot be asked with these headers")) from None
        except httpx.HTTPError as error:
            if is_over():
                raise Unanswered(late(f"{where} is not done within {seconds:.1f} s")) from None
            raise Unanswered(away(f"{where} hung up: {_reason(error)}")) from None


def _answer(response: httpx.Response, content: bytes, seconds: float) -> Answer:
    body, is_json = None, "json" in response.headers.get("content-type", "")
    if is_json:
        try:
            body = json.loads(content)
        except (ValueError, RecursionError):
            is_json = False
    return Answer(
        status=response.status_code,
        body=body,
        is_json=is_json,
        headers=response.headers,
        seconds=seconds,
    )


def _trust(url: str, ca_file: str | None) -> ssl.SSLContext:
    """The system's authorities, or the target's own alone."""
    if not url.startswith("https://"):
        # Never used, and cheap: reading the system's authorities takes longer than the probe.
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "strerror", None) or "it holds no certificate"
        raise Unanswered(away(f"the authority in {ca_file} cannot be used: {reason}")) from None


def _reason(error: Exception) -> str:
    """Httpx's text; a header's or a password's is never in it."""
    return str(error)[:120] or type(error).__name__
