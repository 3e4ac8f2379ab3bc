"""How much of a server's time a flush takes, and in which portions it looks."""

from __future__ import annotations

import time

import pytest

from recovery.components.redis.pace import Pace
from tests.components.redis.flushing import NO_TTL, Surgery
from tests.components.redis.test_flush_corrupted import fill


def spin(seconds: float) -> None:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        continue


@pytest.mark.parametrize("share", [1.0, 0.5, 0.2])
def test_the_server_rests_for_the_rest_of_its_time(share: float) -> None:
    pace = Pace(share)
    began = time.monotonic()

    for _ in range(10):
        pace.call(spin, 0.01)

    # Only a lower bound: a loaded machine may take as long as it likes.
    assert time.monotonic() - began >= 0.9 * 10 * 0.01 / share


def test_a_smaller_portion_is_asked_for_more_often(patient: Surgery) -> None:
    calls = []
    for count in (1000, 50):
        client = patient.client()
        fill(client)
        client.config_resetstat()
        patient.flush(NO_TTL, run=f"portions-of-{count}", scan_count=count)
        calls.append(client.info("commandstats")["cmdstat_scan"]["calls"])

    assert calls[1] > 5 * calls[0]
