"""An application under load while real workers repair its full Redis."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from recovery import records
from recovery.events import Result
from tests.client.application import IDLE, NAME, THREADS
from tests.client.conftest import Application
from tests.fleet import Fleet
from tests.stack import Stack
from tests.waiting import until

OF_A_KILLED_CONNECTION = ("Connection closed by server", "reset by peer", "Broken pipe")


def connections(stack: Stack) -> dict[str, int]:
    """The application's connections on the server, id → seconds idle."""
    with stack.target.client() as client:
        listed = client.client_list()
    return {entry["id"]: int(entry["idle"]) for entry in listed if entry["name"] == NAME}


def has_end(leaked: object) -> bool:
    try:
        return leaked.recv(1) == b""  # type: ignore[attr-defined]
    except BlockingIOError:
        return False
    except OSError:
        return True


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["threads", "blocking", "asyncio"])
def test_a_repair_renews_every_connection_and_fails_no_command(
    stack: Stack,
    fleet: Fleet,
    start_application: Callable[..., Application],
    kind: str,
) -> None:
    fleet.start()
    application = start_application(kind, stack.target.url, stack.environ)
    application.goes_on()
    before = until(
        lambda: (
            found
            if len(found := connections(stack)) == THREADS + IDLE
            and sum(idle >= 1 for idle in found.values()) >= IDLE
            else None
        )
    )
    assert before
    stack.exhaust_clients()

    record = stack.concluded(stack.trigger("connection_error"))

    assert record.outcome is not None
    assert record.outcome.result is Result.RECOVERED, fleet.logs()
    assert record.outcome.before is not None
    assert record.outcome.before.failure_type == "clients_exhausted"
    until(lambda: not before.keys() & connections(stack).keys(), what="every connection is new")
    application.goes_on()
    said = application.ask()
    assert said["listeners"] == 1
    assert all(any(text in e for text in OF_A_KILLED_CONNECTION) for e in said["errors"]), said
    assert len(said["errors"]) <= killed_of_application(stack, record.id)


def killed_of_application(stack: Stack, recovery_id: str) -> int:
    """How many connections the server has killed that nobody had leaked."""
    steps = records.steps(stack.control, recovery_id)
    killed = sum(int(step.figures.get("killed") or 0) for step in steps)
    for leaked in stack.leaked:
        leaked.setblocking(False)
    return killed - sum(has_end(leaked) for leaked in stack.leaked)
