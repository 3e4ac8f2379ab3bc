"""A Chroma server's HTTP API, version 2, as far as probes and evidence need it; it changes nothing.

Not the chromadb client: that has no timeout, opens a connection when it is made, and costs 0.8 s.
"""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx

from recovery.components.chromadb import answers
from recovery.components.chromadb.findings import Budget, Finding, from_message
from recovery.components.chromadb.sampling import CollectionError, Vector
from recovery.components.chromadb.target import ChromaTarget
from recovery.credentials import for_header, reveal
from recovery.cutoff import shut_after
from recovery.reaching import bound

MOST_BYTES = 32 * 1024 * 1024
"""The longest answer that is read; one vector and its hits are far below."""
SHORTEST = 0.05
MOST_COLLECTIONS = 1000
"""How many collections one listing names."""
HIDDEN = "***"

T = TypeVar("T")


class Unanswered(Exception):
    """The server gave no usable answer; ``finding`` says which failure that is."""

    def __init__(self, finding: Finding, *, dropped: bool = False) -> None:
        super().__init__(finding.summary)
        self.finding = finding
        self.dropped = dropped


class ChromaServer:
    """One conversation with a server, which ends when its budget does.

    Every call raises ``Unanswered``. Making one raises ``TargetRefused`` where the token cannot be
    read.
    """

    def __init__(self, target: ChromaTarget, url: str, budget: Budget) -> None:
        self._budget = budget
        self._patience = target.answer_timeout
        self._url = url
        self._is_alive = False
        self._sockets: list[socket.socket] = []
        self._token = for_header(reveal(target.token, target.token_file), "the token")
        self._tenants = "/api/v2/tenants"
        self._databases = f"{self._tenants}/{quoted(target.tenant)}/databases"
        self._database = f"{self._databases}/{quoted(target.database)}"
        self._collections = f"{self._database}/collections"
        self._client = httpx.Client(
            base_url=url,
            headers={"Accept-Encoding": "identity", **_headers(target, self._token)},
            verify=_trust(target, url),
            trust_env=False,
        )
        bound(self._client)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def heartbeat(self) -> int:
        """Epoch nanoseconds by the server's clock."""
        said = self.understood(answers.heartbeat, self._ask("GET", "/api/v2/heartbeat"))
        self._is_alive = True
        return said

    def version(self) -> str:
        return self.understood(answers.version, self._ask("GET", "/api/v2/version"))

    def collections(self, expected: Iterable[str] = ()) -> list[ServedCollection]:
        """At most 1,000 and, where there are more, the expected ones by their names."""
        said = self._ask("GET", f"{self._collections}?limit={MOST_COLLECTIONS}")
        listed = self.understood(answers.listing, said)
        if len(listed) >= MOST_COLLECTIONS:
            names = {found.name for found in listed}
            listed += filter(None, map(self._named, sorted(set(expected) - names)))
        return [ServedCollection(self, found) for found in listed]

    def has_database(self) -> bool:
        """A server lists the collections of one that is not there as if it were empty."""
        try:
            self._ask("GET", self._database)
        except Refused as refused:
            if refused.status != httpx.codes.NOT_FOUND:
                raise
            return False
        return True

    def _named(self, name: str) -> answers.Listed | None:
        try:
            said = self._ask("GET", f"{self._collections}/{quoted(name)}")
            return self.understood(answers.one, said)
        except Refused as refused:
            if refused.finding.failure_type != "collection_missing":
                raise
            return None

    def of_collection(self, identity: str, method: str, what: str, **said: Any) -> Any:
        """All of the budget, since the first question may have to load an index from disk."""
        path = f"{self._collections}/{identity}/{what}"
        return self._ask(method, path, said or None, patience=self._budget.seconds)

    def understood(self, read: Callable[[object], T], said: object) -> T:
        """What was said, as one of ``answers``; raises ``Unanswered`` where it is none."""
        try:
            return read(said)
        except answers.NotUnderstood as error:
            raise Unanswered(
                _temporary(f"{self._url} answers, and is no ChromaDB: {error}")
            ) from None

    def _ask(
        self,
        method: str,
        path: str,
        content: dict[str, Any] | None = None,
        *,
        patience: float | None = None,
    ) -> Any:
        seconds = min(patience or self._patience, max(self._budget.left(), SHORTEST))
        with (
            shut_after(seconds, self._sockets) as cutoff,
            self._named_errors(seconds, lambda: cutoff.is_over),
            self._client.stream(
                method, path, json=content, timeout=seconds, extensions={"trace": cutoff.see}
            ) as response,
        ):
            body = self._read(response)
            if cutoff.is_over:
                # Where only its end says how long an answer is, a cut one looks whole.
                raise Unanswered(self._silent(seconds))
        return self._judged(response.status_code, body)

    def _judged(self, status: int, body: bytes) -> Any:
        url = self._url
        if status in (401, 403):
            raise Unanswered(
                Finding(failure_type="auth_failure", summary=f"{url} refuses the token ({status})")
            )
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            raise Unanswered(_temporary(f"{url} answers {status} and no JSON")) from None
        if status == httpx.codes.OK:
            return answer
        text = self._without_token(answers.complaint(answer))
        if status in (429, 502, 503, 504):
            raise Unanswered(_temporary(f"{url} answers {status} {text}"))
        raise Refused(from_message(text or f"{url} answers {status}"), status)

    def _without_token(self, text: str) -> str:
        """A proxy may say in its error what it was sent."""
        return text.replace(self._token, HIDDEN) if self._token else text

    def _read(self, response: httpx.Response) -> bytes:
        """As it was sent, since of what is packed a few bytes can become gigabytes at once."""
        if response.headers.get("content-encoding", "identity") != "identity":
            raise Unanswered(_temporary(f"{self._url} answers packed, which nobody asked for"))
        body = bytearray()
        for piece in response.iter_raw():
            body += piece
            if len(body) > MOST_BYTES:
                raise Overlong(_temporary(f"an answer of more than {MOST_BYTES} bytes"))
        return bytes(body)

    @contextmanager
    def _named_errors(self, seconds: float, is_over: Callable[[], bool]) -> Iterator[None]:
        try:
            yield
        except httpx.TimeoutException as error:
            raise Unanswered(self._silent(seconds)) from error
        except httpx.TransportError as error:
            if is_over():
                raise Unanswered(self._silent(seconds)) from None
            if isinstance(error, httpx.ConnectError):
                raise Unanswered(_away(f"{self._url} cannot be reached: {error}")) from error
            raise Unanswered(_away(f"{self._url} hung up: {error}"), dropped=True) from error

    def _silent(self, seconds: float) -> Finding:
        within = f"within {seconds:.1f} s"
        if self._is_alive:
            # Whoever locks the database makes everything but the heartbeat wait.
            return _temporary(f"{self._url} answers heartbeats, and nothing else {within}")
        return Finding(
            failure_type="connection_timeout", summary=f"{self._url} gives no answer {within}"
        )


class ServedCollection:
    """A ``sampling.Collection`` over HTTP."""

    def __init__(self, server: ChromaServer, listed: answers.Listed) -> None:
        self._server = server
        self.id = listed.id
        self.name = listed.name
        self.space: str | None = listed.space

    def count(self) -> int:
        return self._server.understood(answers.count, self._ask("GET", "count"))

    def page(self, offset: int, limit: int) -> list[tuple[str, Vector]]:
        said = {"offset": offset, "limit": limit, "include": ["embeddings"]}
        got = self._ask("POST", "get", **said)
        return self._server.understood(lambda one: [*answers.page(one, limit)], got)

    def named(self, ids: Sequence[str]) -> list[tuple[str, Vector]]:
        """Those of the ids that there are, with their vectors."""
        got = self._ask("POST", "get", ids=list(ids), include=["embeddings"])
        return self._server.understood(lambda one: [*answers.page(one, len(ids))], got)

    def query(self, vector: Vector, hits: int) -> list[tuple[str, float]]:
        said = {"query_embeddings": [vector], "n_results": hits, "include": ["distances"]}
        got = self._ask("POST", "query", **said)
        return self._server.understood(lambda one: answers.hits(one, hits), got)

    def _ask(self, method: str, what: str, **said: Any) -> Any:
        try:
            return self._server.of_collection(self.id, method, what, **said)
        except Refused as refused:
            raise CollectionError(str(refused)) from refused


class Refused(Unanswered):
    """The server answered with an error of its own; ``status`` is HTTP's."""

    def __init__(self, finding: Finding, status: int) -> None:
        super().__init__(finding)
        self.status = status


class Overlong(Unanswered):
    """The answer was longer than is read; what was asked for may be asked for in smaller parts."""


def _away(summary: str) -> Finding:
    return Finding(failure_type="connection_error", summary=summary)


def _temporary(summary: str) -> Finding:
    return Finding(failure_type="temporary_failure", summary=summary)


def _headers(target: ChromaTarget, token: str | None) -> dict[str, str]:
    if token is None:
        return {}
    if target.auth_header == "authorization":
        return {"Authorization": f"Bearer {token}"}
    return {"X-Chroma-Token": token}


def _trust(target: ChromaTarget, url: str) -> ssl.SSLContext:
    """The system's authorities, or the target's own alone."""
    if not url.startswith("https://"):
        # Never used, and cheap: reading the system's authorities takes longer than the probe.
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return ssl.create_default_context(cafile=target.tls_ca_file)


def quoted(name: str) -> str:
    return quote(name, safe="")
