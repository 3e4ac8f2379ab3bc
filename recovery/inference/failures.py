"""How a road can fail: one noun, and which failure an HTTP answer or an error shows.

Classified by the body, not by the status: a 401 can mean our token or the key of the provider
behind Open WebUI, and a page with status 200 is no answer. What the other side said is repeated
only where it explains a refused request, and then without anything that looks like a secret.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

import httpx

from recovery.routes import Road

AVOID_SECONDS = 2.0
LIMITED_SECONDS = 10.0
LONGEST_RETRY_AFTER = 300.0
LONGEST_SAID = 200

_LOOKS_SECRET = re.compile(r"[A-Za-z0-9_\-.*+/=]{20,}")
_REFUSES_THE_REQUEST = frozenset({400, 413, 415, 422})
_REFUSES_US = frozenset({401, 402, 403})
_OVERLOADED = 529


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """``kind`` is a failure type of the component. ``detail`` is our own sentence.

    ``avoid``: for how many seconds the road is left alone. ``is_told``: whether it is a failure of
    Open WebUI that somebody can repair. ``is_final``: the request itself was refused, so that no
    other road is tried. ``said``: what the other side gave as reason, shortened.
    """

    kind: str
    road: Road
    detail: str
    status: int | None = None
    retry_after: float | None = None
    avoid: float = AVOID_SECONDS
    is_told: bool = True
    is_final: bool = False
    said: str = ""

    def as_dict(self) -> dict[str, Any]:
        shown = asdict(self)
        for name in ("avoid", "is_told", "is_final"):
            del shown[name]
        return {**shown, "road": self.road.value}

    def __str__(self) -> str:
        status = f", status {self.status}" if self.status is not None else ""
        return f"{self.road.value}: {self.kind} ({self.detail}{status})"


class Failed(Exception):
    """Carries a failure from where it shows to where it is dealt with."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.detail)
        self.failure = failure


def of_answer(road: Road, status: int, headers: Mapping[str, str], body: Any) -> Failure:
    """The failure that an answer shows which is none. ``body``: decoded JSON, or ``None``."""
    judge = _by_openwebui if road is Road.OPENWEBUI else _by_provider
    return judge(status, body, _retry_after(headers.get("retry-after")))


def of_error(road: Road, error: Exception) -> Failure:
    """The failure that an error of the transport shows."""
    if isinstance(error, httpx.PoolTimeout):
        return Failure(
            kind="connection_timeout",
            road=road,
            detail="no connection of our own was free",
            avoid=0.0,
            is_told=False,
        )
    if isinstance(error, httpx.TimeoutException | TimeoutError):
        return Failure(kind="connection_timeout", road=road, detail="no answer in time")
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol | httpx.LocalProtocolError):
        return unusable(road, "its address or what it is to be sent cannot be used")
    detail = "the answer broke off"
    if isinstance(error, httpx.ConnectError):
        detail = "TLS failed" if _is_tls(error) else "no connection"
    elif isinstance(error, httpx.DecodingError):
        detail = "the answer cannot be decoded"
    return Failure(kind="service_unavailable", road=road, detail=detail)


def unusable(road: Road, detail: str) -> Failure:
    """The road cannot be taken from here: something of our own is missing, nothing of its."""
    kind = "auth_failure"
    return Failure(kind=kind, road=road, detail=detail, avoid=0.0, is_told=False)


def malformed(road: Road, detail: str) -> Failure:
    kind = "model_error" if road is Road.OPENWEBUI else "service_unavailable"
    return Failure(kind=kind, road=road, detail=detail, status=200)


def _by_openwebui(status: int, body: Any, retry_after: float | None) -> Failure:
    told = body if isinstance(body, Mapping) else {}
    is_upstreams, detail = "error" in told, told.get("detail")
    facts: dict[str, Any] = {}
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        kind, why = "rate_limiting", "requests are limited"
        facts["avoid"] = retry_after or LIMITED_SECONDS
    elif not is_upstreams and detail is None:
        kind, why = _by_page(status)
    elif _names_a_missing_model(detail):
        kind, why = "model_unavailable", "the model is not found"
    elif status in _REFUSES_THE_REQUEST:
        kind, why = "model_error", "the request is refused"
        # A text is what Open WebUI says of whatever went wrong inside of it.
        is_final = is_upstreams or isinstance(detail, list)
        facts = {"is_final": is_final, "is_told": False, "avoid": 0.0, "said": _said(body)}
    else:
        kind, why = _by_its_words(status, is_upstreams=is_upstreams)
    given = {"status": status, "retry_after": retry_after, **facts}
    return Failure(kind=kind, road=Road.OPENWEBUI, detail=why, **given)


def _names_a_missing_model(detail: Any) -> bool:
    text = detail.lower() if isinstance(detail, str) else ""
    return "model" in text and "not found" in text


def _by_its_words(status: int, *, is_upstreams: bool) -> tuple[str, str]:
    """``is_upstreams``: it repeats what the provider behind it said."""
    if status in _REFUSES_US:
        if is_upstreams:
            return "model_error", "the key of the provider behind it is refused"
        return "auth_failure", "our token is refused"
    if status == HTTPStatus.NOT_FOUND:
        if is_upstreams:
            return "model_unavailable", "the provider behind it does not have the model"
        return "service_unavailable", "what answers is no Open WebUI"
    return "model_error", "the model failed"


def _by_page(status: int) -> tuple[str, str]:
    """Not its own words: a proxy, a login page, or its page for unknown paths."""
    if status in range(300, 400):
        return "service_unavailable", "sent elsewhere instead of answered"
    pages: dict[int, tuple[str, str]] = {
        HTTPStatus.OK: ("service_unavailable", "a page instead of an answer"),
        HTTPStatus.SERVICE_UNAVAILABLE: ("maintenance", "its proxy says that it is unavailable"),
        HTTPStatus.REQUEST_TIMEOUT: ("connection_timeout", "its proxy waited in vain"),
        HTTPStatus.GATEWAY_TIMEOUT: ("connection_timeout", "its proxy waited in vain"),
    }
    return pages.get(status, ("service_unavailable", "no answer of an Open WebUI"))


def _by_provider(status: int, body: Any, retry_after: float | None) -> Failure:
    """The direct road; nobody here can repair it, so nobody is told."""
    kind, detail = "service_unavailable", "the provider failed"
    facts: dict[str, Any] = {}
    if status in _REFUSES_US:
        kind, detail = "auth_failure", "the provider's key is refused"
    elif status in {HTTPStatus.TOO_MANY_REQUESTS, _OVERLOADED}:
        kind, detail = "rate_limiting", "requests are limited"
        facts["avoid"] = retry_after or LIMITED_SECONDS
    elif status == HTTPStatus.NOT_FOUND:
        kind, detail = "model_unavailable", "the provider does not have the model"
    elif status in _REFUSES_THE_REQUEST and body is not None:
        kind, detail = "model_error", "the request is refused"
        facts = {"is_final": True, "avoid": 0.0, "said": _said(body)}
    elif body is None:
        detail = "a page instead of an answer"
    return Failure(
        kind=kind,
        road=Road.DIRECT,
        detail=detail,
        status=status,
        retry_after=retry_after,
        is_told=False,
        **facts,
    )


def _said(body: Any) -> str:
    """The reason that the other side gives, without what could be a secret."""
    told = body
    for name in ("error", "detail", "message"):
        if isinstance(told, Mapping) and name in told:
            told = told[name]
    text = told if isinstance(told, str) else ""
    return _LOOKS_SECRET.sub("…", text)[:LONGEST_SAID]


def _retry_after(text: str | None) -> float | None:
    """In seconds, whether it was said so or as a date; within reason."""
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            until = parsedate_to_datetime(text)
        except ValueError:
            return None
        # One without a zone is UTC, as HTTP has it.
        aware = until if until.tzinfo else until.replace(tzinfo=UTC)
        seconds = (aware - datetime.now(UTC)).total_seconds()
    # One that is no number is none.
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER) if seconds == seconds else None  # noqa: PLR0124


def _is_tls(error: BaseException) -> bool:
    return any(isinstance(one, ssl.SSLError) or "SSL" in str(one) for one in _causes(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
