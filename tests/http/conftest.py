"""A real server on a free port: in the test's own process, with whatever policy it wants."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from recovery.config import Environment, load_policy
from recovery.http.context import Context
from recovery.http.serving import Server, listening, server
from recovery.http.settings import settle
from tests.stack import Stack
from tests.waiting import until

TOKEN = "a-token-of-the-tests-0123456789"
READ_TOKEN = "a-token-for-reading-0123456789"


@dataclass(slots=True)
class Site:
    url: str
    context: Context
    running: Server
    client: httpx.Client

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.client.get(path, **options)

    def post(self, path: str, said: Any, token: str | None = TOKEN, **options: Any) -> Any:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return self.client.post(path, json=said, headers={**headers, **options})

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


@pytest.fixture
def serve(stack: Stack) -> Iterator[Callable[..., Site]]:
    """Serve the stack; options are keys of the policy's ``http`` section."""
    sites: list[tuple[Site, threading.Thread]] = []

    def start(environ: dict[str, str] | None = None, **section: Any) -> Site:
        listener = listening("127.0.0.1", section.pop("port", 0))
        policy = load_policy(stack.policy_file, {})
        changed = policy.document.http.model_copy(update=section)
        policy.document = policy.document.model_copy(update={"http": changed})
        environment = Environment.read({**stack.environ, **(environ or {})})
        port = listener.getsockname()[1]
        given = {"RECOVERY_HTTP_TOKEN": TOKEN, **(environ or {})}
        settings = settle(policy, environment, port=port, environ=given)
        context = Context(stack.control, policy, environment, settings, stack.app)
        running = server(context)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        until(lambda: running.started, what="the server listens")
        url = f"http://127.0.0.1:{port}"
        site = Site(url, context, running, httpx.Client(base_url=url, timeout=20))
        sites.append((site, thread))
        return site

    yield start
    for site, thread in sites:
        site.client.close()
        site.running.should_exit = True
        thread.join(15)


@pytest.fixture
def site(serve: Callable[..., Site]) -> Site:
    return serve()
