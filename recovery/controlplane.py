"""The connection to the control Redis: key names, scripts, and one error for "cannot be reached".

Everything that must be atomic is a script in ``recovery/lua``; nothing else here holds state.
"""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
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
        with reachable():
            digest = self._digests.get(script)
            if digest is not None:
                try:
                    return self.redis.evalsha(digest, 0, self.prefix, *arguments)
                except _no_script():
                    # The server was restarted or its scripts were flushed.
                    self._digests.pop(script, None)
            self._digests[script] = self.redis.script_load(source(script))
            return self.redis.evalsha(self._digests[script], 0, self.prefix, *arguments)

    def now_ms(self) -> int:
        with reachable():
            seconds, micros = self.redis.time()
        return int(seconds * 1000 + micros // 1000)


def _no_script() -> type[Exception]:
    # Here, because applications import this module long before they need redis-py.
    from redis.exceptions import NoScriptError

    return NoScriptError


def reachable() -> AbstractContextManager[None]:
    """Turn every way in which the control Redis is away into ``ControlPlaneUnavailable``."""
    return _REACHABLE


class _Reachable:
    # Not a generator, which would cost each command of the hot path some microseconds.
    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        if error is not None:
            _translate(error)


_REACHABLE = _Reachable()


def _translate(error: BaseException) -> None:
    from redis import exceptions

    if isinstance(error, (exceptions.ConnectionError, exceptions.TimeoutError)):
        raise ControlPlaneUnavailable(f"the control Redis cannot be reached: {error}") from error
    is_refusal = isinstance(error, (exceptions.ReadOnlyError, exceptions.OutOfMemoryError)) or (
        isinstance(error, exceptions.ResponseError)
        and any(code in str(error) for code in _AWAY_REPLIES)
    )
    if is_refusal:
        raise ControlPlaneUnavailable(f"the control Redis refuses to work: {error}") from error


@cache
def source(script: str) -> str:
    """The text of a script behind the prelude that all share, with the parts that it includes."""
    # Here, because applications import this module and never need the scripts.
    from importlib.resources import files

    folder = files("recovery") / "lua"

    def part(found: re.Match[str]) -> str:
        return (folder / "parts" / f"{found[1]}.lua").read_text()

    parts = [(folder / f"{name}.lua").read_text() for name in ("prelude", script)]
    return re.sub(r"^ *-- include (\w+)$", part, "\n".join(parts), flags=re.MULTILINE)
