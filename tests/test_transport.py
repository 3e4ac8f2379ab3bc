"""The Redis client that a channel of the broker keeps, on a real server."""

from __future__ import annotations

from typing import Any

from kombu import Connection

from tests.servers import RedisServer
from workers.transport import Transport


def client_of(channel: Any) -> Any:
    with channel.conn_or_acquire() as client:
        return client


def test_a_channel_keeps_its_client_as_long_as_its_pool(control_redis: RedisServer) -> None:
    with Connection(control_redis.url, transport=Transport) as connection:
        channel: Any = connection.default_channel
        first = client_of(channel)
        assert client_of(channel) is first

        channel._disconnect_pools()

        second = client_of(channel)
        assert second is not first
        assert second.connection_pool is channel.pool
        assert second.ping()


def test_two_channels_have_a_client_each(control_redis: RedisServer) -> None:
    with Connection(control_redis.url, transport=Transport) as connection:
        one, other = connection.channel(), connection.channel()
        assert client_of(one) is not client_of(other)


def test_a_kept_client_works_on_once_the_server_is_back(control_redis: RedisServer) -> None:
    with Connection(control_redis.url, transport=Transport) as connection:
        queue = connection.SimpleQueue("kept-client")
        queue.put({"n": 1})
        assert queue.get(timeout=5).payload == {"n": 1}
        control_redis.kill()
        control_redis.start()

        connection.ensure_connection(max_retries=5)
        with Connection(control_redis.url, transport=Transport) as other:
            other.SimpleQueue("kept-client").put({"n": 2})

        def put() -> None:
            queue.put({"n": 3})

        connection.ensure(queue, put, max_retries=5)()
        with control_redis.client() as client:
            assert client.llen("kept-client") >= 2
