"""Applications that fork after they adopted the helper: ``forking servers|during TARGET_URL``."""

from __future__ import annotations

import json
import os
import sys
import threading

import redis

import recovery.client
from recovery import degraded


def say(**said: object) -> None:
    # In one write: parent and child share the pipe.
    os.write(1, (json.dumps({"pid": os.getpid(), **said}) + "\n").encode())


def serve(client: redis.Redis) -> None:
    """Parent and child each: say ready, then say when the connection was renewed."""
    assert recovery.client.start(wait=20)
    first = client.client_id()
    say(ready=True)
    while client.client_id() == first:
        pass
    names = [thread.name for thread in threading.enumerate()]
    say(listeners=names.count("recovery-client"), may=degraded.may_use("persistent_storage"))


def servers(client: redis.Redis) -> None:
    client.ping()
    child = os.fork()
    serve(client)
    if child:
        os.waitpid(child, 0)


class SlowToClose(redis.Connection):
    """Closes slowly, so that there is a moment in the middle of a renewal."""

    closing = threading.Event()

    def disconnect(self, *args: object) -> None:
        self.closing.set()
        threading.Event().wait(0.2)
        super().disconnect(*args)


def during(client: redis.Redis) -> None:
    """Fork in the middle of a renewal, when the pool's lock is held by a thread that stays."""
    client.ping()
    SlowToClose.closing.clear()
    say(ready=True)
    SlowToClose.closing.wait()
    child = os.fork()
    if not child:
        os._exit(0 if client.set("key", "value") else 1)
    _, status = os.waitpid(child, 0)
    say(status=status)


def main() -> None:
    kind, url = sys.argv[1:]
    connections = SlowToClose if kind == "during" else redis.Connection
    client = redis.Redis.from_url(url, connection_class=connections)
    recovery.client.protect(client, target="redis/cache", jitter=0)
    assert recovery.client.start(wait=20)
    (servers if kind == "servers" else during)(client)


if __name__ == "__main__":
    main()
