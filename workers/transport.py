"""Redis transports that survive what is no message: set aside and logged, the next one is taken.

Whoever may write to the broker can push any bytes on a queue. Kombu decodes them in the worker's
own loop, where an exception ends the worker. Here they go to a short list beside the queue instead.

And that lose nothing they have in hand: Redis gives a message away and only then hears that it is
taken. One whose broker dies in between is put back as soon as there is a broker again.
"""

from __future__ import annotations

from typing import Any, Literal

import structlog
from kombu import transport as transports
from kombu.transport import redis
from kombu.transport.virtual import Empty
from kombu.utils.json import dumps
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

MAX_BODY = 1024 * 1024
"""Longest body, encoded, in characters. An event may have 16 KiB."""

MOST_KEPT = 20
KEPT_BYTES = 16 * 1024
SUFFIX = ".unreadable"

log = structlog.get_logger()

_in_hand: list[tuple[str, Any]] = []
"""Queue and message of what was given to this process and could not be noted as taken."""


class _Delivery(BaseModel):
    model_config = ConfigDict(strict=True)

    exchange: str
    routing_key: str


class _Properties(BaseModel):
    model_config = ConfigDict(strict=True)

    delivery_tag: str
    delivery_info: _Delivery
    body_encoding: Literal["base64"] | None = None


class _Headers(BaseModel):
    """Compression is refused: a small message could unpack into a huge one."""

    model_config = ConfigDict(strict=True)

    task: str | None = None
    id: str | None = None
    eta: str | None = None
    expires: str | float | None = None
    compression: None = None


class _Envelope(BaseModel):
    """What kombu and Celery take for granted in a message; what it says is judged later."""

    model_config = ConfigDict(strict=True)

    body: str = Field(default="", max_length=MAX_BODY)
    headers: _Headers
    properties: _Properties
    content_type: Literal["application/json"] = Field(alias="content-type")
    content_encoding: Literal["utf-8", "us-ascii"] = Field(alias="content-encoding")


class GuardedChannel:
    """Mixed into a channel: bytes that are no JSON are set aside."""

    _own: Any = None

    def _create_client(self: Any, asynchronous: bool = False) -> Any:
        """One for as long as its pool: kombu makes one to take and one to acknowledge a message,
        which is a tenth of what a consumer does in a storm."""
        if asynchronous:
            return super()._create_client(asynchronous)  # type: ignore[misc]
        if self._own is None or self._own.connection_pool is not self.pool:
            self._own = super()._create_client()  # type: ignore[misc]
        return self._own

    def basic_consume(self: Any, queue: str, *args: Any, **options: Any) -> Any:
        """Begin with what an earlier connection left in hand, which may then come twice."""
        for held in [held for held in _in_hand if held[0] == queue]:
            with self.conn_or_acquire() as client:
                client.rpush(self._q_for_pri(queue, 0), dumps(held[1]))
            _in_hand.remove(held)
            log.warning("message in hand put back", queue=queue)
        return super().basic_consume(queue, *args, **options)  # type: ignore[misc]

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[misc]
        except (ValueError, RecursionError) as error:
            # The text of the error may quote the message; its bytes are kept, not logged.
            raw = getattr(error, "object", None) or getattr(error, "doc", "")
            self.set_aside("unknown", raw, type(error).__name__)
            raise Empty from None

    def set_aside(self: Any, queue: str, raw: Any, why: str) -> None:
        """Keep the beginning of what was taken from a queue and cannot be a message."""
        log.error("unreadable message set aside", queue=queue, why=why)
        text = raw if isinstance(raw, str | bytes) else dumps(raw)
        with self.conn_or_acquire() as client:
            pipe = client.pipeline(transaction=False)
            pipe.lpush(f"{queue}{SUFFIX}", text[:KEPT_BYTES])
            pipe.ltrim(f"{queue}{SUFFIX}", 0, MOST_KEPT - 1)
            pipe.execute()


class GuardedTransport:
    """Mixed into a transport: JSON that is no message is set aside."""

    channels: list[Any]
    connection_errors: tuple[type[Exception], ...]

    def _deliver(self, message: Any, queue: str) -> None:
        """Only what the connection itself raises may leave this, and then Celery reconnects."""
        try:
            envelope = _Envelope.model_validate(message)
            body = self.channels[0].decode_body(envelope.body, envelope.properties.body_encoding)
            if envelope.headers.task is not None:
                _CALL.validate_json(body)
        except ValueError as error:
            self.channels[0].set_aside(queue, message, _reason(error))
            return
        try:
            super()._deliver(message, queue)  # type: ignore[misc]
        except self.connection_errors:
            _in_hand.append((queue, message))
            raise
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            log.exception("message that Celery cannot take", queue=queue)
            self._reject(envelope.properties.delivery_tag)
            self.channels[0].set_aside(queue, message, type(error).__name__)

    def _reject(self, delivery_tag: str) -> None:
        """Give its place back, where it already took one; it would block the queue for ever."""
        for channel in self.channels:
            try:
                channel.qos.get(delivery_tag)
            except KeyError:
                continue
            channel.basic_reject(delivery_tag, requeue=False)


_CALL = TypeAdapter(tuple[list[Any], dict[str, Any], dict[str, Any] | None])
"""The body of a task's message: positional and named arguments, and Celery's own options."""


def _reason(error: Exception) -> str:
    """Which part is wrong, without what stands there."""
    if isinstance(error, ValidationError):
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        return f"{'.'.join(str(part) for part in first['loc']) or 'message'}: {first['type']}"
    return type(error).__name__


class Channel(GuardedChannel, redis.Channel):
    """The Redis channel, guarded."""


class Transport(GuardedTransport, redis.Transport):  # type: ignore[misc]
    """The Redis transport, guarded."""

    Channel = Channel


class SentinelChannel(GuardedChannel, redis.SentinelChannel):
    """The Sentinel channel, guarded."""


class SentinelTransport(GuardedTransport, redis.SentinelTransport):  # type: ignore[misc]
    """The Sentinel transport, guarded."""

    Channel = SentinelChannel


def install() -> None:
    """Have every worker of this process use them."""
    transports.TRANSPORT_ALIASES |= {
        "redis": f"{__name__}:Transport",
        "rediss": f"{__name__}:Transport",
        "sentinel": f"{__name__}:SentinelTransport",
    }
