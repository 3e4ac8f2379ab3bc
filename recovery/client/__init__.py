"""What an application imports to live well with this system. It needs the control plane's address.

``protect`` renews a Redis client's connections when a repair asks for it, ``may_use`` and ``needs``
say what works now, ``report`` tells of a failure. One background thread does all of it; no call
waits for the network, and none fails because this system is away.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

from recovery.client.listener import LISTENER
from recovery.degraded import DegradedMode
from recovery.environment import is_client_off
from recovery.events import TargetRef

if TYPE_CHECKING:
    import redis
    import redis.asyncio

__all__ = [
    "DegradedMode",
    "age",
    "degraded",
    "may_use",
    "needs",
    "open_async_redis",
    "open_redis",
    "protect",
    "report",
    "start",
    "stop",
]

JITTER_SECONDS = 2.0
EVERY_SECONDS = 30.0

Client = TypeVar("Client")
Function = TypeVar("Function", bound=Callable[..., Any])

log = logging.getLogger("recovery.client")


def start(redis_url: str | None = None, *, prefix: str | None = None, wait: float = 0.0) -> bool:
    """Begin now rather than at the first use; whether the degraded modes are known.

    ``redis_url`` and ``prefix`` win over ``RECOVERY_REDIS_URL`` and ``RECOVERY_PREFIX``. ``wait``:
    seconds to wait for the first answer. Raises ``ConfigError`` where another control plane was
    named before.
    """
    LISTENER.start(redis_url, prefix)
    return LISTENER.wait_until_read(wait)


def stop() -> None:
    """End the background thread and forget all clients and modes, until ``start`` is called."""
    LISTENER.stop()


def protect(client: Client, target: str, *, jitter: float = JITTER_SECONDS) -> Client:
    """Renew the client's pool whenever a repair of the target asks for it; returns the client.

    For a client of ``redis`` or ``redis.asyncio``, or its pool. Idle connections are closed within
    ``jitter`` seconds of the notice, those in use when they come back; a subscription or a blocking
    command goes on. Raises ``TypeError`` where there is no pool, ``InvalidEvent`` where ``target``
    cannot name one.
    """
    ref = TargetRef.parse(target)
    if not is_client_off():
        LISTENER.renewals.protect(client, str(ref), jitter)
        LISTENER.start_unasked()
    return client


def open_redis(url: str, *, target: str, **options: Any) -> redis.Redis:
    """A protected ``redis.Redis.from_url(url, **options)``."""
    from redis import Redis

    return protect(Redis.from_url(url, **options), target)


def open_async_redis(url: str, *, target: str, **options: Any) -> redis.asyncio.Redis:
    """A protected ``redis.asyncio.Redis.from_url(url, **options)``."""
    from redis.asyncio import Redis

    client: Redis = Redis.from_url(url, **options)
    return protect(client, target)


def may_use(capability: str) -> bool:
    """False while a degraded mode lists the capability as unavailable, by the last we know.

    Before anything is known, everything may be used.
    """
    if not LISTENER.is_settled:
        LISTENER.start_unasked()
    return capability not in LISTENER.knowledge.unavailable


def degraded() -> tuple[DegradedMode, ...]:
    """The degraded modes, by the last we know."""
    LISTENER.start_unasked()
    return tuple(LISTENER.knowledge.modes.values())


def age() -> float | None:
    """Seconds since the degraded modes were last read as a whole; ``None`` where they never were.

    They are read every 30 s, and changes are heard at once: more means that the control plane is
    away.
    """
    return LISTENER.knowledge.age()


class needs:  # noqa: N801 - reads as a word where it is used
    """``@needs("semantic_search", otherwise=plain_search)`` calls ``otherwise`` with the same
    arguments while the capability is unavailable.

    ``with needs("semantic_search") as may:`` asks once for the whole block.
    """

    def __init__(self, capability: str, otherwise: Callable[..., Any] | None = None) -> None:
        self.capability = capability
        self.otherwise = otherwise

    def __call__(self, function: Function) -> Function:
        """Raises ``TypeError`` where there is no ``otherwise``."""
        otherwise, capability = self.otherwise, self.capability
        if otherwise is None:
            raise TypeError(f"@needs({capability!r}) wants to know what to do otherwise")

        @wraps(function)
        def choose(*args: Any, **kwargs: Any) -> Any:
            chosen = function if may_use(capability) else otherwise
            return chosen(*args, **kwargs)

        @wraps(function)
        async def choose_and_wait(*args: Any, **kwargs: Any) -> Any:
            answer = choose(*args, **kwargs)
            return await answer if inspect.isawaitable(answer) else answer

        is_async = inspect.iscoroutinefunction(function)
        return cast("Function", choose_and_wait if is_async else choose)

    def __enter__(self) -> bool:
        return may_use(self.capability)

    def __exit__(self, *exception: object) -> None:
        return None


def report(failure: BaseException | str, *, target: str, every: float = EVERY_SECONDS) -> bool:
    """Tell of a failure of a target: an exception, or a failure type; whether it will be told.

    The background thread sends it. One event a target and failure type every ``every`` seconds;
    an exception that shows no failure of the target is none. Raises nothing.
    """
    if is_client_off():
        return False
    try:
        LISTENER.start_unasked()
        return LISTENER.is_running and LISTENER.outbox.take(failure, TargetRef.parse(target), every)
    except Exception:
        # Whatever is wrong with a report, the application has a worse trouble already.
        log.exception("a failure of %r could not be reported", target)
        return False
