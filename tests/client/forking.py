"""Applications that fork after they adopted the helper: ``forking servers|storm TARGET_URL``."""

from __future__ import annotations

import json
import os
import sys
import threading

import redis

import recovery.client

CHILDREN = 200


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
    say(listeners=names.count("recovery-client"), may=recovery.client.may_use("persistent_storage"))


def servers(client: redis.Redis) -> None:
    client.ping()
    child = os.fork()
    serve(client)
    if child:
        os.waitpid(child, 0)


def storm(client: redis.Redis) -> None:
    """Fork again and again while notices come in: no child may meet a lock that nobody opens."""
    say(ready=True)
    for _ in range(CHILDREN):
        client.ping()
        child = os.fork()
        if not child:
            client.set("key", "value")
            os._exit(0 if recovery.client.may_use("anything") else 1)
        _, status = os.waitpid(child, 0)
        if status:
            say(status=status)
    say(done=True)


def main() -> None:
    kind, url = sys.argv[1:]
    client = redis.Redis.from_url(url)
    recovery.client.protect(client, target="redis/cache", jitter=0)
    assert recovery.client.start(wait=20)
    (servers if kind == "servers" else storm)(client)


if __name__ == "__main__":
    main()
