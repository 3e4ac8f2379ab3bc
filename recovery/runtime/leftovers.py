"""What a replacement left that nobody finished: its worker died, and so did whoever resumed it.

Only another recovery finds this, and it does not have the dead one's facts. The names tell which
containers belong together, and the copy, which was never started, still has the restart policy.
"""

from __future__ import annotations

from recovery.runtime import names
from recovery.runtime.docker_swap import NEVER, Act, same_policy
from recovery.runtime.engine import Engine, Inspected


def settle(engine: Engine, name: str, act: Act) -> str | None:
    """Give ``name`` its container back where a replacement broke off, and return its id.

    A finished replacement has no copy and an undone one no container aside: both are left alone.
    """
    for short in _copies(engine, name):
        copy = engine.find(names.copy(name, short))
        aside = engine.find(names.aside(name, short))
        owner = engine.find(name)
        broke_off = aside if owner is None else owner if _is_halted(owner, copy, aside) else None
        if copy is not None and broke_off is not None:
            _restore(engine, name, broke_off, copy, act)
            return broke_off.id
    return None


def _copies(engine: Engine, name: str) -> list[str]:
    parts = (names.split(found) for found in engine.names())
    return [part.short for part in parts if part.base == name and part.is_copy and part.short]


def _is_halted(owner: Inspected, copy: Inspected | None, aside: Inspected | None) -> bool:
    """Whether the owner was stopped for a copy that never took its place."""
    return (
        aside is None
        and copy is not None
        and copy.status == "created"
        and not owner.runs
        and same_policy(owner.restart_policy, NEVER)
    )


def _restore(engine: Engine, name: str, old: Inspected, copy: Inspected, act: Act) -> None:
    """In this order, so that whoever dies in between leaves what the next one recognises."""
    policy = copy.restart_policy
    if same_policy(old.restart_policy, NEVER) and not same_policy(policy, NEVER):
        act(
            f"{old.name} has its restart policy again",
            lambda: engine.set_restart_policy(old.id, policy),
        )
    if old.name != name:
        act(f"{old.name}, left aside, is {name} again", lambda: engine.rename(old.id, name))
    act(f"{copy.name}, left over, removed", lambda: engine.remove(copy.id))
