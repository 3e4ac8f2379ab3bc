"""Messages that nobody of us sent: the worker survives each and takes the next event."""

from __future__ import annotations

import base64
import json
import pickle
from typing import Any

import pytest

from recovery.events import Result
from tests.fleet import Fleet
from tests.stack import Stack
from tests.waiting import until


def envelope(arguments: Any, **said: Any) -> str:
    """A message as kombu's Redis transport stores it, with what a test wants to be wrong."""
    message = {
        "body": base64.b64encode(json.dumps(arguments).encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": "recovery.recover", "id": "garbage", "argsrepr": "()"},
        "properties": {
            "correlation_id": "garbage",
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "dispatch"},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": "tag",
        },
    }
    return json.dumps({**message, **said})


NOTHING: list[Any] = [[], {}, {}]
PROPERTIES = {"delivery_info": {"exchange": "", "routing_key": "dispatch"}, "delivery_tag": "t"}
GARBAGE = {
    "not json": "hello",
    "bytes": b"\x00\xff\xfe",
    "json that is nested too deep": "[" * 100_000,
    "a number of five thousand digits": "9" * 5000,
    "an empty object": "{}",
    "a list": "[]",
    "null": "null",
    "a number": "7",
    "no properties": json.dumps({"body": "", "headers": {}}),
    "no delivery tag": envelope(NOTHING, properties={"delivery_info": {}}),
    "no headers": envelope(NOTHING, headers={}),
    "headers of a wrong type": envelope(NOTHING, headers="x"),
    "a pickle": envelope(
        NOTHING,
        body=base64.b64encode(pickle.dumps(NOTHING)).decode(),
        **{"content-type": "application/x-python-serialize", "content-encoding": "binary"},
    ),
    "broken base64": envelope(
        NOTHING, body="%%%", properties={**PROPERTIES, "body_encoding": "base64"}
    ),
    "an unknown encoding": envelope(NOTHING, **{"content-encoding": "klingon"}),
    "no content type": envelope(NOTHING, **{"content-type": None}),
    "a body that is no json": envelope(
        NOTHING, body="eyJh", properties={**PROPERTIES, "body_encoding": "base64"}
    ),
    "an unknown compression": envelope(NOTHING, headers={"compression": "application/x-klingon"}),
    "a body of five megabytes": envelope([[], {"component": "x" * 5_000_000}, {}]),
    "an unknown task": envelope(
        NOTHING, headers={"lang": "py", "task": "os.system", "id": "x", "argsrepr": "()"}
    ),
    "a body that is no call": envelope({"component": "redis"}),
    "a body nested too deep": envelope(NOTHING, body="[" * 100_000, properties=PROPERTIES),
    "positional arguments": envelope([["redis", "connection_error"], {}, {}]),
    "arguments of wrong types": envelope([[], {"component": ["redis"], "context": 7}, {}]),
    "an id of a wrong type": envelope(
        NOTHING, headers={"lang": "py", "task": "recovery.recover", "id": {"a": 1}}
    ),
    "an eta that is no time": envelope(
        NOTHING, headers={"lang": "py", "task": "recovery.recover", "id": "x", "eta": "soon"}
    ),
}


@pytest.mark.slow
def test_a_worker_survives_whatever_lies_in_its_queue(stack: Stack, fleet: Fleet) -> None:
    worker = fleet.start(concurrency=1)
    for name, garbage in GARBAGE.items():
        stack.control.redis.lpush("dispatch", garbage)
        taken = until(
            lambda: stack.control.redis.llen("dispatch") == 0 or worker.process.poll() is not None,
            what=f"{name} is taken",
        )
        assert taken
        assert worker.process.poll() is None, f"{name}: {worker.log.read_text()[-2000:]}"

    stack.exhaust_clients()
    record = stack.concluded(stack.trigger("connection_error"))

    assert record.outcome is not None
    assert record.outcome.result is Result.RECOVERED, fleet.logs()
