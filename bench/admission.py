"""One admission beside one bare no-op EVALSHA; then eight processes hammering one target."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from pathlib import Path
from uuid import uuid4

import redis

from bench import report, servers

LIMIT = 1.5
PROCESSES = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=3000, help="admissions and no-ops, each")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to hammer")
    chosen = parser.parse_args()
    with servers.folder() as where, servers.redis_server(where) as url:
        policy = servers.write_policy(where, url)
        os.environ.update({"RECOVERY_CONFIG": str(policy), "RECOVERY_REDIS_URL": url})
        ours, baseline = single(url, chosen.n)
        admitted, asked = hammer(url, policy, chosen.seconds)
    ratio = round(ours["p50"] / baseline["p50"], 3)
    print(f"no-op EVALSHA   {baseline}")
    print(f"admission       {ours}  ratio p50 {ratio}")
    print(f"{PROCESSES} processes, {chosen.seconds:g} s: {asked} asked, {admitted} admitted")
    report.finish(
        "admission",
        n=chosen.n,
        unit="µs",
        ours={**ours, "admitted_of_3": admitted},
        baseline=baseline,
        ratio=ratio,
        limit=LIMIT,
        ok=ratio <= LIMIT and admitted == 3,
    )


def single(url: str, rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """Microseconds of one admitted event on a clean target, and of a script that does nothing."""
    from recovery.admission import ask
    from recovery.config import current_policy
    from recovery.controlplane import ControlPlane
    from recovery.events import FailureEvent, TargetRef

    client = redis.Redis.from_url(url, decode_responses=True)
    control, policy = ControlPlane(client), current_policy()
    nothing = client.register_script("return 1")
    target = TargetRef("redis")
    ours, baseline = [], []
    for _ in range(rounds):
        event = FailureEvent(id=str(uuid4()), target=target, failure_type="connection_error")
        began = time.perf_counter()
        nothing()
        between = time.perf_counter()
        decision = ask(control, policy, event, "reconnect")
        ended = time.perf_counter()
        if isinstance(decision, str) or not decision.admitted:
            raise RuntimeError(f"a clean target was refused: {decision}")
        baseline.append((between - began) * 1e6)
        ours.append((ended - between) * 1e6)
        client.flushdb()
    return report.summary(ours, 1), report.summary(baseline, 1)


def hammer(url: str, policy: Path, seconds: float) -> tuple[int, int]:
    """How many of all admissions asked for by eight processes were given, and how many were asked.

    Each admitted recovery is ended at once as recovered, so that the lease never shields the limit.
    """
    redis.Redis.from_url(url).flushdb()
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        counts = pool.starmap(_hammer, [(url, str(policy), seconds)] * PROCESSES)
    return sum(admitted for admitted, _ in counts), sum(asked for _, asked in counts)


def _hammer(url: str, policy_file: str, seconds: float) -> tuple[int, int]:
    from recovery import records
    from recovery.admission import ask
    from recovery.conclusion import conclude
    from recovery.config import load_policy
    from recovery.controlplane import ControlPlane
    from recovery.events import Assignment, FailureEvent, Outcome, Result, TargetRef
    from recovery.lease import Lease, claim

    control = ControlPlane(redis.Redis.from_url(url, decode_responses=True))
    policy, target = load_policy(Path(policy_file)), TargetRef("redis")
    admitted = asked = 0
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        event = FailureEvent(id=str(uuid4()), target=target, failure_type="connection_error")
        asked += 1
        decision = ask(control, policy, event, "reconnect")
        if isinstance(decision, str) or not decision.admitted:
            continue
        admitted += 1
        assignment = Assignment(recovery_id=event.id, target=target, strategy="reconnect")
        held = claim(control, assignment, "bench")
        if not isinstance(held, Lease):
            raise TypeError(f"an admitted recovery could not be claimed: {held}")
        outcome = Outcome(result=Result.RECOVERED, attempts=1)
        conclude(control, policy, records.load(control, event.id), outcome, held.fence)
    return admitted, asked


if __name__ == "__main__":
    main()
