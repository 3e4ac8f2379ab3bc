"""Switching automatic recovery off for a while: everywhere, for a component, or for a target."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recovery.controlplane import reachable
from recovery.events import TargetRef
from recovery.strategy import COMPONENTS, unknown
from recovery.text import plain, readable

if TYPE_CHECKING:
    from recovery.config import Policy
    from recovery.controlplane import ControlPlane

EVERYTHING = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Disabled:
    """A scope that is switched off. ``seconds_left`` is None where it is so until enabled."""

    scope: str
    by: str
    reason: str
    seconds_left: float | None

    def as_dict(self) -> dict[str, Any]:
        return {
            "scope": self.scope,
            "by": self.by,
            "reason": self.reason,
            "seconds_left": self.seconds_left,
        }


def scope_of(policy: Policy, component: str | None, target: str | None) -> str:
    """The name of a scope; raises ``InvalidEvent`` where the policy knows no such thing.

    A target may be said with its component, as ``redis/cache``; without one it is nobody's.
    """
    if target is not None:
        ref = TargetRef.named(target, component)
        if ref.component not in COMPONENTS:
            raise unknown("component", ref.component, COMPONENTS)
        policy.target(ref)
        return str(ref)
    if component is None:
        return EVERYTHING
    if component not in COMPONENTS:
        raise unknown("component", component, COMPONENTS)
    return component


def disable(
    control: ControlPlane,
    policy: Policy,
    scope: str,
    *,
    by: str,
    reason: str,
    seconds: float | None,
) -> None:
    """Refuse every event of a scope, for some seconds or until ``enable``; running ones finish."""
    said = json.dumps({"by": readable(by), "reason": readable(reason)})
    lasts = max(int(seconds * 1000), 1) if seconds else 0
    _switch(control, policy, scope, "disabled", said, lasts, by=by, reason=reason, seconds=seconds)


def enable(control: ControlPlane, policy: Policy, scope: str, *, by: str, reason: str = "") -> bool:
    """False where the scope was not disabled."""
    return _switch(control, policy, scope, "enabled", "", 0, by=by, reason=reason)


def _switch(  # noqa: PLR0917 - called in two places, right above
    control: ControlPlane,
    policy: Policy,
    scope: str,
    result: str,
    said: str,
    lasts_ms: int,
    **facts: str | float | None,
) -> bool:
    entry = {"target": scope, "result": result} | {name: v for name, v in facts.items() if v}
    text = json.dumps(plain(entry), separators=(",", ":"), ensure_ascii=False)
    return bool(control.run("switch", scope, said, lasts_ms, text, int(policy.audit.enabled)))


def disabled(control: ControlPlane, policy: Policy) -> tuple[Disabled, ...]:
    """Every scope that is switched off now."""
    scopes = [EVERYTHING, *COMPONENTS, *(str(ref) for ref in policy.target_refs())]
    with reachable():
        pipe = control.redis.pipeline(transaction=False)
        for scope in scopes:
            pipe.get(control.key("disabled", scope))
            pipe.pttl(control.key("disabled", scope))
        answers = pipe.execute()
    return read(zip(scopes, zip(answers[::2], answers[1::2], strict=True), strict=True))


def read(held: Iterable[tuple[str, tuple[str | None, int]]]) -> tuple[Disabled, ...]:
    """Make sense of what each scope's key says and of the milliseconds that it still does."""
    return tuple(
        Disabled(scope=scope, seconds_left=left_ms / 1000 if left_ms >= 0 else None, **said)
        for scope, (text, left_ms) in held
        if text is not None and (said := json.loads(text)) is not None
    )
