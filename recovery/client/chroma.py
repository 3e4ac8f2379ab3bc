"""A Chroma client of an application that is opened anew when a repair asks for it.

Chroma keeps the files of a directory open for the whole process, and a handle of a collection keeps
its id. So calls go through here: those under way end on what they began with, then everything is
closed and opened anew, and the next call waits for that.
"""

from __future__ import annotations

import json
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

RELOAD = "reload_collections"
WAIT_SECONDS = 30.0
"""How long calls under way may hold up opening anew; then it is done at the next opportunity."""

log = logging.getLogger("recovery.client")


class Reloading:
    """Opens with ``open_client``, which must make a new client at each call."""

    def __init__(self, open_client: Callable[[], Any]) -> None:
        self._open = open_client
        self._client: Any = None
        self._changed = threading.Condition()
        self._under_way = 0
        self._is_due = False
        self.opened = 0
        """How often it was opened."""

    def collection(self, name: str, **options: Any) -> Collection:
        """The collection of that name, whatever happens to it; cheap, and may be kept.

        ``options`` are those of ``get_collection``: an embedding function, for instance.
        """
        return Collection(self, name, options)

    @contextmanager
    def client(self) -> Iterator[Any]:
        """Chroma's own client, for the length of a block; raises what opening it raises."""
        with self._changed:
            self._renew_where_due()
            if self._client is None:
                self._client = self._open()
                self.opened += 1
            client = self._client
            self._under_way += 1
        try:
            yield client
        finally:
            with self._changed:
                self._under_way -= 1
                self._changed.notify_all()

    def renew(self) -> None:
        """Have the next call open everything anew."""
        self._is_due = True

    def _renew_where_due(self) -> None:
        """Holds the lock: nobody begins a call meanwhile."""
        if not self._is_due:
            return
        if not self._changed.wait_for(lambda: not self._under_way, WAIT_SECONDS):
            log.warning("a call to Chroma goes on for long; opened anew after it")
            return
        self._is_due = False
        self.close()

    def close(self) -> None:
        """Let go of the files. The next call opens them."""
        client, self._client = self._client, None
        if client is None:
            return
        try:
            _release(client)
        except Exception:
            # What is closed half must not keep the next call from opening it.
            log.exception("a client of Chroma could not be closed")

    def after_fork(self) -> None:
        """The files are the parent's: a child opens them for itself, and closes nothing."""
        self._changed = threading.Condition()
        self._client, self._under_way = None, 0


class Collection:
    """One collection by its name: every method of Chroma's own."""

    def __init__(self, reloading: Reloading, name: str, options: dict[str, Any]) -> None:
        self._reloading = reloading
        self._name = name
        self._options = options
        self._handle: tuple[Any, Any] = (None, None)

    def __getattr__(self, method: str) -> Callable[..., Any]:
        if method.startswith("_"):
            raise AttributeError(method)

        def call(*args: Any, **kwargs: Any) -> Any:
            from chromadb.errors import NotFoundError

            with self._reloading.client() as client:
                try:
                    return getattr(self._of(client), method)(*args, **kwargs)
                except NotFoundError:
                    # A handle holds an id, and another collection may have the name by now.
                    self._handle = (None, None)
                    return getattr(self._of(client), method)(*args, **kwargs)

        return call

    def _of(self, client: Any) -> Any:
        opened_by, handle = self._handle
        if opened_by is not client:
            handle = client.get_collection(self._name, **self._options)
            self._handle = (client, handle)
        return handle


class Reloads:
    """Which targets' clients are opened here. Held weakly: what is dropped is forgotten."""

    def __init__(self) -> None:
        self._held: weakref.WeakKeyDictionary[Reloading, str] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()

    def protect(self, reloading: Reloading, target: str) -> None:
        with self._lock:
            self._held[reloading] = target

    def hear(self, text: str) -> None:
        """Raises ``KeyError``, ``TypeError`` or ``ValueError`` where the text is no notice."""
        notice = json.loads(text)
        target, wanted = notice["target"], notice["notice"]
        if wanted == RELOAD:
            for reloading in self._of(target):
                reloading.renew()

    def after_fork(self) -> None:
        self._lock = threading.Lock()
        for reloading in list(self._held):
            reloading.after_fork()

    def clear(self) -> None:
        with self._lock:
            self._held.clear()

    def _of(self, target: str) -> list[Reloading]:
        with self._lock:
            return [one for one, its in self._held.items() if its == target]


def _release(client: Any) -> None:
    """Chroma shares one system among all clients of a directory, and hands it to the next one for
    as long as anybody holds it: forgotten, the next one opens the files."""
    from chromadb.api.shared_system_client import SharedSystemClient

    if hasattr(client, "close"):
        client.close()
    SharedSystemClient.clear_system_cache()
