"""Who is who in one replacement of a container, and the steps back to the old one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

from recovery.deadline import Deadline
from recovery.errors import OwnerChanged, WontStart, WontStop
from recovery.runtime import names
from recovery.runtime.engine import Engine, Inspected
from recovery.runtime.process import PAUSE

BACK_GRACE = 1.0
"""The grace of a new container that has to go, in seconds: nobody relies on it yet."""

NEVER: Mapping[str, Any] = {"Name": "no", "MaximumRetryCount": 0}
"""The restart policy of a container that is aside."""


GOING = frozenset({"removing", "dead"})
"""States that a container never leaves but by being gone."""


class Act(Protocol):
    """Does one change and writes it down, or in a dry run only writes it down."""

    def __call__(self, text: str, action: Callable[[], None], /) -> object: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """What ``kept.facts`` holds of a replacement.

    ``old`` and ``new`` are ids. ``ran`` and ``restart_policy`` are the old one's, from before.
    """

    name: str
    short: str
    old: str
    ran: bool
    restart_policy: Mapping[str, Any]
    new: str | None = None

    @property
    def aside(self) -> str:
        return names.aside(self.name, self.short)

    @property
    def copy(self) -> str:
        return names.copy(self.name, self.short)

    def as_facts(self) -> dict[str, Any]:
        return {
            "container": self.name,
            "short": self.short,
            "old": self.old,
            "ran": self.ran,
            "restart_policy": dict(self.restart_policy),
            "new": self.new,
            # What a container wrote is the engine's to know.
            "lies_beside": None,
        }

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Self | None:
        """None where the facts are not those of a replacement."""
        if "old" not in facts:
            return None
        return cls(
            name=facts["container"],
            short=facts["short"],
            old=facts["old"],
            ran=facts["ran"],
            restart_policy=facts["restart_policy"],
            new=facts["new"],
        )

    def find_new(self, engine: Engine) -> Inspected | None:
        """The new container under whatever name, also one that was made and not yet noted.

        One that the engine is just removing, as a dead worker told it to, is not there any more.
        """
        found = engine.find(self.new or self.copy)
        return None if found is None or found.status in GOING else found

    def refuse_strangers(self, owner: Inspected | None) -> None:
        """Raises ``OwnerChanged`` where the target's name belongs to neither."""
        if owner is not None and owner.id not in {self.old, self.new}:
            raise OwnerChanged(
                f"{self.name} is now {owner.id[:12]}, which this recovery did not make; "
                f"the old container is {self.aside}"
            )


def put_back(engine: Engine, swap: Swap, act: Act, *, within: Deadline, start: bool) -> None:
    """Stop the new container and give the old one its name, its restart policy and, with
    ``start``, its process back. The new one stays, stopped, under ``swap.copy``.

    Where the old one is gone or the name is a stranger's, nothing is changed: ``OwnerChanged``.
    Raises ``WontStop``, ``WontStart``.
    """
    swap.refuse_strangers(engine.find(swap.name))
    old, new = engine.find(swap.old), swap.find_new(engine)
    if old is None:
        raise OwnerChanged(f"somebody removed the container that was {swap.name} before")
    if new is not None:
        _retire(engine, swap, act, new)
    if not same_policy(old.restart_policy, swap.restart_policy):
        act(
            f"{swap.name} has its restart policy again",
            lambda: engine.set_restart_policy(swap.old, swap.restart_policy),
        )
    if old.name != swap.name:
        act(f"{old.name} is {swap.name} again", lambda: engine.rename(swap.old, swap.name))
    if start and not old.runs:
        act(f"{swap.name} started again", lambda: _start_at_last(engine, swap.old, within))


def _retire(engine: Engine, swap: Swap, act: Act, new: Inspected) -> None:
    """In this order, because the copy's policy tells another recovery what the old one's was."""
    if new.runs:
        act("the new container stopped", lambda: stop(engine, new.id, BACK_GRACE))
    if new.name != swap.copy:
        act(f"the new container is {swap.copy}", lambda: engine.rename(new.id, swap.copy))
    # The engine brings up none that never started.
    if new.status != "created" and not same_policy(new.restart_policy, NEVER):
        act(
            "the new container kept from restarting",
            lambda: engine.set_restart_policy(new.id, NEVER),
        )


def stop(engine: Engine, container: str, grace: float) -> None:
    """Stop for sure: the engine's word is not enough, two on one volume would destroy it."""
    engine.stop(container, grace)
    if engine.get(container).runs:
        raise WontStop(f"container {container[:12]} runs on after KILL")


def _start_at_last(engine: Engine, container: str, within: Deadline) -> None:
    """Start, and again where a port or an address is not free yet."""
    while True:
        try:
            engine.start(container)
        except WontStart:
            if within.left() <= PAUSE:
                raise
            time.sleep(PAUSE)
        else:
            return


def same_policy(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two restart policies mean the same; the engine shows none as ``""`` or ``no``."""
    return _policy(one) == _policy(other)


def _policy(shown: Mapping[str, Any]) -> tuple[str, int]:
    return str(shown.get("Name") or "no"), int(shown.get("MaximumRetryCount") or 0)
