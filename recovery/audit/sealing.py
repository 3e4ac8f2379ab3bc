"""Moving closed days from the control Redis into sealed files.

Killed anywhere, an entry stands in the stream, in a whole file, or in both. Only what has just been
read from a whole file in its place is deleted from the stream, so a second run puts right whatever
the first one left.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from recovery.audit import chain, sealed
from recovery.audit.chain import Anchor, Counting, Link
from recovery.audit.entries import as_line, read_entry
from recovery.audit.ownership import Turn, find_owner, known_anchor
from recovery.audit.retention import retire
from recovery.audit.sealed import DRAFT, Header
from recovery.controlplane import reachable
from recovery.errors import AuditDamaged, AuditNotSealed

if TYPE_CHECKING:
    from recovery.config.model import AuditSection
    from recovery.controlplane import ControlPlane

MOST_ENTRIES = 10_000
"""Entries of one file, which are held in memory while it is written; a fuller day gets several."""

SECONDS = 10.0
"""After so long a run ends behind the file that it is at, so that nothing else waits for it."""

AUDIT_GAP = "audit_gap"

QUIET_SECONDS = 86_400
"""A person is told of the same trouble once in so long."""

_MOST_TOLD = 5
_PAGE = 500

log = structlog.get_logger()

Batch = dict[str, str]
"""Entries of one day in the order of the stream: id → line."""


class Sealing(StrEnum):
    DONE = "done"
    ELSEWHERE = "elsewhere"
    BUSY = "busy"


@dataclass(slots=True, kw_only=True)
class Report:
    """What one run did. ``elsewhere``: the files belong to ``owner``; ``busy``: somebody is at it.

    ``lost`` says which numbers were never there to be sealed, one sentence each. ``more``: the run
    ended for its time, and another one should follow.
    """

    sealing: Sealing
    owner: str
    must_be_asked: bool = False
    files: list[str] = field(default_factory=list)
    moved: int = 0
    removed: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    more: bool = False

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def seal(
    control: ControlPlane,
    folder: Path,
    settings: AuditSection,
    host: str,
    *,
    take_over: bool = False,
    seconds: float = SECONDS,
) -> Report:
    """Seal every closed day and remove what is past its retention.

    Raises ``ControlPlaneUnavailable``, and ``AuditNotSealed`` where the disk does not do its part;
    that is logged and told to a person, and whatever is not sealed stays in the stream.
    """
    owner = find_owner(control, host, takeover_seconds=settings.takeover_after, take_over=take_over)
    if owner.host != host:
        return Report(
            sealing=Sealing.ELSEWHERE, owner=owner.host, must_be_asked=owner.must_be_asked
        )
    report = Report(sealing=Sealing.DONE, owner=host)
    try:
        _seal_here(control, folder, settings, report, seconds)
    except OSError as error:
        failure = AuditNotSealed(f"the audit trail cannot be written to {folder}: {error}")
        _tell(control, failure.code, host, failure.message)
        raise failure from error
    except AuditNotSealed as failure:
        _tell(control, failure.code, host, failure.message)
        raise
    if report.sealing is Sealing.DONE:
        with reachable():
            control.redis.delete(control.key("told", AuditNotSealed.code))
    return report


def _seal_here(
    control: ControlPlane, folder: Path, settings: AuditSection, report: Report, seconds: float
) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    turn = Turn(control, report.owner)
    with chain.exclusive(folder) as is_ours:
        if not is_ours or not turn.begin():
            report.sealing = Sealing.BUSY
            return
        _Run(control, folder, settings, turn, report).run(seconds)
        turn.end()


class _Run:
    """One run of the one process that may seal."""

    def __init__(
        self,
        control: ControlPlane,
        folder: Path,
        settings: AuditSection,
        turn: Turn,
        report: Report,
    ) -> None:
        self.control = control
        self.folder = folder
        self.settings = settings
        self.turn = turn
        self.report = report
        self.anchor = Anchor(host=turn.host)

    def run(self, seconds: float) -> None:
        ends = time.monotonic() + seconds
        self._resume()
        self._retire()
        while batch := self._next_batch():
            if time.monotonic() > ends:
                self.report.more = True
                return
            self._seal(*batch)
        self._retire()

    def _resume(self) -> None:
        """Find the ends of the chain, and finish what a killed run had begun."""
        copy = known_anchor(self.control)
        self.anchor = chain.find_anchor(self.folder, self.turn.host, copy)
        draft = chain.pending(self.folder, self.anchor.last)
        if draft is not None and self.anchor.last is not None:
            self.turn.hold()
            chain.put_in_place(draft, self.folder / self.anchor.last.file)
        for left in self.folder.glob(f"audit-*{DRAFT}"):
            left.unlink()
        if chain.read_anchor(self.folder) != self.anchor:
            chain.write_anchor(self.folder, self.anchor)
        self.turn.hold(self.anchor)

    def _retire(self) -> None:
        for anchor in retire(
            self.folder, self.anchor, self.settings.retention_days, self._now(), self.turn.hold
        ):
            self.anchor = anchor
            if anchor.removed is not None:
                self.report.removed.append(anchor.removed.file)

    def _next_batch(self) -> tuple[str, Batch, list[int | None]] | None:
        """The first entries of the stream, as far as they are of one closed day.

        What is dated after tomorrow was written by a clock that ran ahead: its day is closed too.
        """
        now = self._now().date()
        today, tomorrow = now.isoformat(), (now + timedelta(days=1)).isoformat()
        day, batch, numbers, first = "", Batch(), list[int | None](), "-"
        while True:
            with reachable():
                page = self.control.redis.xrange(self.control.key("audit"), first, "+", count=_PAGE)
            for entry_id, stored in page:
                entry = read_entry(entry_id, stored)
                day = day or entry.day
                is_closed = entry.day < today or entry.day > tomorrow
                if not is_closed or entry.day != day or len(batch) == MOST_ENTRIES:
                    return (day, batch, numbers) if batch else None
                batch[entry_id] = as_line(entry_id, stored)
                numbers.append(entry.n)
            if len(page) < _PAGE:
                return (day, batch, numbers) if batch else None
            first = f"({page[-1][0]}"

    def _seal(self, day: str, batch: Batch, numbers: list[int | None]) -> None:
        """Write one file and delete from the stream what has been read back from it."""
        doubles = chain.contained(chain.paths(self.folder), day, batch)
        if doubles:
            self._delete(doubles)
            return
        counting = Counting(self.anchor.last_n)
        lost = [what for n in numbers if (what := counting.follow(n))]
        header = self._header(day, batch, counting.last)
        draft = self.folder / f"{header.file}{DRAFT}"
        link = self._write(draft, header, batch)
        self.turn.hold()
        self.anchor = self.anchor.model_copy(update={"last": link})
        chain.write_anchor(self.folder, self.anchor)
        chain.put_in_place(draft, self.folder / link.file)
        self.turn.hold(self.anchor)
        self.report.files.append(link.file)
        self._tell_lost(link.file, [text for _, text in lost])
        read_back = chain.contained([self.folder / link.file], day, batch)
        if len(read_back) < len(batch):
            raise AuditNotSealed(
                f"{link.file} does not read back as it was written: the disk is not to be trusted"
            )
        self._delete(read_back)
        log.info("audit sealed", file=link.file, entries=len(batch))

    def _header(self, day: str, batch: Batch, last_n: int) -> Header:
        number = self.anchor.number + 1
        ids = list(batch)
        return Header(
            file=self._file_name(day, number),
            number=number,
            day=day,
            host=self.turn.host,
            sealed_at=self._now().isoformat(timespec="milliseconds"),
            count=len(batch),
            first_id=ids[0],
            last_id=ids[-1],
            after_n=self.anchor.last_n,
            last_n=last_n,
            previous=self.anchor.last.as_previous() if self.anchor.last else None,
            entries_sha256=sealed.digest_of_entries(batch.values()),
        )

    def _file_name(self, day: str, number: int) -> str:
        """The day's own name, once; what arrives for that day later goes into a supplement."""
        compressed = self.settings.compression_enabled
        removed = self.anchor.removed
        is_taken = any(chain.day_of(path) == day for path in chain.paths(self.folder))
        if is_taken or (removed is not None and day <= removed.day):
            return chain.file_name(day, compressed=compressed, supplement=number)
        return chain.file_name(day, compressed=compressed)

    def _write(self, draft: Path, header: Header, batch: Batch) -> Link:
        try:
            sealed.write(draft, header, batch.values())
        except OSError:
            draft.unlink(missing_ok=True)
            raise
        try:
            for _ in sealed.read(draft):
                pass
        except AuditDamaged as damage:
            raise AuditNotSealed(f"it does not read back as it was written: {damage}") from damage
        written = chain.Numbered(path=draft, header=header)
        return written.as_link(sealed.digest_of_file(draft))

    def _delete(self, ids: set[str]) -> None:
        self.turn.hold()
        chosen = sorted(ids)
        for start in range(0, len(chosen), _PAGE):
            with reachable():
                self.report.moved += self.control.redis.xdel(
                    self.control.key("audit"), *chosen[start : start + _PAGE]
                )

    def _tell_lost(self, file: str, lost: list[str]) -> None:
        if not lost:
            return
        self.report.lost += lost
        some = "; ".join(lost[:_MOST_TOLD])
        _tell(self.control, AUDIT_GAP, self.turn.host, f"before {file}: {some}")

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.control.now_ms() / 1000, UTC)


def _tell(control: ControlPlane, kind: str, host: str, why: str) -> None:
    """Call a person through the outbox, and log it: on a full disk the log may be full, too."""
    alert = {"kind": kind, "target": f"audit/{host}", "host": host, "why": why}
    matter = f"{kind} {why}" if kind == AUDIT_GAP else kind
    control.run("tell", json.dumps(alert), matter, QUIET_SECONDS)
    log.error(kind, host=host, why=why)
