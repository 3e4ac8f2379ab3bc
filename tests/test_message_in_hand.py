"""A broker that dies between giving a message away and hearing that it was taken."""

from __future__ import annotations

from typing import Any

import pytest
from kombu import Connection, Consumer, Queue
from kombu.transport import redis as kombu_redis
from redis.exceptions import ConnectionError as Lost

from tests.servers import RedisServer
from tests.waiting import until
from workers import transport

pytestmark = pytest.mark.kill

QUEUE = Queue("in-hand")


class FatalQoS(kombu_redis.QoS):
    """Kills the server at the very place at which the message would be noted."""

    server: RedisServer | None = None

    def append(self, message: Any, delivery_tag: str) -> None:
        victim, FatalQoS.server = FatalQoS.server, None
        if victim is not None:
            victim.kill()
        super().append(message, delivery_tag)


class FatalChannel(transport.Channel):
    QoS = FatalQoS


class FatalTransport(transport.Transport):
    Channel = FatalChannel


def test_a_message_in_hand_is_delivered_after_the_broker_is_back(
    control_redis: RedisServer,
) -> None:
    with Connection(control_redis.url, transport=FatalTransport) as connection:
        connection.Producer().publish({"n": 1}, routing_key=QUEUE.name, declare=[QUEUE])
        FatalQoS.server = control_redis
        with pytest.raises(Lost):
            drain(connection, [])

    control_redis.start()
    seen: list[Any] = []
    with Connection(control_redis.url, transport=FatalTransport) as connection:
        drain(connection, seen)

    assert seen == [{"n": 1}]
    with control_redis.client() as client:
        assert client.llen(QUEUE.name) == 0
        assert client.hlen("unacked") == 0


def drain(connection: Connection, seen: list[Any]) -> None:
    def take(body: Any, message: Any) -> None:
        message.ack()
        seen.append(body)

    with Consumer(connection.channel(), [QUEUE], callbacks=[take]):
        connection.drain_events(timeout=5)
    until(lambda: seen)
