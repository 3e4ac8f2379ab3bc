"""Which roads there are now, in which order, and what becomes of how they fared.

What the control plane said last is resolved once, not at each call; whoever calls pays for a
comparison.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from recovery import client
from recovery.client.listener import LISTENER
from recovery.environment import is_client_off
from recovery.errors import ConfigError
from recovery.events import TargetRef
from recovery.inference import endpoints
from recovery.inference.endpoints import Endpoint
from recovery.inference.failures import Failed, Failure
from recovery.inference.health import Health
from recovery.inference.own import Own
from recovery.routes import Road, Route

FIRST_WAIT = 5.0
"""How long the first call waits for the control plane's first word, or to hear that it is away."""

RESOLVE_AGAIN = 30.0
"""A key in a file may have been replaced."""

log = logging.getLogger("recovery.inference")


@dataclass(frozen=True, slots=True)
class Plan:
    """The roads of one route, the preferred one first; ``unusable`` says why others are missing."""

    text: str | None
    endpoints: tuple[Endpoint, ...]
    unusable: tuple[Failure, ...]
    made: float


class Roads:
    """Those of one target, shared by all callers of one client."""

    def __init__(self, target: str, own: Own) -> None:
        self.target = str(TargetRef.parse(target))
        self.health = Health()
        self._own = own
        self._plan: Plan | None = None
        self._asked: float | None = None
        self._has_failed = False

    def is_settled(self) -> bool:
        """Whether the control plane has spoken, or need not be waited for any longer."""
        if self._asked is None:
            self._asked = time.monotonic()
            if not is_client_off():
                LISTENER.want_routes()
        return (
            LISTENER.routes.was_read
            or LISTENER.is_away
            or not LISTENER.is_running
            or time.monotonic() - self._asked > FIRST_WAIT
        )

    def plan(self) -> Plan:
        text = LISTENER.routes.texts.get(self.target)
        plan = self._plan
        if plan is None or plan.text is not text or time.monotonic() - plan.made > RESOLVE_AGAIN:
            if plan is not None and plan.text is not text:
                # A new token, model, key or road: what failed before says little of it.
                for road in Road:
                    self.health.forgive(road)
            plan = self._plan = self._resolve(text)
        return plan

    def order(self, plan: Plan) -> tuple[Endpoint, ...]:
        """The roads as they are to be tried; one that is left alone comes last."""
        first, *others = plan.endpoints or (None,)
        if first is None or not others or self.health.may_try(first.road):
            return plan.endpoints
        second = others[0]
        return (second, first) if self.health.may_try(second.road) else plan.endpoints

    def is_overtaken(self, plan: Plan, road: Road) -> bool:
        """Whether the control plane has taken another road since the plan was made."""
        now = self.plan()
        is_new = now.text is not plan.text and bool(now.endpoints)
        return is_new and now.endpoints[0].road is not road

    def worked(self, road: Road) -> None:
        self.health.worked(road)
        if self._has_failed and road is Road.OPENWEBUI:
            self._has_failed = False
            LISTENER.seen.append((self.target, True))

    def failed(self, failure: Failure) -> None:
        """Leave the road alone for a while; tell what can be repaired, once."""
        self.health.failed(failure)
        if failure.road is Road.OPENWEBUI and failure.is_told:
            self._has_failed = True
            LISTENER.seen.append((self.target, False))
            if self.health.is_news(failure.kind):
                log.warning("%s of %s", failure, self.target)
                client.report(failure.kind, target=self.target)
                return
        log.debug("%s of %s", failure, self.target)

    def _resolve(self, text: str | None) -> Plan:
        found: list[Endpoint] = []
        unusable: list[Failure] = []
        try:
            own = self._own.or_else(Own.read())
        except ConfigError as error:
            log.warning("%s", error)
            own = self._own
        route = own.completing(self._parsed(text), self.target)
        ways = [(road, route) for road in _preferred(route)] if route is not None else []
        for road, chosen in ways:
            try:
                found.append(_endpoint(road, chosen, own))
            except Failed as failed:
                unusable.append(failed.failure)
                if self._plan is None or failed.failure not in self._plan.unusable:
                    log.warning("%s of %s cannot be used here", failed.failure, self.target)
        return Plan(text, tuple(found), tuple(unusable), time.monotonic())

    def _parsed(self, text: str | None) -> Route | None:
        if text is None:
            return None
        try:
            return Route.from_json(text)
        except ValueError as error:
            log.warning("the route of %s cannot be read: %s", self.target, error)
            return None


def _preferred(route: Route) -> tuple[Road, ...]:
    there = [Road.OPENWEBUI] if route.base_url else []
    there += [Road.DIRECT] if route.direct is not None else []
    has_expired = route.token_expires is not None and route.token_expires < time.time()
    # A token that has run out is tried only where nothing else is left.
    last = Road.OPENWEBUI if has_expired else None
    return tuple(sorted(there, key=lambda road: (road is last, road is not route.road)))


def _endpoint(road: Road, route: Route, own: Own) -> Endpoint:
    if road is Road.DIRECT and route.direct is not None:
        return endpoints.direct(route.direct, own)
    return endpoints.openwebui(route, own)
