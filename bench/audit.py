"""A month of audit entries at three recoveries an hour: bytes an entry, plain and compressed.

Beside it stands what the playbook claims: 500 bytes an entry, 1 MB a month, 100 KB compressed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import redis

from bench import report, servers

PER_DAY = 72
CLAIMED_ENTRY = 500
CLAIMED_PLAIN = 1_000_000
CLAIMED_COMPRESSED = 100_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    with servers.folder() as where, servers.redis_server(where) as url:
        os.environ["RECOVERY_CONFIG"] = str(servers.write_policy(where, url))
        entries = month(url, chosen.days, random.Random(chosen.seed))
        plain, _ = sealed(url, where / "plain", entries, compressed=False)
        compressed, seconds = sealed(url, where / "compressed", entries, compressed=True)
    n = len(entries)
    sizes = [len(text.encode()) for _, text in entries]
    month_of = 30 / chosen.days
    ours = {
        "entry": round(sum(sizes) / n),
        "largest": max(sizes),
        "plain": round(plain * month_of),
        "compressed": round(compressed * month_of),
    }
    claimed = {
        "entry": CLAIMED_ENTRY,
        "largest": CLAIMED_ENTRY,
        "plain": CLAIMED_PLAIN,
        "compressed": CLAIMED_COMPRESSED,
    }
    for name, value in ours.items():
        print(f"{name:<12} {value:>9} bytes   playbook {claimed[name]:>9}")
    print(f"{n} entries of {chosen.days} days sealed and verified in {seconds:.2f} s")
    report.finish(
        "audit",
        n=n,
        unit="bytes a month",
        ours=ours,
        baseline=claimed,
        ratio={name: round(value / claimed[name], 2) for name, value in ours.items()},
        limit={"largest": CLAIMED_ENTRY},
        ok=ours["largest"] <= CLAIMED_ENTRY,
    )


def month(url: str, days: int, dice: random.Random) -> list[tuple[str, str]]:
    """Entries as the script writes them, with what a probe of this real server reads."""
    from recovery.audit import compose
    from recovery.components.redis.probe import probe
    from recovery.components.redis.target import RedisTarget

    figures = dict(probe(RedisTarget(url=url), 2.0).figures)
    began = datetime.now(UTC) - timedelta(days=days + 1)
    entries = []
    for number in range(days * PER_DAY):
        at = began + timedelta(minutes=20 * number + dice.uniform(0, 15))
        record, outcome = recovery(number, figures, dice)
        text = compose(record, outcome)[:-1] + f',"level":1,"n":{number + 1}}}'
        entries.append((f"{int(at.timestamp() * 1000)}-0", text))
    return entries


def recovery(number: int, figures: dict[str, Any], dice: random.Random) -> tuple[Any, Any]:
    """One concluded recovery of one of six servers: seven in eight times the remedy helped."""
    from recovery.events import FailureEvent, Outcome, Result, Source, TargetRef
    from recovery.records import Recovery, State

    failure = dice.choice(["clients_exhausted", "high_latency", "connection_timeout"])
    failed = dice.random() < 0.125
    identity = str(UUID(int=dice.getrandbits(128), version=4))
    event = FailureEvent(
        id=identity,
        target=TargetRef("redis", f"cache-{dice.randrange(6)}"),
        failure_type=failure,
        source=Source.PROBE,
    )
    record = Recovery(
        id=identity,
        event=event,
        strategy="reconnect",
        state=State.RUNNING,
        holder=f"web-{dice.randrange(3)}:{2000 + number % 7}",
    )
    outcome = Outcome(
        result=Result.FAILED if failed else Result.RECOVERED,
        error="still_unhealthy" if failed else None,
        detail=f"the probe still finds {failure}" if failed else "",
        before=read(failure, figures, dice),
        after=read(failure if failed else None, figures, dice),
        attempts=dice.randint(1, 4),
        duration=dice.uniform(0.05, 5),
    )
    return record, outcome


def read(failure: str | None, figures: dict[str, Any], dice: random.Random) -> Any:
    """What a probe reports; it has no figures where the server does not let it in."""
    from recovery.events import ProbeReport

    if failure not in (None, "high_latency"):
        return ProbeReport(healthy=False, failure_type=failure)
    clients = dice.randrange(2000, 8000)
    moving = {
        "latency_ms": round(dice.lognormvariate(-1, 1), 3),
        "clients": clients,
        "clients_percent": round(clients / 100, 1),
        "memory_mb": round(dice.uniform(500, 1500), 1),
        "rejected": dice.randrange(500),
        "uptime_s": dice.randrange(2_600_000),
    }
    return ProbeReport(healthy=failure is None, failure_type=failure, figures={**figures, **moving})


def sealed(
    url: str, folder: Path, entries: list[tuple[str, str]], *, compressed: bool
) -> tuple[int, float]:
    """Bytes on disk, anchor included, and seconds for sealing and verifying."""
    from recovery import audit
    from recovery.config.model import AuditSection
    from recovery.controlplane import ControlPlane

    client = redis.Redis.from_url(url, decode_responses=True)
    client.flushdb()
    control = ControlPlane(client)
    with client.pipeline(transaction=False) as pipe:
        for entry_id, text in entries:
            pipe.xadd(control.key("audit"), {"entry": text}, id=entry_id)
        pipe.set(control.key("audit", "n"), len(entries))
        pipe.execute()
    settings = AuditSection(retention_days=3650, compression_enabled=compressed)
    began = time.perf_counter()
    while audit.seal(control, folder, settings, "bench").more:
        pass
    verdict = audit.verify(folder, control)
    seconds = time.perf_counter() - began
    if verdict.findings or verdict.entries != len(entries):
        raise RuntimeError(f"the trail is not whole: {json.dumps(verdict.as_dict())[:500]}")
    return sum(path.stat().st_size for path in folder.iterdir()), seconds


if __name__ == "__main__":
    main()
