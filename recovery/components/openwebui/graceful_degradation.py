"""``openwebui.graceful_degradation``: lead people around an Open WebUI that cannot be mended.

It mends nothing. Its proof is an answer on the other road, asked for before anybody is sent there
and once more afterwards.
"""

from __future__ import annotations

from recovery.components.openwebui import direct
from recovery.components.openwebui.standing import as_the_policy_says
from recovery.components.openwebui.target import OpenWebuiTarget
from recovery.errors import MemoryAway
from recovery.events import Figure
from recovery.routes import Road
from recovery.strategy import Journal, Parameters, strategy

NOTICE = "direct_road"


class GracefulDegradation(Parameters):
    """Whether the component's degraded mode is set while the direct road is in use."""

    degraded_mode: bool = True

    @property
    def sets_degraded_mode(self) -> bool:
        return self.degraded_mode


@strategy(
    component="openwebui",
    summary="Route requests past Open WebUI to a direct provider that is proven to answer.",
    parameters=GracefulDegradation,
    proof="recovery.components.openwebui.direct:prove",
    timeout_seconds=15.0,
    max_retries=1,
)
def graceful_degradation(
    target: OpenWebuiTarget,
    parameters: GracefulDegradation,  # noqa: ARG001 - the conclusion reads them
    journal: Journal,
) -> None:
    """Raises ``RemedyError`` where the other road is no better."""
    memory = target.memory
    if memory is None:
        raise MemoryAway("the route is kept in the control plane, which nobody asked")
    provider = direct.provider_of(target)
    tested = direct.test(provider, target.completion_timeout, journal.remaining())
    if tested.finding is not None:
        raise tested.finding.as_error()
    seen: dict[str, Figure] = {
        "provider": provider.provider.value,
        "model": provider.model,
        "direct_ms": round(tested.seconds * 1000, 1),
    }
    journal.note("the direct road answers", **seen)
    facts = {**as_the_policy_says(target, memory.route()), "road": Road.DIRECT.value}
    journal.change("led applications to the direct road", lambda: memory.reroute(**facts))
    journal.tell_applications("applications were told of the direct road", NOTICE)
