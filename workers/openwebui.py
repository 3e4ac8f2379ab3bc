"""Queue ``openwebui`` and its host-bound ones: the remedies of Open WebUI targets, and the way back
from what they did."""

from __future__ import annotations

from recovery import producer, returning
from recovery.events import TargetRef
from recovery.returning import Way
from workers import context
from workers.app import app
from workers.schedule import MOST_WAITING, waiting
from workers.task import nudge_notify, strategy_task

FOLLOW_ROUTE = "recovery.openwebui.follow_route"

token_refresh = strategy_task("openwebui", "token_refresh")
model_failover = strategy_task("openwebui", "model_failover")
graceful_degradation = strategy_task("openwebui", "graceful_degradation")


@app.task(name="recovery.openwebui.follow_routes", ignore_result=True)
def follow_routes() -> int:
    """Have every Open WebUI's route looked after, each on a worker that reaches it."""
    policy = context.policy()
    own = [ref for ref in policy.target_refs() if ref.component == "openwebui"]
    sent = 0
    with app.connection_for_write() as connection:
        for ref in own:
            queue = producer.queue_of(policy, ref)
            # Where nobody takes them, one more helps nobody.
            if waiting(connection.default_channel, queue) < MOST_WAITING:
                app.send_task(FOLLOW_ROUTE, args=[str(ref)], queue=queue, ignore_result=True)
                sent += 1
    return sent


@app.task(name=FOLLOW_ROUTE, ignore_result=True)
def follow_route(target: str) -> str:
    """Keep the route as the policy describes it, and lead applications back when it is time."""
    ended = returning.follow(context.control(), context.policy(), TargetRef.parse(target))
    if ended.way is Way.LED_BACK:
        nudge_notify()
    return ended.way.value
