"""Every way to break a ChromaDB that we know: is it found, as what, and in which time.

The baseline is what people probe with today, the server's own heartbeat after a restart on the
damaged directory: it finds only what keeps the server from starting, or ends it by itself.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from bench import report, servers
from recovery.components.chromadb.probe import light, probe
from recovery.components.chromadb.target import ChromaTarget
from tests.chroma import COUNT, DAMAGES, ChromaDirectory, Damage, ServedChroma, noise

SECONDS = 20.0
SERVED_SECONDS = 5.0
"""What one probe may take in a recovery: a server that hangs costs all of it."""
PATIENCE = 5.0
"""How long a server may take to start before its heartbeat counts as gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One damage; times in seconds."""

    damage: str
    expected: str
    found: str | None
    took: float
    glanced: str | None
    glance: float
    heartbeat: bool

    @property
    def is_detected(self) -> bool:
        return self.found == self.expected

    def line(self) -> str:
        return (
            f"{self.damage:34} {self.found or 'nothing':19} {self.took:6.2f}"
            f"  {self.glanced or '-':19} {self.glance * 1000:6.1f}"
            f"  {'fine' if self.heartbeat else 'gone'}"
        )


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    with servers.folder() as where:
        template = ChromaDirectory.build(where / "template")
        print(f"{COUNT} records; healthy: {measure_healthy(template)}")
        print(
            f"{'damage':34} {'the probe finds':19} {'s':>6}"
            f"  {'a glance finds':19} {'ms':>6}  heartbeat after restart"
        )
        rows = []
        for number, broken in enumerate((*DAMAGES, *SERVED)):
            directory = template.copy(where / str(number) / "chroma")
            is_at_rest = isinstance(broken, Damage)
            rows.append((measure if is_at_rest else measure_served)(broken, directory))
            print(rows[-1].line(), flush=True)
            shutil.rmtree(where / str(number))
    detected = sum(row.is_detected for row in rows)
    report.finish(
        "chromadb_damage",
        n=len(rows),
        unit="damages found",
        ours={
            "detected": detected,
            "glanced": sum(row.glanced is not None for row in rows),
            "seconds": report.summary([row.took for row in rows]),
        },
        baseline={"all": len(rows), "heartbeat": sum(not row.heartbeat for row in rows)},
        ratio=round(detected / len(rows), 3),
        limit=1.0,
        ok=detected == len(rows),
    )


@dataclass(frozen=True, slots=True)
class ServedDamage:
    """One way to break a server that runs; lasts as long as its context."""

    name: str
    failure_type: str
    inflict: Callable[[ServedChroma], AbstractContextManager[object]]


@contextmanager
def stopped(server: ServedChroma) -> Iterator[None]:
    server.send_signal(signal.SIGSTOP)
    yield
    server.send_signal(signal.SIGCONT)


SERVED = (
    ServedDamage("server killed", "connection_error", lambda s: nullcontext(s.kill())),
    ServedDamage("server hung", "connection_timeout", stopped),
    ServedDamage("database locked", "temporary_failure", lambda s: s.directory.locked()),
    ServedDamage(
        "index overwritten under a server",
        "index_corrupted",
        lambda s: nullcontext(noise(s.directory.segment / "data_level0.bin")),
    ),
    ServedDamage(
        "database removed under a server",
        "database_missing",
        lambda s: nullcontext(s.directory.database.unlink()),
    ),
)


def target(directory: ChromaDirectory) -> ChromaTarget:
    return ChromaTarget(path=directory.path, collections={"docs": COUNT})


def measure_healthy(directory: ChromaDirectory) -> str:
    began = time.perf_counter()
    found = probe(target(directory), SECONDS)
    took = time.perf_counter() - began
    if not found.healthy:
        raise RuntimeError(f"the undamaged directory is not healthy: {found}")
    return f"{took:.2f} s, {found.summary}"


def measure(damage: Damage, directory: ChromaDirectory) -> Row:
    damage.inflict(directory)
    looked = look(damage, target(directory), SECONDS)
    with started(directory) as server:
        return Row(**looked, heartbeat=server.answers())


def measure_served(damage: ServedDamage, directory: ChromaDirectory) -> Row:
    with started(directory) as server:
        both = target(directory).model_copy(update={"url": server.url})
        if not probe(both, SECONDS).healthy:
            raise RuntimeError("the undamaged server is not healthy")
        with damage.inflict(server):
            looked = look(damage, both, SERVED_SECONDS)
            return Row(**looked, heartbeat=server.answers())


def look(damage: Damage | ServedDamage, broken: ChromaTarget, seconds: float) -> dict[str, Any]:
    began = time.perf_counter()
    glanced = light(broken, seconds)
    between = time.perf_counter()
    found = probe(broken, seconds)
    ended = time.perf_counter()
    return {
        "damage": damage.name,
        "expected": damage.failure_type,
        "found": found.failure_type,
        "took": ended - between,
        "glanced": glanced.failure_type,
        "glance": between - began,
    }


@contextmanager
def started(directory: ChromaDirectory) -> Iterator[ServedChroma]:
    """A server on the directory, given a moment to come up or to give up."""
    directory.path.mkdir(exist_ok=True)
    server = ServedChroma(directory).start(wait=False)
    ends = time.monotonic() + PATIENCE
    while not server.answers() and server.is_running() and time.monotonic() < ends:
        time.sleep(0.05)
    try:
        yield server
    finally:
        server.stop()


if __name__ == "__main__":
    main()
