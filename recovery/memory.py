"""What the control plane remembers of one target, as its probe and its remedies ask for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from recovery import routing
from recovery.controlplane import reachable
from recovery.errors import ControlPlaneUnavailable, MemoryAway

if TYPE_CHECKING:
    from recovery.config import Policy
    from recovery.controlplane import ControlPlane
    from recovery.events import TargetRef
    from recovery.routes import Route
    from recovery.strategy import TargetModel


class TargetMemory:
    """See ``recovery.strategy.Memory``. ``fence``: the lease without which nothing is rerouted."""

    def __init__(
        self,
        control: ControlPlane,
        target: TargetRef,
        *,
        recovery_id: str | None = None,
        fence: str | None = None,
    ) -> None:
        self.recovery_id = recovery_id
        self._control = control
        self._target = target
        self._fence = fence

    def route(self) -> Route | None:
        with _named():
            return routing.read(self._control, self._target)

    def reroute(self, **changes: Any) -> Route:
        with _named():
            return routing.change(
                self._control,
                self._target,
                recovery_id=self.recovery_id,
                fence=self._fence,
                **changes,
            )

    def hold(self, name: str, value: str, seconds: float) -> bool:
        with _named(), reachable():
            milliseconds = max(int(seconds * 1000), 1)
            return bool(self._control.redis.set(self._key(name), value, nx=True, px=milliseconds))

    def held(self, name: str) -> str | None:
        with _named(), reachable():
            value: str | None = self._control.redis.get(self._key(name))
            return value

    def drop(self, name: str, value: str) -> None:
        with _named():
            self._control.run("drop", name, value)

    def _key(self, name: str) -> str:
        return self._control.key("held", name)


def reminded(control: ControlPlane, policy: Policy, target: TargetRef) -> TargetModel:
    """The target as a probe outside of any recovery wants it: with what is remembered of it."""
    return policy.target(target).reminded(TargetMemory(control, target))


@contextmanager
def _named() -> Iterator[None]:
    try:
        yield
    except ControlPlaneUnavailable as error:
        raise MemoryAway(error.message) from error
