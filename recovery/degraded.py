"""What an application may use now: answered from memory, kept up to date by a background thread.

``may_use("semantic_search")`` costs two lookups and never waits. What is known comes from the
control plane; while that is away, from its last word and from what this process sees of its own
Redis servers (those that ``recovery.client.protect`` knows).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from recovery.client.knowledge import Change
from recovery.client.listener import LISTENER
from recovery.environment import is_client_off
from recovery.modes import DegradedMode

__all__ = [
    "Change",
    "DegradedMode",
    "age",
    "is_stale",
    "may_use",
    "modes",
    "requires",
    "subscribe",
]

Function = TypeVar("Function", bound=Callable[..., Any])


def may_use(capability: str) -> bool:
    """False while a degraded mode lists the capability as unavailable, by the last we know.

    Before anything is known, everything may be used.
    """
    if not LISTENER.is_settled:
        LISTENER.start_unasked()
    return capability not in LISTENER.knowledge.unavailable


def modes() -> tuple[DegradedMode, ...]:
    """The degraded modes, by the last we know."""
    LISTENER.start_unasked()
    return tuple(LISTENER.knowledge.modes.values())


def age() -> float | None:
    """Seconds since the degraded modes were last read as a whole; ``None`` where they never were.

    They are read every 30 s, and changes are heard at once.
    """
    return LISTENER.knowledge.age()


def is_stale() -> bool:
    """Whether the control plane is away, or was never reached: answers are those of ``age()``
    seconds ago, and of what this process sees by itself."""
    return not LISTENER.knowledge.is_current


def subscribe(subscriber: Callable[[Change], object]) -> Callable[[], None]:
    """Call ``subscriber`` with each ``Change`` from now on; returns what ends it.

    It is called on the background thread, one change after the other, and must return soon. What it
    raises is logged. In asyncio: ``subscribe(lambda change: loop.call_soon_threadsafe(…))``.
    """
    if is_client_off():
        return lambda: None
    LISTENER.start_unasked()
    LISTENER.subscribe(subscriber)
    return lambda: LISTENER.unsubscribe(subscriber)


class requires:  # noqa: N801 - reads as a word where it is used
    """``@requires("semantic_search", otherwise=plain_search)`` calls ``otherwise`` with the same
    arguments while the capability is unavailable.

    ``with requires("semantic_search") as may:`` asks once for the whole block.
    """

    def __init__(self, capability: str, otherwise: Callable[..., Any] | None = None) -> None:
        self.capability = capability
        self.otherwise = otherwise

    def __call__(self, function: Function) -> Function:
        """Raises ``TypeError`` where there is no ``otherwise``."""
        otherwise, capability = self.otherwise, self.capability
        if otherwise is None:
            raise TypeError(f"@requires({capability!r}) wants to know what to do otherwise")

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
