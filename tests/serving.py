"""Our HTTP side in front of a stack: the real server, in the test's own process."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from recovery.config import Environment
from recovery.http.context import Context
from recovery.http.serving import Server, listening, server
from recovery.http.settings import settle
from tests.stack import Stack
from tests.waiting import until

TOKEN = "a-token-of-the-tests-0123456789"


@dataclass(frozen=True, slots=True)
class Front:
    url: str
    token: str


@contextmanager
def running(context: Context, listener: socket.socket) -> Iterator[Server]:
    """Serve on a thread until the block ends."""
    served = server(context)
    thread = threading.Thread(target=served.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    until(lambda: served.started, what="the server listens")
    yield served
    served.should_exit = True
    thread.join(15)


@pytest.fixture
def front(stack: Stack) -> Iterator[Front]:
    environment = Environment.read(stack.environ)
    listener = listening("127.0.0.1", 0)
    port = listener.getsockname()[1]
    environ = {"RECOVERY_HTTP_TOKEN": TOKEN}
    settings = settle(stack.policy, environment, port=port, environ=environ)
    context = Context(stack.control, stack.policy, environment, settings, stack.app)
    with running(context, listener):
        yield Front(f"http://127.0.0.1:{port}", TOKEN)
