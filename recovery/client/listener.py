"""The one background thread of an application: hears the control plane, renews, looks, reports.

It never ends by itself. While the control plane is away it tries again with growing pauses, and
what is known stays known. A forked child gets a thread of its own.
"""

from __future__ import annotations

import atexit
import logging
import os
import random
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from recovery.client.chroma import Reloads
from recovery.client.knowledge import Knowledge, Subscriber
from recovery.client.looks import Looks
from recovery.client.renewals import Renewals
from recovery.client.reports import Outbox
from recovery.client.routes import Routes
from recovery.client.subscription import (
    CHANNELS,
    DEGRADED,
    NOTICES,
    ROUTES,
    WITH_ROUTES,
    Heard,
    Subscription,
)
from recovery.controlplane import ANSWER_TIMEOUT, CONNECT_TIMEOUT
from recovery.environment import Environment, is_client_off
from recovery.errors import ConfigError, ControlPlaneUnavailable

MOST_SEEN = 100
TICK_SECONDS = 0.25
"""The longest that a report waits for the thread."""

LONGEST_PAUSE = 15.0
FIRST_PAUSE = 0.25
FORK_SPREAD = 1.0
"""Children of one parent begin within so many seconds, not all at once."""

FORK_PATIENCE = 5.0
LAST_WORDS_SECONDS = 5.0
"""How long an application that ends waits for its reports to be sent; the first one needs Celery,
whose import alone takes a busy machine two."""

log = logging.getLogger("recovery.client")


@dataclass(frozen=True, slots=True)
class _ControlPlane:
    """Which one ``start`` was told; ``None`` leaves it to the environment, read at each connecting.

    ``has_read`` is set once its degraded modes are known.
    """

    redis_url: str | None = None
    prefix: str | None = None
    has_read: threading.Event = field(default_factory=threading.Event, compare=False)

    def environment(self) -> Environment:
        return Environment.read(redis_url=self.redis_url, prefix=self.prefix)


_UNNAMED = _ControlPlane()


class Listener:
    """What one process knows, and the thread that keeps it so."""

    def __init__(self) -> None:
        self.knowledge = Knowledge()
        self.renewals = Renewals()
        self.reloads = Reloads()
        self.looks = Looks()
        self.routes = Routes()
        self.outbox = Outbox()
        self.seen: deque[tuple[str, bool]] = deque(maxlen=MOST_SEEN)
        """Targets that were found to work or not, by whoever uses them."""
        self.is_settled = False
        """Whether nobody needs to start the thread: it runs, or it is not wanted."""
        self.is_away = False
        """Whether the control plane was tried and does not answer."""
        self._followed = _UNNAMED
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        # Held while a lock of others may be held too: a child must not inherit it locked.
        self._gate = threading.Lock()
        self._forking: int | None = None
        self._said = ""

    def start(self, redis_url: str | None = None, prefix: str | None = None) -> None:
        """Raises ``ConfigError`` where another control plane was named before."""
        with self._lock:
            named = _ControlPlane(redis_url, prefix)
            if self._thread is None:
                self.is_settled = True
                if not is_client_off():
                    self._launch(named)
            elif self._followed == _UNNAMED != named:
                # Whoever came first only wanted any: the thread goes over to this one.
                self._followed = named
                self.is_away = False
                self.knowledge.lose()
            elif named not in {_UNNAMED, self._followed}:
                raise ConfigError("a process has one control plane: stop() the other one first")

    def start_unasked(self) -> None:
        """Begin at the first use, unless somebody has started or stopped us."""
        if not self.is_settled:
            self.start()

    def wait_until_read(self, seconds: float) -> bool:
        return self._thread is not None and self._followed.has_read.wait(seconds)

    def stop(self) -> None:
        """End the thread, forget everything, and do not begin again unless asked."""
        with self._lock:
            self.is_settled = True
            thread, self._thread = self._thread, None
            self._stop.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(CONNECT_TIMEOUT + ANSWER_TIMEOUT + TICK_SECONDS)
        self.renewals.clear()
        self.reloads.clear()
        self.knowledge = Knowledge()
        self.looks = Looks()
        self.routes = Routes()
        self.outbox = Outbox()

    def subscribe(self, subscriber: Subscriber) -> None:
        with self._lock:
            self.knowledge.subscribers += (subscriber,)

    def unsubscribe(self, subscriber: Subscriber) -> None:
        with self._lock:
            kept = tuple(one for one in self.knowledge.subscribers if one != subscriber)
            self.knowledge.subscribers = kept

    @property
    def is_running(self) -> bool:
        return self._thread is not None

    def want_routes(self) -> None:
        """From now on the routes are heard as well."""
        self.routes.is_wanted = True
        self.start_unasked()

    def say_last_words(self) -> None:
        """Give the thread a moment for what an application reported before it ended."""
        if self._thread is not None:
            self.outbox.is_empty.wait(LAST_WORDS_SECONDS)

    def before_fork(self) -> None:
        if self._gate.acquire(timeout=FORK_PATIENCE):
            self._forking = threading.get_ident()

    def after_fork_in_parent(self) -> None:
        if self._forking == threading.get_ident():
            self._forking = None
            self._gate.release()

    def after_fork_in_child(self) -> None:
        """Only this thread came along: whatever a lock protected, its holder may be gone."""
        self._lock, self._gate = threading.Lock(), threading.Lock()
        self.outbox = Outbox()
        self.renewals.after_fork()
        self.reloads.after_fork()
        self.knowledge.lose()
        self.looks = Looks()
        if self._thread is not None:
            # Spreads load; nothing secret.
            after = random.uniform(0, FORK_SPREAD)  # noqa: S311
            self._launch(replace(self._followed, has_read=threading.Event()), after)

    def _launch(self, followed: _ControlPlane, after: float = 0.0) -> None:
        self._followed, self._stop = followed, threading.Event()
        self.is_away = False
        self._thread = threading.Thread(
            target=self._run, args=(self._stop, after), name="recovery-client", daemon=True
        )
        self._thread.start()

    def _run(self, stop: threading.Event, after: float) -> None:
        self._rest(after, stop)
        with self._gate:
            from redis.exceptions import RedisError
        pause = FIRST_PAUSE
        while not stop.is_set():
            began = time.monotonic()
            try:
                self._listen(stop)
            except (ConfigError, ControlPlaneUnavailable, RedisError) as error:
                self._say(f"the control plane is away, going on with what is known: {error}")
            except Exception:
                log.exception("listening to the control plane failed; it will be tried again")
            else:
                continue
            self.knowledge.lose()
            self.is_away = not stop.is_set()
            if time.monotonic() - began > LONGEST_PAUSE:
                pause = FIRST_PAUSE
            # Spreads load; nothing secret.
            self._rest(random.uniform(pause / 2, pause), stop)  # noqa: S311
            pause = min(2 * pause, LONGEST_PAUSE)

    def _rest(self, seconds: float, stop: threading.Event) -> None:
        """What does not need the control plane goes on."""
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0:
            if stop.wait(self.renewals.seconds_left(min(left, TICK_SECONDS))):
                return
            self._do_what_is_due()

    def _listen(self, stop: threading.Event) -> None:
        """Returns when told to stop; raises what a ``Subscription`` raises."""
        followed, with_routes = self._followed, self.routes.is_wanted
        channels = WITH_ROUTES if with_routes else CHANNELS
        with Subscription(followed.environment(), channels) as subscription:
            while (
                not stop.is_set()
                and self._followed is followed
                and self.routes.is_wanted is with_routes
            ):
                heard = subscription.hear(self.renewals.seconds_left(TICK_SECONDS))
                if heard is not None:
                    self._take(heard)
                if subscription.is_read_due:
                    self._take_all(subscription.read())
                    followed.has_read.set()
                    self.is_away = False
                self._do_what_is_due()
        self.renewals.forget_notices()

    def _take(self, heard: Heard) -> None:
        hearers = {
            NOTICES: self._hear_notice,
            DEGRADED: self.knowledge.hear,
            ROUTES: self.routes.hear,
        }
        try:
            hearers[heard.channel](heard.text)
        except (KeyError, TypeError, ValueError) as error:
            log.warning("a message of %s cannot be read: %r", heard.channel, error)

    def _hear_notice(self, text: str) -> None:
        self.renewals.hear(text)
        self.reloads.hear(text)

    def _take_all(self, held: Mapping[str, Mapping[str, str]]) -> None:
        self.knowledge.read(held[DEGRADED])
        if ROUTES in held:
            self.routes.read(held[ROUTES])
        for text in self.renewals.missed(held[NOTICES]):
            self._take(Heard(NOTICES, text))
        self._say("")

    def _do_what_is_due(self) -> None:
        with self._gate:
            self.renewals.renew_due()
            if not self.outbox.is_empty.is_set():
                self.outbox.deliver(self._followed.environment)
        self._look()

    def _look(self) -> None:
        """Without the gate: a fork waits for no server."""
        while self.seen:
            target, works = self.seen.popleft()
            # Where the control plane can be asked, its word holds.
            if self.is_away:
                self.knowledge.see(target, works=works)
        for target, works in self.looks.due(
            self.renewals.by_target(),
            everything=self.is_away,
            doubted=self.knowledge.doubted,
        ):
            self.knowledge.see(target, works=works)
        self.knowledge.forget_old()

    def _say(self, text: str) -> None:
        """Once for each change, not for each try."""
        if text == self._said:
            return
        if text:
            log.warning("%s", text)
        elif self._said:
            log.info("the control plane is back")
        self._said = text


LISTENER = Listener()
os.register_at_fork(
    before=LISTENER.before_fork,
    after_in_parent=LISTENER.after_fork_in_parent,
    after_in_child=LISTENER.after_fork_in_child,
)
atexit.register(LISTENER.say_last_words)
