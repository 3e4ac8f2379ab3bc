"""One standing connection to the control plane's channels, and a passing one that reads.

Knows Redis and nothing of what the messages mean.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Self

from recovery.controlplane import ANSWER_TIMEOUT, CONNECT_TIMEOUT, ControlPlane, reachable
from recovery.errors import ConfigError, ControlPlaneUnavailable

if TYPE_CHECKING:
    from recovery.environment import Environment

NOTICES = "notices"
DEGRADED = "degraded"
ROUTES = "routes"
CHANNELS = (NOTICES, DEGRADED)
WITH_ROUTES = (*CHANNELS, ROUTES)
"""Each is a channel and, under the same name, a hash: target → what was last said of it."""

READ_SECONDS = 30.0
"""How often everything is read, whatever was heard meanwhile."""


class Heard(NamedTuple):
    channel: str
    text: str


class Subscription:
    """Entering and every method raise ``ControlPlaneUnavailable`` where the control Redis is away,
    ``redis.RedisError`` where it denies us something, and ``ConfigError`` where the address is
    none."""

    def __init__(self, environment: Environment, channels: Sequence[str] = CHANNELS) -> None:
        self._control = _connect(environment)
        self._channels = {self._control.key(name): name for name in channels}
        self._messages = self._control.redis.pubsub()
        self._read_due = self._answer_due = float("inf")

    def __enter__(self) -> Self:
        try:
            with reachable():
                self._messages.subscribe(*self._channels)
        except BaseException:
            self.close()
            raise
        self._expect_answer()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._messages.close()
        self._control.redis.close()

    def hear(self, timeout: float) -> Heard | None:
        """The next message within ``timeout`` seconds."""
        with reachable():
            message = self._messages.get_message(timeout=timeout)
        now = time.monotonic()
        if message is None:
            if now > self._answer_due:
                raise ControlPlaneUnavailable("the control Redis is silent")
            return None
        self._answer_due = float("inf")
        if message["type"] == "subscribe" and message["data"] == len(self._channels):
            # What was said before the subscription stood is in what is read from now on.
            self._read_due = now
        if message["type"] != "message":
            return None
        return Heard(self._channels[message["channel"]], message["data"])

    @property
    def is_read_due(self) -> bool:
        return time.monotonic() >= self._read_due

    def read(self) -> Mapping[str, Mapping[str, str]]:
        """What each channel's hash holds: target → JSON."""
        redis = self._control.redis
        with reachable():
            pipe = redis.pipeline(transaction=False)
            for key in self._channels:
                pipe.hgetall(key)
            held = pipe.execute()
            # A thousand applications hold one connection each, not two.
            redis.connection_pool.disconnect(inuse_connections=False)
            self._messages.ping()
        self._expect_answer()
        self._read_due = time.monotonic() + READ_SECONDS
        return dict(zip(self._channels.values(), held, strict=True))

    def _expect_answer(self) -> None:
        """A connection of which one end is gone shows only by what does not come."""
        self._answer_due = time.monotonic() + CONNECT_TIMEOUT + ANSWER_TIMEOUT


def _connect(environment: Environment) -> ControlPlane:
    from redis import Redis

    try:
        client = Redis.from_url(
            environment.control_url,
            decode_responses=True,
            encoding_errors="replace",
            socket_connect_timeout=CONNECT_TIMEOUT,
            socket_timeout=ANSWER_TIMEOUT,
        )
    except ValueError:
        # Its text may hold a part of the password.
        raise ConfigError("the address of the control Redis is no URL of a Redis") from None
    return ControlPlane(client, environment.prefix)
