"""Queue ``openwebui`` and its host-bound ones: the remedies of Open WebUI targets, and the way back
from what they did."""

from __future__ import annotations

import structlog

from recovery import producer, returning, routing
from recovery.components.openwebui import homeward
from recovery.components.openwebui.target import OpenWebuiTarget
from recovery.events import TargetRef
from recovery.memory import reminded
from recovery.returning import Goal, Way
from recovery.strategy import find_component
from workers import context
from workers.app import app
from workers.task import nudge_notify, strategy_task

FOLLOW_ROUTE = "recovery.openwebui.follow_route"

log = structlog.get_logger()

token_refresh = strategy_task("openwebui", "token_refresh")
model_failover = strategy_task("openwebui", "model_failover")
graceful_degradation = strategy_task("openwebui", "graceful_degradation")


@app.task(name="recovery.openwebui.follow_routes", ignore_result=True)
def follow_routes() -> int:
    """Have every Open WebUI's route looked after, each on a worker that reaches it."""
    policy = context.policy()
    own = [ref for ref in policy.target_refs() if ref.component == "openwebui"]
    for ref in own:
        app.send_task(
            FOLLOW_ROUTE,
            args=[str(ref)],
            queue=producer.queue_of(policy, ref),
            ignore_result=True,
            expires=returning.LOOK_SECONDS,
        )
    return len(own)


@app.task(name=FOLLOW_ROUTE, ignore_result=True)
def follow_route(target: str) -> str:
    """Keep the route as the policy describes it, and lead applications back when it is time."""
    control, policy, ref = context.control(), context.policy(), TargetRef.parse(target)
    wanted = reminded(control, policy, ref)
    if not isinstance(wanted, OpenWebuiTarget):
        return "no Open WebUI"
    stored = routing.read(control, ref)
    route = routing.change(control, ref, **homeward.as_the_policy_says(wanted, stored))
    if route.is_home:
        return "home"
    longest = find_component(ref.component).probe_seconds
    model, report = homeward.look(wanted, route, longest)
    goal = Goal(model=model, report=report)
    ended = returning.consider(control, policy, ref, route, goal, return_after=wanted.return_after)
    if ended.way is Way.LED_BACK:
        log.warning("applications are led back", target=target, seen=goal.report.summary)
        nudge_notify()
    return ended.way.value
