"""Proving the trail: every file against its header, the next file and the anchor; every number.

What cannot be proved is a finding. Nothing is changed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recovery.audit import chain, sealed
from recovery.audit.chain import ANCHOR, Anchor, Counting, Link, Numbered
from recovery.audit.entries import read_entry
from recovery.audit.ownership import known_anchor
from recovery.audit.reading import read_page, without_doubles
from recovery.audit.sealed import Kind, Previous
from recovery.controlplane import reachable
from recovery.errors import AuditDamaged, SetupError

if TYPE_CHECKING:
    from recovery.controlplane import ControlPlane


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong, in a file or, where ``file`` is None, in the stream."""

    kind: Kind
    file: str | None
    detail: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(slots=True, kw_only=True)
class Verdict:
    """What was read, and all that is wrong with it. ``waiting`` counts entries of the stream."""

    files: int = 0
    entries: int = 0
    waiting: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        return not self.findings

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "ok": self.is_whole}


def verify(folder: Path, control: ControlPlane | None = None) -> Verdict:
    """Prove the files of a folder and, with a control plane, that they and the stream are all.

    Raises ``ControlPlaneUnavailable``, and ``SetupError`` where the files cannot be read.
    """
    proof = _Proof(folder)
    try:
        with chain.shared(folder):
            copy = known_anchor(control) if control else None
            last_n = proof.prove_files(copy)
            if control is not None:
                proof.prove_stream(control, last_n)
    except OSError as error:
        raise SetupError(f"the audit files cannot be read: {error}") from error
    return proof.verdict


class _Proof:
    """Walks along the chain and collects what it finds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.verdict = Verdict()
        self.unreadable: set[str] = set()

    def prove_files(self, copy: Anchor | None) -> int:
        """Prove the files and the anchor; returns the number of the last entry that is sealed."""
        files, wrong = chain.numbered(self.folder)
        self.unreadable = {str(damage.facts["file"]) for damage in wrong}
        for damage in wrong:
            self._find_damage(damage)
        self.verdict.files = len(files) + len(wrong)
        anchor = self._anchor(copy)
        last = self._walk(files, anchor.removed if anchor else None)
        if anchor is not None and chain.pending(self.folder, anchor.last) is not None:
            return last.last_n if last else 0
        ends = [link for link in (last, anchor and anchor.last, copy and copy.last) if link]
        for end in ends:
            self._prove_end(last, end)
        return max(ends, key=lambda link: link.number).last_n if ends else 0

    def prove_stream(self, control: ControlPlane, last_n: int) -> None:
        """Every number up to the one that was given last must stand in a file or here."""
        with reachable():
            given = int(control.redis.get(control.key("audit", "n")) or 0)
        counting, files = Counting(last_n), chain.paths(self.folder)
        first: str | None = "-"
        while first is not None:
            page, first = read_page(control, first)
            for entry_id, stored in without_doubles(files, page):
                self.verdict.waiting += 1
                self._follow(counting, read_entry(entry_id, stored).n, None)
        if counting.last < given:
            self._follow(counting, given + 1, None)
        elif given < last_n and not self.verdict.waiting:
            text = f"number {last_n} is sealed, and the control Redis has counted to {given} only"
            self._find(Kind.COUNTED_BACK, None, text)

    def _anchor(self, copy: Anchor | None) -> Anchor | None:
        """The folder's own, else the control Redis's copy."""
        try:
            anchor = chain.read_anchor(self.folder)
        except AuditDamaged as damage:
            self._find_damage(damage)
            return copy
        if anchor is None and (self.verdict.files or copy is not None):
            self._find(Kind.MISSING_FILE, ANCHOR, "it holds the ends of the chain")
        return anchor or copy

    def _walk(self, files: list[Numbered], removed: Link | None) -> Link | None:
        """Prove each file and its place; returns the last.

        Files up to the removed one may be there: a killed run left it, or somebody brought the
        files of the host before. Of those the first is taken as it is.
        """
        is_start = bool(files and removed and files[0].header.number <= removed.number)
        before = None if is_start else removed
        for file in files:
            if not is_start:
                self._prove_place(file, before)
            is_start = False
            self._prove_entries(file)
            before = file.as_link(sealed.digest_of_file(file.path))
            if removed is not None and before.number == removed.number:
                self._prove_digest(before, removed.as_previous(), ANCHOR)
        return before

    def _prove_place(self, file: Numbered, before: Link | None) -> None:
        header, expected = file.header, before.number + 1 if before else 1
        if header.number > expected:
            self._find_missing(expected, header.number - 1, header.previous)
        elif header.number < expected or (before is None) != (header.previous is None):
            text = f"number {header.number} of the chain, where number {expected} belongs"
            self._find(Kind.ALTERED, header.file, text)
        elif before is not None and header.previous is not None:
            self._prove_digest(before, header.previous, header.file)

    def _prove_entries(self, file: Numbered) -> None:
        """What a damaged file lacks was not lost by the control Redis."""
        counting, problems = Counting(file.header.after_n), []
        try:
            for _, entry in sealed.read(file.path):
                self.verdict.entries += 1
                if (problem := counting.follow(entry.n)) is not None:
                    problems.append(problem)
        except AuditDamaged as damage:
            self._find_damage(damage)
            return
        for kind, text in problems:
            self._find(kind, file.header.file, text)

    def _prove_end(self, last: Link | None, end: Link) -> None:
        here = last.number if last else 0
        if end.number > here:
            self._find_missing(here + 1, end.number, end.as_previous())
        elif last is not None and end.number == here:
            self._prove_digest(last, end.as_previous(), "the end of the chain")

    def _prove_digest(self, link: Link, known: Previous, by: str) -> None:
        """A file that is damaged anyway needs no second finding."""
        is_found = any(finding.file == link.file for finding in self.verdict.findings)
        if not is_found and (link.file, link.sha256) != (known.file, known.sha256):
            self._find(Kind.ALTERED, link.file, f"its bytes are not those that {by} knows")

    def _find_missing(self, first: int, last: int, named: Previous | None) -> None:
        """Numbers of the chain that have no file. Of the last of them the name is known."""
        name = named.file if named else ANCHOR
        if name in self.unreadable:
            last -= 1
        elif not (self.folder / name).exists():
            self._find(Kind.MISSING_FILE, name, f"number {last} of the chain")
            last -= 1
        if last >= first:
            numbers = f"{first}" if first == last else f"{first} to {last}"
            self._find(Kind.MISSING_FILE, None, f"number {numbers} of the chain, before {name}")

    def _follow(self, counting: Counting, n: int | None, file: str | None) -> None:
        if (problem := counting.follow(n)) is not None:
            self._find(problem[0], file, problem[1])

    def _find_damage(self, damage: AuditDamaged) -> None:
        facts: Mapping[str, Any] = damage.facts
        text = damage.message.partition(": ")[2]
        self._find(Kind(facts["finding"]), str(facts["file"]), text)

    def _find(self, kind: Kind, file: str | None, detail: str) -> None:
        finding = Finding(kind=kind, file=file, detail=detail)
        if finding not in self.verdict.findings:
            self.verdict.findings.append(finding)
