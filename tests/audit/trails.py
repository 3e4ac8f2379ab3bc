"""A trail to seal: a real control Redis, a folder, and entries of days long past."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from recovery import audit
from recovery.config.model import AuditSection
from recovery.controlplane import ControlPlane

FIRST_DAY = datetime(2025, 1, 1, tzinfo=UTC)
KEPT_FOR_YEARS = AuditSection(retention_days=36_500)


@dataclass(slots=True)
class Trail:
    """What one host sees. ``written`` is what must be read again, in the order of writing."""

    control: ControlPlane
    folder: Path
    settings: AuditSection = KEPT_FOR_YEARS
    host: str = "one"
    written: list[tuple[str, str]] = field(default_factory=list)
    minutes: int = 0
    day: int = 0

    def write(self, day: int, count: int = 1, *, late_for: int | None = None) -> None:
        """As the scripts do, but at a chosen time: the ids of a stream only ever grow.

        ``late_for``: entries that say themselves that they belong to an earlier day.
        """
        redis, key = self.control.redis, self.control.key
        for _ in range(count):
            self.minutes += 1
            at = FIRST_DAY + timedelta(days=day, minutes=self.minutes)
            entry = {
                "id": f"r{len(self.written)}",
                "target": f"redis/t{len(self.written) % 3}",
                "result": "recovered",
                "detail": "wörds",
                "n": redis.incr(key("audit", "n")),
            }
            if late_for is not None:
                true = FIRST_DAY + timedelta(days=late_for, minutes=self.minutes)
                entry["at_ms"] = int(true.timestamp() * 1000)
            text = json.dumps(entry, ensure_ascii=False)
            entry_id = redis.xadd(
                key("audit"), {"entry": text}, id=f"{int(at.timestamp() * 1000)}-0"
            )
            self.written.append((entry_id, text))

    def day_after(self, days: int) -> int:
        """A day that many days after the last that was written for."""
        self.day += days
        return self.day

    def seal(self, *, take_over: bool = False) -> audit.Report:
        return audit.seal(self.control, self.folder, self.settings, self.host, take_over=take_over)

    def verify(self) -> audit.Verdict:
        return audit.verify(self.folder, self.control)

    def history(self, since: datetime = FIRST_DAY, **chosen: object) -> list[audit.AuditEntry]:
        return list(audit.history(self.control, since=since, folder=self.folder, **chosen))

    def read(self) -> list[tuple[str, dict[str, object]]]:
        """Every entry there is, by id."""
        return sorted((entry.id, dict(entry.fields)) for entry in self.history())

    def expected(self) -> list[tuple[str, dict[str, object]]]:
        return sorted((entry_id, json.loads(text)) for entry_id, text in self.written)

    def waiting(self) -> int:
        return int(self.control.redis.xlen(self.control.key("audit")))

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("audit-2*"))

    def alerts(self) -> Iterator[dict[str, object]]:
        for _, stored in self.control.redis.xrange(self.control.key("outbox")):
            yield json.loads(stored["alert"])


def lines_of(path: Path) -> list[bytes]:
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).splitlines(keepends=True)


def put_lines(path: Path, lines: list[bytes]) -> None:
    data = b"".join(lines)
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
