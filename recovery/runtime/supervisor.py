"""A program of supervisord, by its XML-RPC interface over HTTP or a Unix socket."""

from __future__ import annotations

import base64
import http.client
import socket
import threading
import xmlrpc.client
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit
from xml.parsers.expat import ExpatError

from pydantic import BaseModel, Field, ValidationError

from recovery.errors import NoSuchProcess, RemedyError, RuntimeUnavailable, WontStart, WontStop
from recovery.runtime.process import KILL_SECONDS, ProcessState, Remaining, await_end
from recovery.runtime.settings import SupervisorRuntime

_OF_ITSELF = range(1, 10)
"""Faults that tell of supervisord and not of the program; it has one while it shuts down."""

_SHUTTING_DOWN, _BAD_NAME, _ALREADY_STARTED, _NOT_RUNNING = 6, 10, 60, 70
_AT_REST = frozenset({"STOPPED", "EXITED", "FATAL", "UNKNOWN"})
_LONGEST = 200
_UNREADABLE = (ValueError, TypeError, LookupError)
"""What the parser of the standard library raises for values that are none."""


class _Info(BaseModel):
    """What of an answer is read; supervisord tells more. ``start`` in epoch seconds."""

    statename: str
    pid: int = Field(ge=0, lt=2**31)
    start: int = Field(ge=0, lt=2**63)


class Program:
    """See ``recovery.runtime.Process``."""

    def __init__(self, runtime: SupervisorRuntime, remaining: Remaining) -> None:
        self._runtime = runtime
        self._name = runtime.program
        self._url = runtime.url
        self._remaining = remaining

    def inspect(self) -> ProcessState:
        try:
            info = _Info.model_validate(self._ask("getProcessInfo"))
        except xmlrpc.client.Fault as fault:
            if fault.faultCode == _BAD_NAME:
                return ProcessState(exists=False, detail=f"supervisord has no program {self._name}")
            raise RuntimeUnavailable(_said(fault)) from fault
        except ValidationError as error:
            raise RuntimeUnavailable(f"{self._url} answers, but not as supervisord does") from error
        return ProcessState(
            exists=True,
            running=info.statename not in _AT_REST,
            id=f"{info.pid}-{info.start}" if info.pid else None,
            pid=info.pid or None,
            started_at=float(info.start) if info.pid else None,
            detail=info.statename,
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
        try:
            self._ask(method, argument)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode == _BAD_NAME:
                raise NoSuchProcess(f"supervisord has no program {self._name}") from fault
            if fault.faultCode in _OF_ITSELF:
                raise RuntimeUnavailable(_said(fault)) from fault
            if fault.faultCode != fine:
                raise refused(_said(fault)) from fault

    def _ask(self, method: str, *arguments: object) -> Any:
        """What a method of its namespace ``supervisor`` answers; its faults pass through."""
        transport = _Transport(self._runtime, self._remaining())
        end = threading.Timer(self._remaining(), transport.give_up)
        end.daemon = True
        end.start()
        try:
            with xmlrpc.client.ServerProxy("http://localhost/RPC2", transport=transport) as proxy:
                return getattr(proxy.supervisor, method)(self._name, *arguments)
        except xmlrpc.client.Fault:
            raise
        except xmlrpc.client.ProtocolError as error:
            status = f"{error.errcode} {error.errmsg}"[:_LONGEST]
            raise RuntimeUnavailable(f"supervisord does not answer: {status}") from error
        # A UnicodeError is of a host's name that cannot be one.
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            raise RuntimeUnavailable(f"supervisord does not answer: {error}") from error
        except (xmlrpc.client.Error, ExpatError, *_UNREADABLE) as error:
            raise RuntimeUnavailable(f"{self._url} answers, but not as supervisord does") from error
        finally:
            end.cancel()


def _said(fault: xmlrpc.client.Fault) -> str:
    if fault.faultCode == _SHUTTING_DOWN:
        return "supervisord is shutting down"
    return f"supervisord says: {str(fault.faultString)[:_LONGEST]}"


class _Transport(xmlrpc.client.Transport):
    """XML-RPC with a timeout, over either kind of socket, with a password beside the URL."""

    def __init__(self, runtime: SupervisorRuntime, timeout: float) -> None:
        super().__init__(headers=_credentials(runtime))
        self._url = runtime.url
        self._timeout = timeout
        self._is_over = False

    def give_up(self) -> None:
        """Wait for no more of an answer, however often a little of it comes."""
        self._is_over = True
        connection = self._connection[1]
        if isinstance(connection, http.client.HTTPConnection) and connection.sock is not None:
            with suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        if self._is_over:
            raise TimeoutError("timed out")
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
