"""A real server on a free port: in the test's own process, with whatever policy it wants."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from recovery.config import Environment, load_policy
from recovery.http.context import Context
from recovery.http.serving import Server, listening
from recovery.http.settings import settle
from tests.serving import TOKEN, running
from tests.stack import Stack

READ_TOKEN = "a-token-for-reading-0123456789"

__all__ = ["READ_TOKEN", "TOKEN", "Site"]


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
    with ExitStack() as opened:

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
            served = opened.enter_context(running(context, listener))
            url = f"http://127.0.0.1:{port}"
            client = opened.enter_context(httpx.Client(base_url=url, timeout=20))
            return Site(url, context, served, client)

        yield start


@pytest.fixture
def site(serve: Callable[..., Site]) -> Site:
    return serve()
