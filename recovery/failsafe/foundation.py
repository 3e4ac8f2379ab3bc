"""The control plane's own Redis, repaired first: nothing else can be until it answers.

Only a server that gives no answer at all is restarted, by the ``runtime`` that the policy names for
it on this host. One that answers and refuses to write is full or a replica: a restart would not
help, and might lose what it holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis import exceptions

from recovery.deadline import Deadline
from recovery.errors import RemedyError
from recovery.events import ProbeReport, TargetRef
from recovery.runtime import Readiness, await_ready, manage

if TYPE_CHECKING:
    from recovery.config import Environment, Policy
    from recovery.controlplane import ControlPlane

COMPONENT = "control"
STRATEGY = "restart"
RESTART_SECONDS = 30.0
STOP_GRACE_SECONDS = 10.0


def own_target(policy: Policy, environment: Environment) -> TargetRef | None:
    """The control Redis as this host's target; None where another host, or nobody, runs it."""
    section = policy.control_plane
    if section.runtime is None or section.host not in (None, environment.host):
        return None
    return TargetRef(COMPONENT, environment.host)


def probe(control: ControlPlane) -> ProbeReport:
    """Whether anything answers where the control Redis should be."""
    try:
        control.redis.ping()
    except exceptions.ResponseError as error:
        return ProbeReport(healthy=True, summary=f"it answers: {error}")
    except exceptions.RedisError as error:
        return ProbeReport(healthy=False, failure_type="unreachable", summary=str(error)[:200])
    return ProbeReport(healthy=True, summary="it answers")


def restart(policy: Policy, control: ControlPlane) -> None:
    """Restart its process and see it answer; raises ``RemedyError``."""
    runtime = policy.control_plane.runtime
    if runtime is None:
        raise RemedyError("the policy names no runtime for the control plane")
    deadline = Deadline(RESTART_SECONDS)
    process = manage(runtime, deadline.remaining)
    process.restart(STOP_GRACE_SECONDS)
    await_ready(lambda: _ready(control.redis), process.inspect, deadline, "the control Redis")


def _ready(client: Any) -> Readiness:
    try:
        client.ping()
    except exceptions.BusyLoadingError:
        return Readiness.COMING
    except exceptions.RedisError:
        return Readiness.ABSENT
    return Readiness.READY
