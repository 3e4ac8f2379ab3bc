"""The client for asyncio. Does the I/O of a ``Call`` and decides nothing."""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self
from weakref import WeakKeyDictionary

import httpx

from recovery.inference.answers import Answer
from recovery.inference.call import LARGEST_ANSWER, Attempt, Call, Limits, Reading, Reply
from recovery.inference.conversation import Conversation, Messages, conversation
from recovery.inference.failures import Failed
from recovery.inference.liveness import LOOK_AFTER, LOOK_TIMEOUT, LOOKS, shows_life
from recovery.inference.own import Own
from recovery.inference.roads import Roads
from recovery.inference.sync import TARGET
from recovery.inference.wire import LIMITS, timeouts, trusting
from recovery.routes import Direct, Road


class AsyncClient:
    """As ``Client``, for asyncio. One client serves all event loops, each with connections of its
    own; close it in the loop that used it."""

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
        self._ssl_context = ssl_context
        self._here = threading.local()

    async def chat(self, messages: Messages, **options: Any) -> Answer:
        """As ``Client.chat``."""
        call = await self._call(conversation(messages, **options), stream=False)
        for attempt in call.attempts():
            with attempt:
                return attempt.answer(await self._fetch(attempt))
        raise call.error()

    def stream(self, messages: Messages, **options: Any) -> AsyncStream:
        """As ``Client.stream``; what can fail does so at the first text."""
        return AsyncStream(self, conversation(messages, **options))

    async def aclose(self) -> None:
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    @property
    def _clients(self) -> WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient]:
        """Those of this thread: a loop runs in one."""
        found: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] | None
        found = getattr(self._here, "clients", None)
        if found is None:
            found = self._here.clients = WeakKeyDictionary()
        return found

    @property
    def _client(self) -> httpx.AsyncClient:
        clients, loop = self._clients, asyncio.get_running_loop()
        found = clients.get(loop)
        if found is None:
            verify = trusting(self._ssl_context)
            found = clients[loop] = httpx.AsyncClient(verify=verify, limits=LIMITS)
        return found

    async def _call(self, said: Conversation, *, stream: bool) -> Call:
        # Another thread hears the answer, and only the first call waits for it.
        while not self._roads.is_settled():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        return Call(self._roads, said, self._limits, stream=stream)

    async def _fetch(self, attempt: Attempt) -> Reply:
        async with Looking(self, attempt):
            response = await self._send(attempt)
            try:
                return await _read(attempt, response)
            finally:
                await response.aclose()

    async def _send(self, attempt: Attempt) -> httpx.Response:
        client, endpoint = self._client, attempt.endpoint
        request = client.build_request(
            "POST",
            endpoint.url,
            content=attempt.content(),
            headers=endpoint.headers,
            extensions=timeouts(self._limits.connect, attempt.ends - time.monotonic()),
        )
        return await client.send(request, stream=True, follow_redirects=False)

    async def _is_lost(self, attempt: Attempt) -> bool:
        """Whether a silent road is left: the control plane has left it, or nobody is there."""
        roads, road = attempt.call.roads, attempt.endpoint.road
        if roads.is_overtaken(attempt.call.plan, road):
            return True
        if roads.health.takes_a_look(road):
            roads.health.looked(road, alive=await self._is_alive(attempt))
        return roads.health.is_dead(road, attempt.began)

    async def _is_alive(self, attempt: Attempt) -> bool:
        health = attempt.endpoint.health
        if health is None:
            return True
        for _ in range(LOOKS):
            if await self._shows_life(health):
                return True
        return False

    async def _shows_life(self, health: httpx.URL) -> bool:
        try:
            async with asyncio.timeout(LOOK_TIMEOUT):
                return shows_life(await self._client.get(health, follow_redirects=False))
        except (httpx.HTTPError, TimeoutError):
            return False


class Looking:
    """Around a request: ends it when its time is over, or when it is silent and nobody is there."""

    EVERY = 0.5

    def __init__(self, client: AsyncClient, attempt: Attempt) -> None:
        self._client = client
        self._attempt = attempt
        self._loop = asyncio.get_running_loop()
        left = attempt.ends - time.monotonic()
        self._time = asyncio.timeout_at(self._loop.time() + max(left, 0.0))
        self._timer: asyncio.TimerHandle | None = None
        self._look: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._time.__aenter__()
        if self._attempt.endpoint.health is not None:
            self._timer = self._loop.call_later(LOOK_AFTER, self._begin)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._look is not None:
            self._look.cancel()
        # Raises TimeoutError itself where the time was over.
        await self._time.__aexit__(kind, error, traceback)

    def _begin(self) -> None:
        self._look = self._loop.create_task(self._go_on_looking())

    async def _go_on_looking(self) -> None:
        while not await self._client._is_lost(self._attempt):  # noqa: ASYNC110, SLF001
            await asyncio.sleep(self.EVERY)
        self._look = None
        self._time.reschedule(self._loop.time())


class AsyncStream:
    """As ``Stream``, for ``async for``; asks for the answer at the first text."""

    def __init__(self, client: AsyncClient, said: Conversation) -> None:
        self.road: Road | None = None
        self._client = client
        self._said = said
        self._attempt: Attempt | None = None
        self._answer: Answer | None = None
        self._pieces: AsyncIterator[str] | None = None
        self._first: list[str] = []

    @property
    def answer(self) -> Answer:
        """Raises ``ValueError`` where the stream was not read to its end."""
        if self._answer is None or self._first:
            raise ValueError("the answer is not whole: read the stream to its end first")
        return self._answer

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        if self._attempt is None:
            await self._open()
        if self._first:
            return self._first.pop()
        if self._pieces is None or self._attempt is None:
            raise StopAsyncIteration
        try:
            return await anext(self._pieces)
        except (Failed, httpx.HTTPError, OSError) as error:
            broken = self._attempt.broken(error)
        # Out of the handler, so that nothing of the request hangs on it.
        raise broken

    async def aclose(self) -> None:
        close = getattr(self._pieces, "aclose", None)
        if close is not None:
            await close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _open(self) -> None:
        call = await self._client._call(self._said, stream=True)  # noqa: SLF001 - its other half
        for attempt in call.attempts():
            with attempt:
                await self._begin(attempt)
                self._attempt, self.road = attempt, attempt.endpoint.road
                return
        raise call.error()

    async def _begin(self, attempt: Attempt) -> None:
        """Until the first text."""
        async with Looking(self._client, attempt):
            response = await self._client._send(attempt)  # noqa: SLF001 - its other half
            try:
                if attempt.is_refused(response.status_code, response.headers):
                    self._answer = attempt.answer(await _read(attempt, response))
                    self._first = [self._answer.text]
                    await response.aclose()
                    return
                pieces = self._read(attempt, response)
                first = await anext(pieces, None)
            except BaseException:
                await response.aclose()
                raise
        self._first = [first] if first is not None else []
        self._pieces = pieces

    async def _read(self, attempt: Attempt, response: httpx.Response) -> AsyncIterator[str]:
        reading, limits = Reading(attempt), attempt.call.limits
        over = ends = time.monotonic() + limits.stream
        chunks = response.aiter_bytes()
        try:
            while not reading.is_over:
                try:
                    async with asyncio.timeout(max(ends - time.monotonic(), 0.0)):
                        chunk = await anext(chunks, None)
                except (httpx.HTTPError, OSError):
                    if reading.is_whole:
                        break
                    raise
                if chunk is None:
                    break
                known = reading.events
                for text in reading.feed(chunk):
                    yield text
                if reading.has_text and reading.events > known:
                    ends = min(over, time.monotonic() + limits.silence)
            reading.finish()
            self._answer = reading.answer()
        finally:
            await response.aclose()


async def _read(attempt: Attempt, response: httpx.Response) -> Reply:
    """The whole body; raises ``Failed`` where it is larger than any answer."""
    content = bytearray()
    async for chunk in response.aiter_bytes():
        content += chunk
        if len(content) > LARGEST_ANSWER:
            raise attempt.too_large()
    return Reply(response.status_code, response.headers, bytes(content))
