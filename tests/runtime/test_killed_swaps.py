"""Replacements killed with SIGKILL at every moment: the next run has one container that serves."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from recovery.components.redis.restart_container import discard
from recovery.runtime import names
from tests.containers import FAST, RedisContainer, configuration, put_back, restart
from tests.journals import MemoryJournal
from tests.runtime import swapping
from tests.waiting import until

pytestmark = [pytest.mark.docker, pytest.mark.kill, pytest.mark.slow]

KILLS = 2
"""In each round the first run is killed, and so is the one that resumes it."""

FORWARD = (
    "made",
    "stopped",
    "kept from restarting",
    "renamed to {name}.recovery",
    "renamed to {name}",
    " started",
)
BACK = (
    "the new container stopped",
    "the new container is",
    "the new container kept",
    "has its restart policy again",
    "is {name} again",
    " started again",
)


def serving(container: RedisContainer) -> None:
    """One container runs, it has the name, its policy and its data."""
    running = [name for name, state in container.family().items() if state == "running"]
    assert running == [container.name]
    until(container.answers)
    assert container.is_filled()
    policy = container.document()["HostConfig"]["RestartPolicy"]
    assert container.inspect()["HostConfig"]["RestartPolicy"] == policy


def nothing_lost(container: RedisContainer, old: str) -> None:
    """What holds at whatever moment a run is killed."""
    family = container.family()
    assert old in {container.inspect(name)["Id"] for name in family}
    assert sum(state == "running" for state in family.values()) <= 1


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("run", "steps", "rounds"),
    [(swapping.succeed, FORWARD, 25), (swapping.fail, (*FORWARD, *BACK), 10)],
    ids=["forward", "back"],
)
def test_whenever_it_is_killed_the_next_run_has_one_serving_container(
    redis_container: RedisContainer,
    tmp_path: Path,
    run: swapping.Run,
    steps: tuple[str, ...],
    rounds: int,
) -> None:
    container = redis_container
    before = configuration(container.inspect())
    longest = swapping.start(run, container.target, MemoryJournal(tmp_path)).seconds()
    discard(container.target, FAST, MemoryJournal(tmp_path).keep())
    seen = set()

    for number in range(rounds):
        journal = MemoryJournal(tmp_path, recovery_id=str(number))
        old = container.inspect()["Id"]
        for _ in range(KILLS):
            # Most of the time goes into few steps; the moments between the others are short.
            step = random.choice(["", *steps]).format(name=container.name)
            killed = swapping.start(run, container.target, journal, step=step)
            killed.kill_after(longest * random.random() ** 4)
            nothing_lost(container, old)
            seen.add(shape(container))
        journal.begin(15)
        restart(container.target, journal)
        serving(container)
        discard(container.target, FAST, journal.keep())

    assert configuration(container.inspect()) == before
    assert list(container.family()) == [container.name]
    assert len(seen) > 2, seen


def shape(container: RedisContainer) -> tuple[str, ...]:
    """Which containers there are and how they are, whatever their names hold of the recovery."""
    found = []
    for name, state in container.family().items():
        parts = names.split(name)
        found.append(f"{'new' if parts.is_copy else 'aside' if parts.short else 'named'} {state}")
    return tuple(sorted(found))


def die_after(
    step: str, run: swapping.Run, container: RedisContainer, journal: MemoryJournal
) -> None:
    journal.after(step.format(name=container.name), swapping.die)
    swapping.start(run, container.target, journal).dies()


FORWARD_OR_BACK = [
    *((swapping.succeed, step) for step in FORWARD),
    # Right after the new one lost its restart policy nobody but the same recovery knows it.
    *((swapping.fail, step) for step in BACK if step != "the new container kept"),
]


@pytest.mark.parametrize(("run", "step"), FORWARD_OR_BACK)
def test_another_recovery_takes_over_what_a_dead_one_left(
    redis_container: RedisContainer, tmp_path: Path, run: swapping.Run, step: str
) -> None:
    before = configuration(redis_container.inspect())
    die_after(step, run, redis_container, MemoryJournal(tmp_path, recovery_id="dead"))

    restart(redis_container.target, MemoryJournal(tmp_path, recovery_id="next"))

    serving(redis_container)
    assert configuration(redis_container.inspect()) == before


@pytest.mark.parametrize("step", FORWARD)
def test_what_a_dead_recovery_left_can_be_undone(
    redis_container: RedisContainer, tmp_path: Path, step: str
) -> None:
    before = redis_container.inspect()
    die_after(step, swapping.succeed, redis_container, MemoryJournal(tmp_path, recovery_id="dead"))

    put_back(redis_container.target, MemoryJournal(tmp_path, recovery_id="dead"))

    serving(redis_container)
    assert redis_container.inspect()["Id"] == before["Id"]
