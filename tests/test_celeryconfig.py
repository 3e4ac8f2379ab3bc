"""What the Celery settings promise: producers that fail fast, and events for who looks."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from celery import Celery

from recovery import producer
from recovery.errors import ControlPlaneUnavailable
from tests.fleet import Fleet
from tests.servers import RedisServer, black_hole, free_port
from tests.stack import Stack
from tests.waiting import until

PATIENCE = 2.0


def sender(port: int) -> Celery:
    """A producer with our settings and another broker."""
    app = producer.celery_app.__wrapped__()
    app.conf.broker_url = f"redis://127.0.0.1:{port}/0"
    return app


def seconds_until_refused(app: Celery) -> float:
    began = time.monotonic()
    with pytest.raises(ControlPlaneUnavailable):
        producer.trigger("redis", "connection_error", app=app)
    return time.monotonic() - began


def is_written(server: RedisServer) -> bool:
    """Redis puts off writing, and answers all the same, while the last fsync is under way."""
    with server.client() as client:
        return client.info("persistence")["aof_buffer_length"] == 0


@contextmanager
def accepting_and_silent() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    held.append(server.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=accept)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    thread.join()
    for connection in held:
        connection.close()


@contextmanager
def refusing() -> Iterator[int]:
    yield free_port()


@pytest.mark.parametrize("broken", [refusing, accepting_and_silent, black_hole])
def test_a_producer_hears_within_two_seconds_that_the_broker_is_away(broken: object) -> None:
    with broken() as port:  # type: ignore[operator]
        app = sender(port)

        # The bound is the promise itself, so here a time is what is tested.
        assert seconds_until_refused(app) < PATIENCE
        app.close()


def test_a_pooled_connection_to_a_broker_that_falls_silent_fails_as_fast(
    control_redis: RedisServer,
) -> None:
    app = sender(control_redis.port)
    producer.trigger("redis", "connection_error", app=app)
    control_redis.send_signal(signal.SIGSTOP)

    assert seconds_until_refused(app) < PATIENCE
    control_redis.send_signal(signal.SIGCONT)
    app.close()


def test_a_restarted_broker_takes_the_next_event_of_the_same_producer(
    control_redis: RedisServer,
) -> None:
    app = sender(control_redis.port)
    producer.trigger("redis", "connection_error", app=app)
    until(lambda: is_written(control_redis), what="the first event is in the append-only file")
    control_redis.kill()
    seconds_until_refused(app)
    control_redis.start()

    producer.trigger("redis", "connection_error", app=app)

    with control_redis.client() as client:
        assert client.llen("dispatch") == 2
    app.close()


def test_task_events_are_there_for_who_switches_them_on(stack: Stack, fleet: Fleet) -> None:
    fleet.start()
    seen: list[str] = []
    with stack.app.connection() as connection:
        assert stack.app.control.enable_events(reply=True)
        receiver = stack.app.events.Receiver(
            connection, handlers={"task-succeeded": lambda event: seen.append(event["uuid"])}
        )
        with receiver.consumer_context(wakeup=False) as (channel, _, _):
            sent = stack.trigger("connection_error")

            def arrived() -> bool:
                with suppress(TimeoutError):
                    channel.drain_events(timeout=0.2)
                return sent in seen

            until(arrived, what="the dispatch shows as an event")
