"""One call: at most two attempts, each on another road, within one time. No I/O.

Whoever does the I/O goes through ``attempts`` and works inside each: an attempt takes every failure
of its road to itself, so that what follows the loop is reached only where there is no answer. No
exception of ours has one of the transport behind it: those carry the request, and so our secrets.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import httpx

from recovery.errors import InferenceError, NoAnswer, NoRoad, RequestRejected, StreamBroken
from recovery.inference import failures
from recovery.inference.answers import Answer
from recovery.inference.conversation import Conversation
from recovery.inference.dialect import Events, Malformed, StreamState, decoded
from recovery.inference.endpoints import Endpoint
from recovery.inference.failures import Failed, Failure

if TYPE_CHECKING:
    from recovery.inference.roads import Plan, Roads

LARGEST_ANSWER = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """In seconds. ``total``: until the answer, or the first text of a stream; where there are two
    roads, the first gets half of it. ``connect``: until a connection stands. ``silence``: between
    two portions of a stream. ``stream``: for a whole stream.
    """

    total: float = 120.0
    connect: float = 2.0
    silence: float = 30.0
    stream: float = 600.0


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer that was read to its end."""

    status: int
    headers: httpx.Headers
    content: bytes


class Call:
    """``said`` by ``roads``, within ``limits``."""

    def __init__(self, roads: Roads, said: Conversation, limits: Limits, *, stream: bool) -> None:
        self.roads = roads
        self.plan: Plan = roads.plan()
        self.said = said
        self.limits = limits
        self.stream = stream
        self.failures: list[Failure] = []
        self._ends = time.monotonic() + limits.total

    def attempts(self) -> Iterator[Attempt]:
        left = list(self.roads.order(self.plan))
        while left:
            endpoint, *left = left
            now = time.monotonic()
            if now >= self._ends:
                return
            ends = (now + self._ends) / 2 if left else self._ends
            yield Attempt(self, endpoint, ends)
            if any(failure.is_final for failure in self.failures):
                return

    def error(self) -> InferenceError:
        """What to raise when all attempts are over."""
        met = [*self.failures, *self.plan.unusable]
        facts = {"target": self.roads.target, "failures": [one.as_dict() for one in met]}
        why = "; ".join(str(one) for one in met)
        final = next((one for one in self.failures if one.is_final), None)
        if final is not None:
            said = f": {final.said}" if final.said else ""
            return RequestRejected(f"{final}{said}", facts)
        if not self.failures:
            known = why or "the control plane is unknown or away, and the environment names none"
            return NoRoad(f"no road to {self.roads.target} can be used: {known}", facts)
        return NoAnswer(f"no answer by any road: {why}", facts)


class Attempt:
    """One request on one road. As a context it takes the road's failures, and no other errors."""

    def __init__(self, call: Call, endpoint: Endpoint, ends: float) -> None:
        self.call = call
        self.endpoint = endpoint
        self.began = time.monotonic()
        self.ends = ends

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        failure = self._failure(error)
        if failure is None:
            return False
        self.call.failures.append(failure)
        self.call.roads.failed(failure)
        return True

    def content(self) -> bytes:
        return self.endpoint.content(self.call.said, stream=self.call.stream)

    def too_large(self) -> Failed:
        return Failed(failures.malformed(self.endpoint.road, "the answer is larger than any"))

    def is_refused(self, status: int, headers: httpx.Headers) -> bool:
        """Whether what comes is no stream, and is to be read as a whole."""
        kind = headers.get("content-type", "")
        return status != HTTPStatus.OK or not kind.startswith("text/event-stream")

    def answer(self, reply: Reply) -> Answer:
        """Raises ``Failed`` where the reply is no answer."""
        road = self.endpoint.road
        try:
            body = json.loads(reply.content)
        except (ValueError, RecursionError):
            body = None
        is_json = "json" in reply.headers.get("content-type", "")
        if reply.status != HTTPStatus.OK or (body is None and not is_json):
            raise Failed(failures.of_answer(road, reply.status, reply.headers, body))
        if body is None:
            raise Failed(failures.malformed(road, "the answer is no JSON"))
        try:
            whole = self.endpoint.dialect.whole(body)
        except Malformed as error:
            raise Failed(failures.malformed(road, str(error))) from None
        self.call.roads.worked(road)
        return Answer(
            text=whole.text,
            model=whole.model,
            stop=whole.stop,
            usage=whole.usage,
            road=road,
            after=self.after,
        )

    @property
    def after(self) -> str:
        return self.call.failures[0].kind if self.call.failures else ""

    def broken(self, error: Exception) -> StreamBroken:
        """What to raise where the stream fails after its beginning was handed out."""
        failure = self._failure(error)
        if failure is None:
            raise AssertionError("an error that is no failure of a road") from error
        self.call.roads.failed(failure)
        facts = {"target": self.call.roads.target, "failures": [failure.as_dict()]}
        return StreamBroken(f"the answer broke off: {failure}", facts)

    def _failure(self, error: BaseException | None) -> Failure | None:
        if isinstance(error, Failed):
            return error.failure
        if isinstance(error, httpx.HTTPError | httpx.InvalidURL | TimeoutError | OSError):
            return failures.of_error(self.endpoint.road, error)
        return None


class Reading:
    """The text of a stream, portion by portion, until it is whole."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._events = Events()
        self._state: StreamState = attempt.endpoint.dialect.Stream()
        self._texts: list[str] = []
        self._after = attempt.after
        self.is_over = False
        self.events = 0
        """How many came. Bytes that make none are no progress."""

    @property
    def has_text(self) -> bool:
        return bool(self._texts)

    @property
    def is_whole(self) -> bool:
        return self._state.is_whole

    def feed(self, chunk: bytes) -> list[str]:
        """The texts in it; raises ``Failed``."""
        found = []
        try:
            for data in self._events.feed(chunk):
                self.events += 1
                if data == "[DONE]":
                    self._state.end()
                    self.is_over = True
                    break
                if data:
                    found.append(self._state.take(decoded(data)))
        except Malformed as error:
            raise Failed(failures.malformed(self._attempt.endpoint.road, str(error))) from None
        texts = [text for text in found if text]
        self._texts += texts
        return texts

    def finish(self) -> None:
        """The connection ended; raises ``Failed`` where that was not the end of the answer."""
        road = self._attempt.endpoint.road
        if not self.is_whole:
            raise Failed(failures.malformed(road, "the stream ended before the answer did"))
        self._attempt.call.roads.worked(road)

    def answer(self) -> Answer:
        state: Any = self._state
        return Answer(
            text="".join(self._texts),
            model=state.model,
            stop=state.stop,
            usage=state.usage,
            road=self._attempt.endpoint.road,
            after=self._after,
        )
