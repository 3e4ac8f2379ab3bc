"""A program of supervisord, by its XML-RPC interface over HTTP or a Unix socket."""

from __future__ import annotations

import base64
import http.client
import socket
import xmlrpc.client
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from recovery.errors import NoSuchProcess, RemedyError, RuntimeUnavailable, WontStart, WontStop
from recovery.runtime.process import KILL_SECONDS, ProcessState, Remaining, await_end
from recovery.runtime.settings import SupervisorRuntime

_BAD_NAME, _ALREADY_STARTED, _NOT_RUNNING = 10, 60, 70
_AT_REST = frozenset({"STOPPED", "EXITED", "FATAL", "UNKNOWN"})


class Program:
    """See ``recovery.runtime.Process``."""

    def __init__(self, runtime: SupervisorRuntime, remaining: Remaining) -> None:
        self._runtime = runtime
        self._name = runtime.program
        self._remaining = remaining

    def inspect(self) -> ProcessState:
        with self._server() as server:
            try:
                info: Any = server.getProcessInfo(self._name)
            except xmlrpc.client.Fault as fault:
                if fault.faultCode == _BAD_NAME:
                    return ProcessState(
                        exists=False, detail=f"supervisord has no program {self._name}"
                    )
                raise
        return ProcessState(
            exists=True,
            running=info["statename"] not in _AT_REST,
            id=f"{info['pid']}-{info['start']}" if info["pid"] else None,
            pid=info["pid"] or None,
            started_at=float(info["start"]) if info["pid"] else None,
            detail=str(info["statename"]),
        )

    def stop(self, grace: float, *, kill: bool = True) -> None:
        """The program's own stop signal, and its own ``stopwaitsecs`` where that is shorter."""
        self._order(WontStop, "stopProcess", False, fine=_NOT_RUNNING)
        if self._ended(grace):
            return
        if not kill:
            raise WontStop(f"{self._name} runs on after {grace:g} s")
        self._order(WontStop, "signalProcess", "KILL", fine=_NOT_RUNNING)
        if not self._ended(KILL_SECONDS):
            raise WontStop(f"{self._name} runs on after KILL")

    def start(self) -> None:
        self._order(WontStart, "startProcess", False, fine=_ALREADY_STARTED)

    def restart(self, grace: float) -> None:
        self.stop(grace)
        self.start()

    def _ended(self, seconds: float) -> bool:
        return await_end(lambda: self.inspect().running, seconds, self._remaining)

    def _order(self, refused: type[RemedyError], method: str, argument: object, fine: int) -> None:
        with self._server() as server:
            try:
                getattr(server, method)(self._name, argument)
            except xmlrpc.client.Fault as fault:
                if fault.faultCode == _BAD_NAME:
                    raise NoSuchProcess(f"supervisord has no program {self._name}") from fault
                if fault.faultCode != fine:
                    raise refused(f"supervisord says: {fault.faultString}") from fault

    @contextmanager
    def _server(self) -> Iterator[Any]:
        """Its namespace ``supervisor``; faults pass through, what is no answer does not."""
        transport = _Transport(self._runtime, self._remaining())
        try:
            with xmlrpc.client.ServerProxy("http://localhost/RPC2", transport=transport) as proxy:
                yield proxy.supervisor
        except (OSError, http.client.HTTPException, xmlrpc.client.ProtocolError) as error:
            # The text of a ProtocolError holds its URL, which is ours and has no credentials.
            raise RuntimeUnavailable(f"supervisord does not answer: {error}") from error


class _Transport(xmlrpc.client.Transport):
    """XML-RPC with a timeout, over either kind of socket, with a password beside the URL."""

    def __init__(self, runtime: SupervisorRuntime, timeout: float) -> None:
        super().__init__(headers=_credentials(runtime))
        self._url = runtime.url
        self._timeout = timeout

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        parts = urlsplit(self._url)
        if parts.scheme == "unix":
            made: http.client.HTTPConnection = _UnixConnection(parts.path, self._timeout)
        else:
            made = http.client.HTTPConnection(parts.netloc, timeout=self._timeout)
        # Where the transport looks for what it has to close.
        self._connection = host, made
        return made


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _credentials(runtime: SupervisorRuntime) -> list[tuple[str, str]]:
    if runtime.password is None:
        return []
    plain = f"{runtime.username or ''}:{runtime.password.get_secret_value()}"
    return [("Authorization", "Basic " + base64.b64encode(plain.encode()).decode())]
