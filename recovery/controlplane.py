"""The connection to the control Redis: key names, scripts, and one error for "cannot be reached".

Everything that must be atomic is a script in ``recovery/lua``; nothing else here holds state.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Self

from recovery.errors import ControlPlaneUnavailable

if TYPE_CHECKING:
    from redis import Redis

    from recovery.environment import Environment

CONNECT_TIMEOUT = 1.0
ANSWER_TIMEOUT = 2.0

EVENTS = "events"
"""Pub/sub channel (prefixed) on which every change of state is told as JSON."""

_AWAY_REPLIES = ("READONLY", "LOADING", "OOM", "MISCONF", "MASTERDOWN", "NOREPLICAS", "CLUSTERDOWN")


class ControlPlane:
    """One process's view of the control Redis. Forked children may share the object."""

    def __init__(self, client: Redis, prefix: str = "recovery:") -> None:
        # redis-py types one answer as sync or async; every use here would need a cast.
        self.redis: Any = client
        self.prefix = prefix
        self._digests: dict[str, str] = {}

    @classmethod
    def connect(cls, environment: Environment) -> Self:
        """Opens no connection yet: the first command does, and fails as ControlPlaneUnavailable."""
        from redis import Redis

        client = Redis.from_url(
            environment.control_url,
            decode_responses=True,
            socket_connect_timeout=CONNECT_TIMEOUT,
            socket_timeout=ANSWER_TIMEOUT,
            health_check_interval=0,
        )
        return cls(client, environment.prefix)

    def key(self, kind: str, name: object = None) -> str:
        return f"{self.prefix}{kind}" if name is None else f"{self.prefix}{kind}:{name}"

    def run(self, script: str, *arguments: str | float) -> Any:
        """Run ``recovery/lua/<script>.lua``; raises ``ControlPlaneUnavailable``."""
        from redis.exceptions import NoScriptError

        with reachable():
            digest = self._digests.get(script)
            if digest is not None:
                try:
                    return self.redis.evalsha(digest, 0, self.prefix, *arguments)
                except NoScriptError:
                    # The server was restarted or its scripts were flushed.
                    self._digests.pop(script, None)
            self._digests[script] = self.redis.script_load(source(script))
            return self.redis.evalsha(self._digests[script], 0, self.prefix, *arguments)

    def now_ms(self) -> int:
        with reachable():
            seconds, micros = self.redis.time()
        return int(seconds * 1000 + micros // 1000)


@contextmanager
def reachable() -> Iterator[None]:
    """Turn every way in which the control Redis is away into ``ControlPlaneUnavailable``."""
    from redis import exceptions

    try:
        yield
    except (exceptions.ConnectionError, exceptions.TimeoutError) as error:
        raise ControlPlaneUnavailable(f"the control Redis cannot be reached: {error}") from error
    except (exceptions.ReadOnlyError, exceptions.OutOfMemoryError) as error:
        raise ControlPlaneUnavailable(f"the control Redis refuses to work: {error}") from error
    except exceptions.ResponseError as error:
        if any(code in str(error) for code in _AWAY_REPLIES):
            raise ControlPlaneUnavailable(f"the control Redis refuses to work: {error}") from error
        raise


@cache
def source(script: str) -> str:
    """The text of a script behind the prelude that all share."""
    # Here, because applications import this module and never need the scripts.
    from importlib.resources import files

    folder = files("recovery") / "lua"
    parts: Sequence[str] = [(folder / f"{name}.lua").read_text() for name in ("prelude", script)]
    return "\n".join(parts)
