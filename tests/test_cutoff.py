"""The end of one request's time, where it meets the next request."""

from __future__ import annotations

import select
import socket
import threading

from recovery.cutoff import shut_after


class Slow(socket.socket):
    """Shutting it takes until the request that it belongs to would be left."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.left = threading.Event(), threading.Event()

    def shutdown(self, how: int) -> None:
        self.entered.set()
        self.left.wait(0.5)


def test_the_end_of_one_request_never_shuts_the_connection_of_the_next() -> None:
    slow = Slow()
    opened: list[socket.socket] = [slow]
    before = set(threading.enumerate())

    with shut_after(0.01, opened):
        assert slow.entered.wait(60)
        (timer,) = set(threading.enumerate()) - before
    of_the_next, peer = socket.socketpair()
    opened.append(of_the_next)
    slow.left.set()
    timer.join(60)

    assert select.select([peer], [], [], 0)[0] == [], "the next request's connection was shut"
    for one in (slow, of_the_next, peer):
        one.close()
