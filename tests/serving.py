"""Our HTTP side in front of a stack, as Alertmanager reaches it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from recovery.alertmanager import receive
from tests.stack import Stack


@dataclass(frozen=True, slots=True)
class Front:
    url: str
    token: str


@pytest.fixture
def front(stack: Stack) -> Iterator[Front]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            payload = json.loads(self.rfile.read(int(self.headers["content-length"])))
            receive(stack.control, stack.policy, payload, app=stack.app)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield Front(f"http://127.0.0.1:{server.server_address[1]}", "token")
    server.shutdown()
    server.server_close()
