"""What a ``recovery.recover`` message may say, validated before anything acts on it.

A message chooses among configured remedies. It can name a target, a strategy and a smaller scope;
it has no field for a path, a command, a container or a credential.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, StringConstraints, ValidationError
from pydantic_core import from_json

from recovery.errors import InvalidEvent
from recovery.events import FailureEvent, Source, TargetRef
from recovery.finding import find_component
from recovery.strategy import COMPONENTS, StrictModel, unknown

if TYPE_CHECKING:
    from recovery.config import Policy
    from recovery.strategy import TargetModel

DEFAULT_TARGET = "default"

MAX_BYTES = 16 * 1024
"""Size cap of one message's arguments as JSON; figures of a probe take some hundred bytes."""

FIGURES = "figures"
"""Context key under which a trigger passes on what it read; it never changes what is done."""

_SCALAR = (str, int, float, bool, type(None))

Word = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[\w.:/@+-]+$")]
Line = Annotated[
    str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")
]


class EventMessage(StrictModel):
    """The arguments of ``recovery.recover``."""

    component: Word
    target: Word | None = None
    failure_type: Word | None = None
    strategy: Word | None = None
    context: dict[str, Any] = Field(default_factory=dict)
    source: Source = Source.API
    correlation_id: Word | None = None
    by: Line | None = None
    reason: Line | None = None
    require_approval: bool = False
    dry_run: bool = False
    force: bool = False
    undo_of: Word | None = None
    overwrite: bool = False


def read_event(recovery_id: str, message: Mapping[str, Any], policy: Policy) -> FailureEvent:
    """Turn a message into an event of this policy; raises ``InvalidEvent``, naming the fault."""
    checked = check_shape(message)
    if checked.component not in COMPONENTS:
        raise unknown("component", checked.component, COMPONENTS)
    component = policy.component(checked.component)
    if checked.undo_of is not None:
        _check_undo(checked)
    elif checked.failure_type is None and checked.strategy is None:
        raise InvalidEvent(
            "an event needs a failure_type or a strategy",
            {"field": "failure_type", "allowed": sorted(policy.failure_types(component.name))},
        )
    if checked.failure_type is not None:
        allowed = policy.failure_types(component.name)
        if checked.failure_type not in allowed:
            raise unknown("failure type", checked.failure_type, allowed)
    if checked.strategy is not None:
        policy.strategy(component.name, checked.strategy)
    if checked.overwrite and checked.undo_of is None:
        raise InvalidEvent("overwrite belongs to an undo", {"field": "overwrite"})
    if checked.force and not checked.reason:
        raise InvalidEvent("force needs a reason", {"field": "reason"})
    target, context = _pick_target(checked, policy)
    return FailureEvent(
        id=recovery_id,
        target=target,
        failure_type=checked.failure_type,
        strategy=checked.strategy,
        context=context,
        source=checked.source,
        correlation_id=checked.correlation_id,
        by=checked.by,
        reason=checked.reason,
        require_approval=checked.require_approval,
        dry_run=checked.dry_run,
        force=checked.force,
        undo_of=checked.undo_of,
        overwrite=checked.overwrite,
    )


def check_scope(event: FailureEvent, policy: Policy, strategy: str) -> None:
    """Raises ``InvalidEvent`` where the event's context says what the strategy does not accept."""
    declared = policy.strategy(event.target.component, strategy).declaration
    figures = event.context.get(FIGURES, {})
    if not isinstance(figures, dict) or not all(isinstance(v, _SCALAR) for v in figures.values()):
        raise InvalidEvent(
            "context.figures must map names to plain values", {"field": f"context.{FIGURES}"}
        )
    said = {name: value for name, value in event.context.items() if name != FIGURES}
    try:
        declared.scope.model_validate(said)
    except ValidationError as error:
        raise _explain(
            error,
            f"context of {declared.full_name}",
            sorted({*declared.scope.model_fields, *_selectors(event.target.component), FIGURES}),
        ) from error


def check_shape(message: Mapping[str, Any]) -> EventMessage:
    """Whether a message has known fields of the right type and size; raises ``InvalidEvent``."""
    size = _size(message)
    if size > MAX_BYTES:
        raise InvalidEvent(
            f"the event has {size} bytes; at most {MAX_BYTES} are accepted",
            {"field": "message", "value": size},
        )
    try:
        return EventMessage.model_validate(dict(message))
    except ValidationError as error:
        raise _explain(error, "event", sorted(EventMessage.model_fields)) from error


def _size(message: Mapping[str, Any]) -> int:
    """Of its JSON; raises ``InvalidEvent`` where no worker could read that from the broker."""
    try:
        # As deep as it will lie in Celery's own message.
        text = json.dumps([[], message], default=repr)
        from_json(text)
    except (ValueError, RecursionError) as error:
        raise InvalidEvent(
            "the event is no JSON that can be read: text that is no Unicode, or nested too deep",
            {"field": "message"},
        ) from error
    return len(text)


def _check_undo(checked: EventMessage) -> None:
    """An undo says which recovery and nothing else: strategy and host are those of the original."""
    for name in ("failure_type", "strategy", "context", "require_approval", "force"):
        if getattr(checked, name):
            raise InvalidEvent(
                f"an undo names the recovery alone: {name} cannot be said with undo_of",
                {"field": name},
            )
    if checked.source not in (Source.CLI, Source.API):
        raise InvalidEvent(
            f"an undo is a person's decision, never one of {checked.source.value}",
            {"field": "source", "value": checked.source.value},
        )


def target_of(policy: Policy, component: str, name: str | None) -> TargetRef:
    """The configured target of that name; without one ``default``, or the only one that there is.

    Raises ``InvalidEvent``.
    """
    if component not in COMPONENTS:
        raise unknown("component", component, COMPONENTS)
    return _only(component, _named(policy, component, name))


def _named(policy: Policy, component: str, name: str | None) -> Mapping[str, TargetModel]:
    """The targets that a name, also one as ``redis/cache``, may mean; without one all of them."""
    targets = policy.component(component).targets
    if name is None:
        return targets
    if "/" in name:
        ref = TargetRef.parse(name)
        if ref.component != component:
            raise unknown("target", name, (f"{component}/{known}" for known in targets))
        name = ref.name
    if name not in targets:
        raise unknown("target", name, targets)
    return {name: targets[name]}


def _only(component: str, candidates: Collection[str]) -> TargetRef:
    if len(candidates) > 1 and DEFAULT_TARGET not in candidates:
        raise InvalidEvent(
            f"name one of the {component} targets: {', '.join(sorted(candidates))}",
            {"field": "target", "allowed": sorted(candidates)},
        )
    picked = DEFAULT_TARGET if DEFAULT_TARGET in candidates else next(iter(candidates))
    return TargetRef(component, picked)


def _pick_target(checked: EventMessage, policy: Policy) -> tuple[TargetRef, dict[str, Any]]:
    """The event's target and what remains of its context once the target is picked."""
    candidates = _named(policy, checked.component, checked.target)
    context = dict(checked.context)
    chosen = {name: context.pop(name) for name in _selectors(checked.component) if name in context}
    if chosen:
        targets = policy.component(checked.component).targets
        candidates = {n: t for n, t in candidates.items() if t.is_selected_by(chosen)}
        if not candidates:
            raise InvalidEvent(
                f"no configured {checked.component} target is at {_as_text(chosen)}; an event can "
                f"only pick a configured target: {', '.join(sorted(targets))}",
                {"field": "context", "allowed": sorted(targets)},
            )
    return _only(checked.component, candidates), context


def _selectors(component: str) -> tuple[str, ...]:
    return find_component(component).target.selectors


def _as_text(chosen: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {str(value)[:80]!r}" for name, value in chosen.items())


def _explain(error: ValidationError, where: str, allowed: list[str]) -> InvalidEvent:
    """The first problem as a sentence. Values stay out: a stray one may be a secret."""
    problem = error.errors(include_url=False, include_input=False)[0]
    name = ".".join(str(part) for part in problem["loc"]) or "message"
    if problem["type"] == "extra_forbidden":
        text = f"{where}: unknown key {name[:80]!r}; allowed: {', '.join(allowed)}"
    else:
        text = f"{where}: {name[:80]}: {problem['msg']}"
    return InvalidEvent(text, {"field": name[:80], "allowed": allowed})
