"""A subscription whose other end is gone without a word, as behind a router that forgot it."""

from __future__ import annotations

import socket
import threading

import pytest

from recovery.client.subscription import Subscription
from recovery.environment import Environment
from recovery.errors import ConfigError, ControlPlaneUnavailable
from tests.servers import RedisServer
from tests.waiting import until


class Router:
    """Passes connections on to a port, until it forgets those that it has; new ones still pass."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._door.getsockname()[1]
        self._forgotten = threading.Event()
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def forget(self) -> None:
        self._forgotten.set()
        self._forgotten = threading.Event()

    def close(self) -> None:
        self._door.close()
        for end in self._open:
            end.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._door.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._port))
            self._open += [near, far]
            for source, sink in ((near, far), (far, near)):
                pump = (source, sink, self._forgotten)
                threading.Thread(target=self._pass_on, args=pump, daemon=True).start()

    @staticmethod
    def _pass_on(source: socket.socket, sink: socket.socket, forgotten: threading.Event) -> None:
        try:
            while data := source.recv(65536):
                if not forgotten.is_set():
                    sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return


def test_a_subscription_that_leads_nowhere_is_noticed(control_redis: RedisServer) -> None:
    router = Router(control_redis.port)
    environment = Environment.read({}, redis_url=f"redis://127.0.0.1:{router.port}/0")
    with Subscription(environment) as subscription:
        until(lambda: subscription.hear(0.05) or subscription.is_read_due)
        subscription.read()
        until(lambda: subscription.hear(0.05) is None)
        router.forget()

        assert subscription.read() == {"notices": {}, "degraded": {}}

        def hears_nothing() -> bool:
            try:
                subscription.hear(0.1)
            except ControlPlaneUnavailable as error:
                return "silent" in str(error)
            return False

        until(hears_nothing)
    router.close()


def test_a_wrong_address_is_said_without_its_password() -> None:
    environment = Environment.read({}, redis_url="redis://:pa#ss/word@host:port/0")

    with pytest.raises(ConfigError) as caught:
        Subscription(environment)

    assert "pa" not in str(caught.value).replace("Redis", "")
