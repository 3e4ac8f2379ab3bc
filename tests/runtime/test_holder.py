"""A process is known by the port that it holds, and only where it is the policy's own program."""

from __future__ import annotations

import sys

import pytest

from recovery.runtime.holder import holder_of, local_port
from tests.servers import RedisServer, free_port, redis_binary


def test_whoever_listens_is_found_by_its_program(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        pid = client.info("server")["process_id"]

    assert holder_of(redis_server.port, redis_binary()) == pid


def test_another_program_on_that_port_is_nobodys_business(redis_server: RedisServer) -> None:
    assert holder_of(redis_server.port, sys.executable) is None
    assert holder_of(redis_server.port, "no-such-program") is None


def test_nobody_listens_on_a_free_port() -> None:
    assert holder_of(free_port(), redis_binary()) is None


@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("redis://127.0.0.1:6380/0", 6380),
        ("http://localhost:8000", 8000),
        ("http://[::1]:8000", 8000),
        ("redis://db.example.com:6379", None),
        ("unix:///run/redis.sock", None),
        ("redis://127.0.0.1", None),
    ],
)
def test_a_port_is_looked_at_only_where_the_url_names_this_host(url: str, port: int | None) -> None:
    assert local_port(url) == port
