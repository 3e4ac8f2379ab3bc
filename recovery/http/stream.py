"""The event stream of the status page: one look a second for all who watch, and none for nobody.

A watcher is one number; what it has not seen is taken from the board when it can take it. Streams
end after a while and browsers open them again, so that one whose reader is gone gives its place
back.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, cast

import structlog
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import JSONResponse
from sse_starlette import EventSourceResponse, ServerSentEvent

from recovery.controlplane import EVENTS, reachable
from recovery.errors import ControlPlaneUnavailable
from recovery.http import answers

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from recovery.http.board import Board
    from recovery.http.context import Context

STREAM_SECONDS = 900.0
PING_SECONDS = 15
LOOK_SECONDS = 1.0
"""How long a change that nobody told of may stay unseen."""

SHORTEST_PAUSE = 0.2
"""Between two looks, however much happens."""

router = APIRouter(include_in_schema=False)

log = structlog.get_logger()


class Watch:
    """Looks while somebody watches, and wakes the watchers when there is something new."""

    def __init__(self, context: Context, board: Board) -> None:
        self._context = context
        self.board = board
        self._watchers = 0
        self._changed = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._subscription: Any = None
        self._listening = threading.Lock()
        self.is_closed = False

    @property
    def is_full(self) -> bool:
        return self._watchers >= self._context.settings.max_streams

    @property
    def watchers(self) -> int:
        return self._watchers

    async def close(self) -> None:
        """End every stream."""
        self.is_closed = True
        self._changed.set()
        await self._stop()
        await asyncio.to_thread(self._forget)

    def enter(self) -> None:
        """One more watches."""
        self._watchers += 1
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())

    async def leave(self) -> None:
        self._watchers -= 1
        if self._watchers == 0:
            await self._stop()

    async def pieces(self, place: str) -> AsyncIterator[ServerSentEvent]:
        """What is newer than a place, again and again."""
        deadline = time.monotonic() + STREAM_SECONDS
        while not self.is_closed and time.monotonic() < deadline:
            changed = self._changed
            now = self.board.place
            if event := self._event(place, now):
                yield event
            place = now
            with suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), LOOK_SECONDS * 10)

    def _event(self, place: str, now: str) -> ServerSentEvent | None:
        found = self.board.since(place)
        if not found:
            return None
        said = {"now": self.board.now_ms, "pieces": [(one.key, one.html) for one in found]}
        return ServerSentEvent(
            json.dumps(said, ensure_ascii=False, separators=(",", ":")),
            event="pieces",
            id=now,
            retry=1000,
        )

    async def _look(self) -> None:
        while not self.is_closed:
            before = self.board.version
            await asyncio.to_thread(self.board.refresh)
            if self.board.version != before:
                self._changed.set()
                self._changed = asyncio.Event()
            await asyncio.sleep(SHORTEST_PAUSE)
            await asyncio.to_thread(self._wait)

    def _wait(self) -> None:
        """Until something is told, or it is time to look anyway."""
        try:
            # A look that was given up may still be here.
            with self._listening, reachable():
                if self._subscription is None:
                    control = self._context.control
                    subscription = control.redis.pubsub(ignore_subscribe_messages=True)
                    subscription.subscribe(control.key(EVENTS))
                    self._subscription = subscription
                heard = self._subscription.get_message(timeout=LOOK_SECONDS)
                while heard is not None:
                    heard = self._subscription.get_message(timeout=0)
        except ControlPlaneUnavailable:
            self._forget()
            time.sleep(LOOK_SECONDS)

    def _forget(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            subscription.close()

    async def _stop(self) -> None:
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()
            with suppress(asyncio.CancelledError):
                await looking


class Stream(EventSourceResponse):
    """One watcher's answer; its place is given back however it ends."""

    def __init__(self, watch: Watch, place: str) -> None:
        watch.enter()
        self._watch = watch
        super().__init__(watch.pieces(place), ping=PING_SECONDS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._watch.leave()


@router.get("/events")
async def events(
    request: Request,
    since: Annotated[str, Query(max_length=64)] = "",
    last_event_id: Annotated[str | None, Header(max_length=64)] = None,
) -> Response:
    """Pieces of the page that are newer than the one who asks has seen."""
    watch = cast("Watch", request.app.state.watch)
    if watch.is_full or watch.is_closed:
        text = "as many pages are watching as the policy allows (http.max_streams)"
        return JSONResponse(answers.body("too_many_streams", text), 503, {"retry-after": "5"})
    return Stream(watch, last_event_id or since)
