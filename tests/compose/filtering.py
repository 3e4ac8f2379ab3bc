"""What stands between the workers and the Docker engine, with the rules of the compose stack.

``RECOVERY_SOCKET_PROXY`` names the program that the stack runs there (wollomatic/socket-proxy);
without it a stand-in does, which knows the same rules but for those on bind mounts.
"""

from __future__ import annotations

import http.client
import os
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import yaml

from tests.fleet import ROOT
from tests.servers import free_port
from tests.waiting import until

PROGRAM = "RECOVERY_SOCKET_PROXY"
SOCKET = "/var/run/docker.sock"


def arguments() -> list[str]:
    """As the compose file has them."""
    stack = yaml.safe_load((ROOT / "compose" / "docker-compose.yml").read_text())
    command: list[str] = stack["services"]["docker-proxy"]["command"]
    return command


@contextmanager
def proxy(*, binds: str) -> Iterator[str]:
    """The address of one that runs."""
    program = os.environ.get(PROGRAM)
    with _real(program, binds) if program else _stand_in() as port:
        yield f"tcp://127.0.0.1:{port}"


@contextmanager
def _real(program: str, binds: str) -> Iterator[int]:
    port = free_port()
    here = {"-listenip": "127.0.0.1", "-allowfrom": "127.0.0.1/32", "-allowbindmountfrom": binds}
    given = [one for one in arguments() if one != "-allowhealthcheck"]
    names = [one.partition("=")[0] for one in given]
    changed = [f"{n}={here[n]}" if n in here else one for n, one in zip(names, given, strict=True)]
    with subprocess.Popen([program, *changed, f"-proxyport={port}"]) as running:
        try:
            until(lambda: _listens(port), what="the proxy listens")
            yield port
        finally:
            running.terminate()


def _listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def _stand_in() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Filter) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


class _Engine(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(Path(SOCKET).resolve()))


class _Filter(BaseHTTPRequestHandler):
    rules: ClassVar[dict[str, str]] = dict(
        re.findall(r"^-allow([A-Z]+)=(.*)$", "\n".join(arguments()), re.MULTILINE)
    )

    def do_GET(self) -> None:
        rule = self.rules.get(self.command)
        if rule is None:
            self._answer(405, b"")
        elif re.fullmatch(rule, self.path.partition("?")[0]) is None:
            self._answer(403, b"")
        else:
            self._forward()

    do_POST = do_DELETE = do_PUT = do_GET  # noqa: N815 - the handler's own names

    def _forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        engine = _Engine("localhost")
        try:
            engine.request(self.command, self.path, body, dict(self.headers))
            answer = engine.getresponse()
            self._answer(answer.status, answer.read(), answer.getheader("Content-Type"))
        finally:
            engine.close()

    def _answer(self, status: int, body: bytes, kind: str | None = None) -> None:
        self.send_response(status)
        if kind is not None:
            self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Nothing: a test asks for the answer."""
