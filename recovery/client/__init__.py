"""What an application imports to live well with this system. It needs the control plane's address.

``protect`` renews a Redis client's connections when a repair asks for it, ``open_chroma`` opens a
ChromaDB anew, ``report`` tells of a failure; what works now is asked of ``recovery.degraded``. One
background thread does all of it; no call waits for the network, and none fails because this system
is away.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from recovery.client.chroma import Reloading
from recovery.client.listener import LISTENER
from recovery.environment import is_client_off
from recovery.events import TargetRef

if TYPE_CHECKING:
    import redis
    import redis.asyncio

__all__ = [
    "open_async_redis",
    "open_chroma",
    "open_redis",
    "protect",
    "report",
    "start",
    "stop",
]

JITTER_SECONDS = 2.0
EVERY_SECONDS = 30.0

Client = TypeVar("Client")

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


def open_chroma(open_client: Callable[[], Any], *, target: str) -> Reloading:
    """A Chroma client that opens anew whenever a repair of the target asks for it.

    ``open_client`` makes one: ``lambda: chromadb.PersistentClient(path)``. Use
    ``.collection(name)`` as Chroma's own, or ``with ….client() as client:`` for everything else;
    what is under way when the notice comes ends first. Raises ``InvalidEvent`` where ``target``
    cannot name one.
    """
    ref = TargetRef.parse(target)
    reloading = Reloading(open_client)
    if not is_client_off():
        LISTENER.reloads.protect(reloading, str(ref))
        LISTENER.start_unasked()
    return reloading


def report(failure: BaseException | str, *, target: str, every: float = EVERY_SECONDS) -> bool:
    """Tell of a failure of a target: an exception, or a failure type; whether it will be told.

    The background thread sends it. One event a target and failure type every ``every`` seconds;
    an exception that shows no failure of the target is none. Raises nothing.
    """
    if is_client_off():
        return False
    try:
        LISTENER.start_unasked()
        ref = TargetRef.parse(target)
        LISTENER.looks.suspect(str(ref))
        return LISTENER.is_running and LISTENER.outbox.take(failure, ref, every)
    except Exception:
        # Whatever is wrong with a report, the application has a worse trouble already.
        log.exception("a failure of %r could not be reported", target)
        return False
