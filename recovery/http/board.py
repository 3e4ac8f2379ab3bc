"""What the status page shows, as pieces that carry a version: each is rendered when it changes.

Whoever watches holds one number, the version seen last, and is given what is newer. So a slow
reader costs nothing, and one that comes back gets exactly what it missed. Nothing here is about who
looks: a piece is the same for everybody.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from recovery import approvals, audit, records
from recovery.errors import ControlPlaneUnavailable, UnknownRecovery
from recovery.events import Result, TargetRef
from recovery.http import pages, shown
from recovery.http.standing import Standing, Word, standings
from recovery.observations import histories

if TYPE_CHECKING:
    from recovery.http.context import Context
    from recovery.measurement import Measurement

RECENT = 30
MOST_CARDS = 24
"""Targets that need attention are shown large; of more than so many, the rest stays in the list."""

FRESH_SECONDS = 1.0

URGENCY = tuple(Word)
GOOD = frozenset(result.value for result in Result if result.is_good) | {
    *("taken", "healthy", "probation_over", "led_back", "storm_over", "enabled"),
}
"""What reads well in the timeline; beside the ends of recoveries the trail has other lines."""

CALM = frozenset({"refused", "disabled", "departed"})
"""Neither good nor bad."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One part of the page: ``key`` is the id of its element."""

    key: str
    version: int
    html: str


@dataclass(slots=True)
class _Trace:
    """The last probes of a target, and how they are drawn."""

    at_ms: int = 0
    line: str = ""
    marks: str = ""
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=shown.POINTS))
    healthy: deque[bool] = field(default_factory=lambda: deque(maxlen=shown.POINTS))

    def add(self, points: Iterable[tuple[int, float, bool]]) -> None:
        for self.at_ms, latency, healthy in points:
            self.latencies.append(latency)
            self.healthy.append(healthy)
        self.line = shown.sparkline(list(self.latencies))
        self.marks = shown.marks(list(self.healthy))


class Board:
    """May be used by any thread."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.epoch = secrets.token_hex(4)
        self.version = 0
        self.now_ms = 0
        self._pieces: dict[str, Piece] = {}
        self._facts: dict[str, object] = {}
        self._traces: dict[TargetRef, _Trace] = {}
        self._away_since: float | None = None
        self._fresh_at = 0.0
        self._refreshing = threading.Lock()

    @property
    def place(self) -> str:
        """Where a reader is that has seen everything."""
        return f"{self.epoch}-{self.version}"

    def since(self, place: str) -> tuple[Piece, ...]:
        """What is newer than a reader's place; all of it where the place is not of this board."""
        epoch, _, seen = place.partition("-")
        version = int(seen) if epoch == self.epoch and seen.isdigit() else -1
        return tuple(piece for piece in list(self._pieces.values()) if piece.version > version)

    def html(self, key: str) -> str:
        piece = self._pieces.get(key)
        return piece.html if piece else ""

    def refresh(self, max_age: float = 0.0) -> None:
        """Look again, unless somebody has just done so. Says on the page if nothing can be seen."""
        with self._refreshing:
            if time.monotonic() - self._fresh_at < max_age:
                return
            try:
                self._read()
                self._away_since = None
            except ControlPlaneUnavailable:
                self._away_since = self._away_since or time.time()
                self._put("headline", self._away_since, "_away.html", since=self._away_since)
            self._fresh_at = time.monotonic()

    def _read(self) -> None:
        now = self._context.measured(max_age=0.0)
        found = standings(now)
        self._trace(found)
        waiting = approvals.pending(self._context.control)
        self.now_ms = now.now_ms
        unwell = [one for one in found if one.is_unwell]
        cards = sorted(unwell, key=lambda one: URGENCY.index(one.word))[:MOST_CARDS]
        lost = sorted({word for mode in now.degraded for word in mode.unavailable})
        said = {"total": len(found), "unwell": len(unwell), "waiting": len(waiting), "lost": lost}
        self._put("headline", said, "_headline.html", **said)
        self._put("approvals", waiting, "_approvals.html", approvals=waiting)
        views = {one.ref: self._view(one, now) for one in found}
        shown_cards = [views[one.ref] for one in cards]
        self._put("attention", shown_cards, "_attention.html", targets=shown_cards)
        for ref, view in views.items():
            self._put(f"t:{ref}", view, "_row.html", t=view)
        self._put_timeline(found)
        self._put_house(now)

    def _view(self, one: Standing, now: Measurement) -> dict[str, Any]:
        """A target as the templates want it; two that are equal look the same."""
        state, seen, trace = one.state, one.state.seen, self._traces.get(one.ref)
        cooldown = state.cooldown_seconds
        return {
            "key": str(one.ref),
            "component": one.ref.component,
            "name": one.ref.name,
            "word": one.word.value,
            "label": one.word.label,
            "host": self._context.policy.target(one.ref).host,
            "left": state.attempts_left,
            "most": state.max_attempts_per_hour,
            # Seconds, so that the same end is the same fact whenever it is measured.
            "cooldown_ends": round(now.now_ms / 1000 + cooldown) * 1000 if cooldown else None,
            "phase": state.phase,
            "holder": state.holder,
            "percent": state.percent,
            "recovery_id": state.recovery_id,
            "last_result": state.last_result,
            "last_strategy": state.last_strategy,
            "level": state.level,
            "mode": one.mode.mode if one.mode else None,
            "unavailable": one.mode.unavailable if one.mode else (),
            "disabled": (one.disabled.scope, one.disabled.by, one.disabled.reason)
            if one.disabled
            else None,
            "healthy": seen.healthy if seen else None,
            "failure": seen.failure_type if seen else None,
            "summary": seen.summary if seen else "",
            "figures": dict(seen.figures) if seen else {},
            "latency": round(seen.latency_ms, 1) if seen else None,
            "at_ms": seen.at_ms if seen else None,
            "line": trace.line if trace else "",
            "marks": trace.marks if trace else "",
        }

    def _trace(self, found: tuple[Standing, ...]) -> None:
        """Go on with what is known; the whole history is read once a target."""
        new = [one.ref for one in found if one.state.seen and one.ref not in self._traces]
        if new:
            self._load_traces(new)
        for one in found:
            seen = one.state.seen
            trace = self._traces.get(one.ref)
            if seen is not None and trace is not None and seen.at_ms > trace.at_ms:
                trace.add([(seen.at_ms, seen.latency_ms, seen.healthy)])

    def _load_traces(self, refs: list[TargetRef]) -> None:
        found = histories(self._context.control, refs, shown.POINTS)
        for ref, points in found.items():
            trace = self._traces[ref] = _Trace()
            trace.add((point.at_ms, point.latency_ms, point.healthy) for point in points)

    def _put_timeline(self, found: tuple[Standing, ...]) -> None:
        context = self._context
        folder = audit.folder_of(context.policy, context.environment)
        recent = audit.latest(context.control, RECENT, folder)
        running = [self._running(one) for one in found if one.state.recovery_id]
        live = [one for one in running if one is not None]
        self._put("timeline", ([entry.id for entry in recent], live), "_timeline.html",
                  entries=recent, running=live, good=GOOD, calm=CALM)  # fmt: skip

    def _running(self, one: Standing) -> dict[str, Any] | None:
        control, recovery_id = self._context.control, str(one.state.recovery_id)
        try:
            record = records.load(control, recovery_id)
        except UnknownRecovery:
            return None
        return {
            "id": recovery_id,
            "target": str(one.ref),
            "component": one.ref.component,
            "strategy": record.strategy,
            "phase": one.state.phase,
            "holder": one.state.holder,
            "failure": record.event.failure_type,
            "began_ms": record.started_ms or record.received_ms,
            "steps": records.steps(control, recovery_id),
        }

    def _put_house(self, now: Measurement) -> None:
        alive = sum(seen.is_alive for seen in now.workers)
        unconsumed = tuple(queue.name for queue in now.queues if queue.consumers == 0)
        facts = {
            "alive": alive,
            "dead": len(now.workers) - alive,
            "unconsumed": unconsumed,
            "waiting": sum(queue.length for queue in now.queues),
            "recovered": now.counted.recovered,
            "failed": now.counted.failed,
            "refused": sum(now.counted.refused.values()),
            "rate": now.counted.success_rate,
            "disabled": [(one.scope, one.by, one.reason) for one in now.disabled],
        }
        self._put("house", facts, "_house.html", **facts)

    def _put(self, key: str, facts: object, template: str, **values: Any) -> None:
        """Render a piece anew where what it says has changed."""
        told = (template, facts)
        if self._facts.get(key) == told:
            return
        self._facts[key] = told
        html = pages.render(template, **values)
        self._pieces[key] = Piece(key, self.version + 1, html)
        self.version += 1
