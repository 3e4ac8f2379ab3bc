"""The client for threads. Does the I/O of a ``Call`` and decides nothing."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import httpx

from recovery.inference.answers import Answer
from recovery.inference.call import LARGEST_ANSWER, Attempt, Call, Limits, Reading, Reply
from recovery.inference.conversation import Messages, conversation
from recovery.inference.failures import Failed
from recovery.inference.liveness import LOOK_AFTER, LOOK_TIMEOUT, LOOKS, shows_life
from recovery.inference.own import Own
from recovery.inference.roads import Roads
from recovery.inference.wire import Watch, Wire, timeouts, watched
from recovery.routes import Direct, Road

TARGET = "openwebui/default"


class Client:
    """Answers from Open WebUI, or past it.

    ``target`` is the name that the policy gives to this Open WebUI. What is given else fills what
    the control plane does not say: ``base_url``, ``token`` and ``model`` of Open WebUI, ``direct``
    with its ``api_key``. One client serves all threads; a fork needs no other one.
    """

    def __init__(
        self,
        target: str = TARGET,
        *,
        base_url: str | None = None,
        token: str | None = None,
        model: str | None = None,
        direct: Direct | None = None,
        api_key: str | None = None,
        limits: Limits | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        own = Own(base_url=base_url, token=token, model=model, direct=direct, api_key=api_key)
        self._roads = Roads(target, own)
        self._limits = limits or Limits()
        self._wire = Wire(ssl_context)

    def chat(self, messages: Messages, **options: Any) -> Answer:
        """The whole answer. Options: ``system``, ``model``, ``max_tokens``, ``temperature``,
        ``top_p``, ``stop``.

        Raises ``ValueError`` where the messages cannot be sent, and ``NoRoad``, ``NoAnswer`` or
        ``RequestRejected``.
        """
        call = self._call(messages, options, stream=False)
        for attempt in call.attempts():
            with attempt:
                return attempt.answer(self._fetch(attempt))
        raise call.error()

    def stream(self, messages: Messages, **options: Any) -> Stream:
        """The answer as it comes; returns with its first text. Otherwise as ``chat``."""
        call = self._call(messages, options, stream=True)
        for attempt in call.attempts():
            with attempt:
                return self._open(attempt)
        raise call.error()

    def close(self) -> None:
        self._wire.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _call(self, messages: Messages, options: dict[str, Any], *, stream: bool) -> Call:
        said = conversation(messages, **options)
        while not self._roads.is_settled():
            time.sleep(0.01)
        return Call(self._roads, said, self._limits, stream=stream)

    def _fetch(self, attempt: Attempt) -> Reply:
        with watched(self._watch(attempt)):
            response = self._send(attempt)
            try:
                return _read(attempt, response)
            finally:
                response.close()

    def _open(self, attempt: Attempt) -> Stream:
        watch = self._watch(attempt)
        with watched(watch):
            response = self._send(attempt)
        try:
            if not attempt.is_refused(response.status_code, response.headers):
                return Stream(attempt, response, watch)
            with watched(watch):
                whole = attempt.answer(_read(attempt, response))
            response.close()
            return Stream.of_whole(attempt, whole)
        except BaseException:
            response.close()
            raise

    def _send(self, attempt: Attempt) -> httpx.Response:
        client, endpoint = self._wire.client, attempt.endpoint
        left = attempt.ends - time.monotonic()
        request = client.build_request(
            "POST",
            endpoint.url,
            content=attempt.content(),
            headers=endpoint.headers,
            extensions=timeouts(self._limits.connect, left),
        )
        return client.send(request, stream=True, follow_redirects=False)

    def _watch(self, attempt: Attempt) -> Watch:
        def is_lost() -> bool:
            return self._is_lost(attempt)

        can_look = attempt.endpoint.health is not None
        return Watch(attempt.ends, after=LOOK_AFTER, is_lost=is_lost if can_look else None)

    def _is_lost(self, attempt: Attempt) -> bool:
        """Whether a silent road is left: the control plane has left it, or nobody is there."""
        roads, road = attempt.call.roads, attempt.endpoint.road
        if roads.is_overtaken(attempt.call.plan, road):
            return True
        if roads.health.takes_a_look(road):
            roads.health.looked(road, alive=self._is_alive(attempt))
        return roads.health.is_dead(road, attempt.began)

    def _is_alive(self, attempt: Attempt) -> bool:
        health = attempt.endpoint.health
        return health is None or any(self._shows_life(health) for _ in range(LOOKS))

    def _shows_life(self, health: httpx.URL) -> bool:
        watch = Watch(time.monotonic() + LOOK_TIMEOUT, after=0.0, is_lost=None)
        try:
            with watched(watch):
                return shows_life(
                    self._wire.client.get(health, timeout=LOOK_TIMEOUT, follow_redirects=False)
                )
        except httpx.HTTPError:
            return False


class Stream:
    """The texts of an answer, one after the other. ``answer`` is there once all were read.

    What breaks off raises ``StreamBroken``; it never looks like the end. Close it, or leave its
    ``with`` block, where it is not read to its end.
    """

    def __init__(self, attempt: Attempt, response: httpx.Response | None, watch: Watch) -> None:
        """Reads until the first text: raises ``Failed`` or what httpx raises."""
        self.road: Road = attempt.endpoint.road
        self._attempt = attempt
        self._answer: Answer | None = None
        self._reading = Reading(attempt)
        self._pieces = self._read(response, watch) if response is not None else iter(())
        first = next(self._pieces, None)
        self._first = [first] if first is not None else []

    @classmethod
    def of_whole(cls, attempt: Attempt, answer: Answer) -> Stream:
        """Of a server that does not stream."""
        made = cls(attempt, None, Watch(0.0, after=0.0, is_lost=None))
        made._first, made._answer = [answer.text], answer
        return made

    @property
    def answer(self) -> Answer:
        """Raises ``ValueError`` where the stream was not read to its end."""
        if self._answer is None or self._first:
            raise ValueError("the answer is not whole: read the stream to its end first")
        return self._answer

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self._first:
            return self._first.pop()
        try:
            return next(self._pieces)
        except (Failed, httpx.HTTPError, OSError) as error:
            broken = self._attempt.broken(error)
        # Out of the handler, so that nothing of the request hangs on it.
        raise broken

    def close(self) -> None:
        close = getattr(self._pieces, "close", None)
        if close is not None:
            close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _read(self, response: httpx.Response, watch: Watch) -> Iterator[str]:
        reading, limits = self._reading, self._attempt.call.limits
        over = time.monotonic() + limits.stream
        chunks = response.iter_bytes()
        try:
            while not reading.is_over:
                try:
                    with watched(watch):
                        chunk = next(chunks, None)
                except (httpx.HTTPError, OSError):
                    if reading.is_whole:
                        break
                    raise
                if chunk is None:
                    break
                known = reading.events
                for text in reading.feed(chunk):
                    watch.is_lost = None
                    yield text
                if reading.has_text and reading.events > known:
                    watch.ends = min(over, time.monotonic() + limits.silence)
            reading.finish()
            self._answer = reading.answer()
        finally:
            response.close()


def _read(attempt: Attempt, response: httpx.Response) -> Reply:
    """The whole body; raises ``Failed`` where it is larger than any answer."""
    content = bytearray()
    for chunk in response.iter_bytes():
        content += chunk
        if len(content) > LARGEST_ANSWER:
            raise attempt.too_large()
    return Reply(response.status_code, response.headers, bytes(content))
