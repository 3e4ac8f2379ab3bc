"""The folder of the sealed files: their names, the anchor that holds both ends, the lock.

Each file names the one before with its digest. The anchor names the last file, and the last of
those that were removed at the end of their retention, so that nothing can go missing at either end.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import structlog
from pydantic import ValidationError

from recovery.audit import sealed
from recovery.audit.sealed import DRAFT, Header, Kind, Previous
from recovery.errors import AuditDamaged, SetupError
from recovery.strategy import StrictModel

if TYPE_CHECKING:
    from recovery.config import Environment, Policy

ANCHOR = "audit-anchor.json"
LOCK = "audit.lock"
FOLDER = "audit"

_NAME = re.compile(r"audit-(?P<day>\d{4}-\d{2}-\d{2})(\.(?P<number>\d+))?\.jsonl(\.gz)?")

log = structlog.get_logger()


class Link(StrictModel):
    """A file of the chain as the anchor remembers it, whether or not it is still there."""

    file: str
    sha256: str
    number: int
    day: str
    last_n: int

    def as_previous(self) -> Previous:
        return Previous(file=self.file, sha256=self.sha256)


class Anchor(StrictModel):
    """Both ends of the chain: the file before its first, and its last."""

    format: Literal[1] = 1
    host: str
    removed: Link | None = None
    last: Link | None = None

    @property
    def number(self) -> int:
        return self.last.number if self.last else 0

    @property
    def last_n(self) -> int:
        return self.last.last_n if self.last else 0

    def render(self) -> str:
        body = self.model_dump_json()
        return f'{body[:-1]},"sha256":"{hashlib.sha256(body.encode()).hexdigest()}"}}\n'

    @classmethod
    def parse(cls, text: str) -> Anchor | None:
        """None where the text is not exactly what ``render`` wrote."""
        body, _, _ = text.rpartition(',"sha256":"')
        try:
            anchor = cls.model_validate_json(body + "}", strict=True)
        except ValidationError:
            return None
        return anchor if anchor.render() == text else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbered:
    """A file whose header could be read."""

    path: Path
    header: Header

    def as_link(self, sha256: str) -> Link:
        header = self.header
        return Link(
            file=header.file,
            sha256=sha256,
            number=header.number,
            day=header.day,
            last_n=header.last_n,
        )


class Counting:
    """Follows the numbers of entries in the order in which they were written."""

    def __init__(self, last: int) -> None:
        self.last = last

    def follow(self, n: int | None) -> tuple[Kind, str] | None:
        """What the next number says is wrong, if anything. An entry without one says nothing."""
        if n is None:
            return None
        expected, self.last = self.last + 1, n
        if n > expected:
            names = f"{expected}" if n == expected + 1 else f"{expected} to {n - 1}"
            return Kind.GAP, f"the control Redis lost what was number {names}"
        if n < expected:
            text = f"number {n} follows number {expected - 1}: the control Redis lost what it knew"
            return Kind.COUNTED_BACK, text
        return None


def folder_of(policy: Policy, environment: Environment) -> Path:
    """``audit`` beside the policy's ``audit_file`` where that is a path, else in the state folder.

    A relative path starts at the policy file.
    """
    named = policy.audit.audit_file
    if named is None or "/" not in named:
        return environment.state_dir / FOLDER
    return (policy.file.absolute().parent / Path(named).expanduser()).parent / FOLDER


def file_name(day: str, *, compressed: bool, supplement: int | None = None) -> str:
    """``supplement``: its number in the chain, where the day has a file already."""
    which = "" if supplement is None else f".{supplement}"
    return f"audit-{day}{which}.jsonl" + (".gz" if compressed else "")


def paths(folder: Path) -> list[Path]:
    """Every file of the chain by its name, in the order of days; raises ``SetupError``."""
    try:
        found = [(match, path) for path in folder.iterdir() if (match := _match(path))]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise SetupError(f"the audit files cannot be read: {error}") from error
    found.sort(key=lambda pair: (pair[0]["day"], int(pair[0]["number"] or 0)))
    return [path for _, path in found]


def day_of(path: Path) -> str:
    match = _match(path)
    return match["day"] if match else ""


def numbered(folder: Path) -> tuple[list[Numbered], list[AuditDamaged]]:
    """Every file with its header, in the order of the chain, and what is wrong with the others."""
    found, wrong = [], []
    for path in paths(folder):
        try:
            found.append(Numbered(path=path, header=sealed.read_header(path)))
        except AuditDamaged as damage:
            wrong.append(damage)
    found.sort(key=lambda file: file.header.number)
    return found, wrong


def contained(among: Iterable[Path], day: str, lines: Mapping[str, str]) -> set[str]:
    """Which of these lines of a day, by id, stand in whole files.

    A file that is not whole counts for nothing, so that nothing is deleted on its word.
    """
    found: set[str] = set()
    for path in among:
        if day_of(path) != day:
            continue
        here = set()
        try:
            for line, entry in sealed.read(path):
                if lines.get(entry.id) == line:
                    here.add(entry.id)
        except AuditDamaged as damage:
            log.warning("damaged audit file", file=path.name, error=str(damage))
            continue
        except FileNotFoundError:
            continue
        found |= here
    return found


def read_anchor(folder: Path) -> Anchor | None:
    """None where there is none yet; raises ``AuditDamaged`` and ``OSError``."""
    try:
        text = (folder / ANCHOR).read_bytes().decode(errors="replace")
    except FileNotFoundError:
        return None
    anchor = Anchor.parse(text)
    if anchor is None:
        raise sealed.damaged(ANCHOR, Kind.ALTERED, "it is not what was written")
    return anchor


def find_anchor(folder: Path, host: str, copy: Anchor | None) -> Anchor:
    """The ends of the chain by the folder and by the control Redis's copy, whichever is further.

    A damaged anchor is put aside. A host that takes over without the other's files goes on behind
    them. Raises ``OSError`` and ``SetupError``.
    """
    try:
        own = read_anchor(folder)
    except AuditDamaged as damage:
        log.warning("damaged audit anchor put aside", error=str(damage))
        (folder / ANCHOR).replace(folder / f"{ANCHOR}.damaged")
        own = None
    if own is not None:
        last = copy.last if copy is not None and copy.number > own.number else own.last
        return Anchor(host=host, removed=own.removed, last=last)
    if copy is None:
        return _rebuilt(folder, host)
    goes_on = copy.host != host and not paths(folder)
    return Anchor(host=host, removed=copy.last if goes_on else copy.removed, last=copy.last)


def _rebuilt(folder: Path, host: str) -> Anchor:
    """The ends as the files themselves have them, where nothing else remembers."""
    files, _ = numbered(folder)
    if not files:
        return Anchor(host=host)
    first, last = files[0].header, files[-1]
    removed = None
    if first.previous is not None:
        removed = Link(
            file=first.previous.file,
            sha256=first.previous.sha256,
            number=first.number - 1,
            day=first.day,
            last_n=first.after_n,
        )
    return Anchor(host=host, removed=removed, last=last.as_link(sealed.digest_of_file(last.path)))


def write_anchor(folder: Path, anchor: Anchor) -> None:
    """Replace it in one step that survives a crash; raises ``OSError``."""
    draft = folder / f"{ANCHOR}{DRAFT}"
    try:
        with draft.open("w") as sink:
            sink.write(anchor.render())
            sink.flush()
            os.fsync(sink.fileno())
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    put_in_place(draft, folder / ANCHOR)


def pending(folder: Path, last: Link | None) -> Path | None:
    """The draft of the chain's last file, where whoever sealed it died before it was in place."""
    if last is None or (folder / last.file).exists():
        return None
    draft = folder / f"{last.file}{DRAFT}"
    try:
        return draft if sealed.digest_of_file(draft) == last.sha256 else None
    except FileNotFoundError:
        return None


def put_in_place(draft: Path, path: Path) -> None:
    draft.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def exclusive(folder: Path) -> Iterator[bool]:
    """Hold the folder for writing; yields False where another process has it.

    The system lets go of it when its holder dies, however that happens.
    """
    with (folder / LOCK).open("ab") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


@contextmanager
def shared(folder: Path) -> Iterator[None]:
    """Keep sealing out while the folder is proved; a copy without the lock's file needs none.

    Raises ``OSError``.
    """
    try:
        handle: Any = (folder / LOCK).open("rb")
    except FileNotFoundError:
        yield
        return
    with handle:
        fcntl.flock(handle, fcntl.LOCK_SH)
        yield


def _match(path: Path) -> re.Match[str] | None:
    return _NAME.fullmatch(path.name)
