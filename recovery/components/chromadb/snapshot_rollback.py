"""``chromadb.snapshot_rollback``: the newest verified snapshot in the place of a damaged directory.

The snapshot is unpacked beside the directory and verified while the damaged one still serves. Then
the server is stopped, the two change names in one step, and the server is started and asked. What
goes wrong after the stop is undone. The damaged directory stays beside the new one until its
retention ends.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from recovery.components.chromadb import exclusive, leftovers, swap
from recovery.components.chromadb.database import JOURNALS
from recovery.components.chromadb.findings import Budget
from recovery.components.chromadb.server import ServerProcess
from recovery.components.chromadb.snapshots import contents, staging, taking
from recovery.components.chromadb.snapshots.catalogue import Catalogue, age
from recovery.components.chromadb.snapshots.contents import Contents
from recovery.components.chromadb.snapshots.manifest import Manifest
from recovery.components.chromadb.swap import Swap
from recovery.components.chromadb.target import ChromaTarget
from recovery.deadline import Deadline
from recovery.errors import NoSnapshot, NotCopied, RemedyError, SnapshotDamaged, StillUnhealthy
from recovery.events import Figure
from recovery.finding import find_component
from recovery.strategy import Duration, Journal, Kept, Parameters, Scope, strategy

BUSY_SECONDS = 10.0
"""How long a snapshot that is being taken may hold up a rollback."""
BACK_SECONDS = 60.0
"""What going back may take, whatever time is left."""


class SnapshotRollback(Parameters):
    """``script`` is the playbook's; kept so that its files load, and never run.

    ``stop_grace``: seconds between TERM and KILL for a server that is damaged anyway.
    ``salvage``: carry over what is newer than the snapshot and still readable.
    """

    script: str | None = None
    stop_grace: Duration = 10.0
    salvage: bool = False


class RollbackScope(Scope):
    """``snapshot``: this one, and no other. ``collection``, of an export alone: only this one,
    whatever its state."""

    snapshot: str | None = None
    collection: str | None = None


@strategy(
    component="chromadb",
    summary="Put the newest verified snapshot in place of a damaged directory.",
    parameters=SnapshotRollback,
    scope=RollbackScope,
    destructive=True,
    degrades=True,
    undo="recovery.components.chromadb.rollback_undo:undo",
    discard="recovery.components.chromadb.rollback_undo:discard",
    timeout_seconds=60.0,
)
def snapshot_rollback(target: ChromaTarget, parameters: SnapshotRollback, journal: Journal) -> None:
    """Raises ``NotConfigured``, ``NoSnapshot``, ``SnapshotDamaged`` where none can be used, and
    what stopping, replacing and starting raise; then the directory is the one from before."""
    scope = journal.scope if isinstance(journal.scope, RollbackScope) else RollbackScope()
    if target.path is None:
        # Every worker knows every task; only who runs this one pays for the HTTP client.
        from recovery.components.chromadb.served_rollback import ServedRollback

        catalogue = taking.catalogue_of(target)
        ServedRollback(target, catalogue, parameters, scope, journal).run()
        return
    path, catalogue = taking.settings(target)
    if scope.collection is not None:
        raise RemedyError("a directory goes back whole; a collection is for a target without path")
    with exclusive.alone(path, min(BUSY_SECONDS, journal.remaining())):
        _Rollback(target, path, catalogue, parameters, journal).run()


@dataclass(slots=True)
class _Rollback:
    target: ChromaTarget
    path: Path
    catalogue: Catalogue
    parameters: SnapshotRollback
    journal: Journal
    server: ServerProcess | None = field(init=False, default=None)

    def run(self) -> None:
        if self.target.server is not None:
            self.server = ServerProcess(self.target, self.journal.remaining)
        if self.journal.dry_run:
            self._rehearse()
            return
        kept = self.journal.keep()
        leftovers.settle(self.path)
        chosen = known = None
        if self._aside.is_dir():
            # Only this recovery has put it there: it was killed, or is tried again.
            self.journal.note("taken up again where the new directory has its place")
            begun = Swap.done(self.path, self._staged, self._aside, self.journal.recovery_id)
        else:
            swap.refuse_unless_replaceable(self.path)
            chosen = self._stage()
            known = self._stop()
            self._salvage(chosen)
            begun = self._replace(kept, chosen)
        self._serve(begun)
        self._store(kept, begun)
        begun.end()
        if chosen is not None:
            self.journal.note("rolled back", **_figures(chosen, known))
        self.journal.tell_applications("applications asked to open it anew", "reopen")

    def _candidates(self) -> list[Manifest]:
        scope = self.journal.scope
        name = scope.snapshot if isinstance(scope, RollbackScope) else None
        found = self.catalogue.snapshots() if name is None else [self.catalogue.find(name)]
        found = [one for one in found if not one.is_export]
        if not found:
            faults = [f"{one}: {why}" for one, why in sorted(self.catalogue.damaged().items())]
            known = f"; of no use are {', '.join(faults[:3])}" if faults else ""
            raise NoSnapshot(
                f"{self.catalogue.directory} has no verified snapshot of a directory{known}",
                {"snapshots": []},
            )
        return found

    def _rehearse(self) -> None:
        chosen = self._candidates()[0]
        swap.refuse_unless_replaceable(self.path)
        self.journal.note("would go back to", **_figures(chosen, self._known()))
        for step in ("snapshot unpacked and verified", "server stopped", "directory replaced"):
            self.journal.change(step, lambda: None)

    @property
    def _staged(self) -> Path:
        return swap.beside(self.path, self.journal.recovery_id, "new")

    @property
    def _aside(self) -> Path:
        return swap.beside(self.path, self.journal.recovery_id, "old")

    def _stage(self) -> Manifest:
        """The newest that can be used; the next one where it turns out to be damaged."""
        candidates = self._candidates()
        for number, chosen in enumerate(candidates):
            try:
                self.journal.change(
                    f"snapshot {chosen.name} unpacked beside {self.path} and verified",
                    partial(self._unpack, chosen),
                    mb=round(chosen.bytes / 1e6, 1),
                )
            except SnapshotDamaged as error:
                swap.remove(self._staged)
                if number == len(candidates) - 1:
                    raise
                self.journal.note("passed over", why=error.message)
            except BaseException:
                swap.remove(self._staged)
                raise
            else:
                return chosen
        raise AssertionError("unreachable")

    def _unpack(self, chosen: Manifest) -> None:
        figures = staging.stage(
            self.target,
            chosen,
            self.catalogue,
            path=self.path,
            staged=self._staged,
            remaining=self.journal.remaining,
        )
        self.journal.note("looked at what was unpacked", **figures)

    def _known(self) -> Contents | None:
        """What the damaged database still says of itself."""
        try:
            return contents.read(self.path)
        except (sqlite3.Error, OSError):
            return None

    def _stop(self) -> Contents | None:
        """Stop the server, noted so that whoever comes next starts it."""
        if self.server is not None:
            exclusive.note_stopped(self.path)
            try:
                grace = self.parameters.stop_grace
                self.journal.change("server stopped", lambda: self._stop_server(grace))
            except BaseException:
                self._start_again()
                swap.remove(self._staged)
                raise
        return self._known()

    def _stop_server(self, grace: float) -> None:
        if self.server is not None:
            self.server.stop(grace)

    def _salvage(self, chosen: Manifest) -> None:
        """What cannot be carried over costs nothing but itself."""
        if not self.parameters.salvage or not self.path.is_dir():
            return
        try:
            said = staging.carry_over(self.path, self._staged, self.journal.remaining)
            self.journal.note("carried over what is newer than the snapshot", **said)
        except BaseException as error:
            if not isinstance(error, NotCopied):
                self._back(None)
                raise
            self.journal.note("nothing newer was carried over", why=error.message)
            self._unpack_again(chosen)

    def _unpack_again(self, chosen: Manifest) -> None:
        try:
            self._unpack(chosen)
        except BaseException:
            self._back(None)
            raise

    def _replace(self, kept: Kept, chosen: Manifest) -> Swap:
        begun: Swap | None = None
        try:
            kept.store(
                f"{self.path} from before the rollback to {chosen.name}",
                path=str(self.path),
                aside=str(self._aside),
                lies_beside=[str(self._aside)],
            )
            begun = Swap.begin(self.path, self._staged, self._aside, self.journal.recovery_id)
            self.journal.change(
                f"{self.path} replaced; the one from before is {self._aside}", begun.forward
            )
            _remove_journals(self.path)
        except BaseException:
            self._back(begun)
            raise
        return begun

    def _store(self, kept: Kept, begun: Swap) -> None:
        """What an undo compares with, to see whether anybody wrote since."""
        now = self._known()
        if begun.old is None:
            kept.store(f"nothing: {self.path} was not there before", aside=None)
        else:
            kept.store(f"{self.path} from before the rollback", mark=now.mark if now else None)

    def _serve(self, begun: Swap) -> None:
        """Start the server and have it answer for its data; going back where it does not."""
        if self.server is None:
            return
        try:
            self.journal.change("server started", self.server.start)
            self._ask()
        except BaseException:
            self._back(begun)
            raise
        exclusive.forget_stopped(self.path)

    def _ask(self) -> None:
        """What a client meets now; the directory itself was looked at before it was used."""
        if self.target.server is None:
            return
        # Every worker knows every task; only who runs this one pays for the HTTP client.
        from recovery.components.chromadb import served

        longest = find_component("chromadb").probe_seconds
        budget = Budget(min(longest, self.journal.remaining()))
        known = partial(contents.drawn, self.path)
        found = served.examine(self.target, self.target.server, budget, known)
        self.journal.note("queried", **found.figures)
        if found.finding is not None:
            raise StillUnhealthy(f"the restored server is not well: {found.finding.summary}")

    def _back(self, begun: Swap | None) -> None:
        """The directory from before, and its server, as far as it ran; in time of its own."""
        within = Deadline(BACK_SECONDS)
        try:
            if self.server is not None:
                ServerProcess(self.target, within.remaining).stop(self.parameters.stop_grace)
            if begun is not None:
                begun.back()
            swap.remove(self._staged)
            if begun is not None:
                begun.end()
                self.journal.keep().store(f"nothing: {self.path} was put back", aside=None)
            self.journal.note(f"{self.path} is the one from before")
        except RemedyError as error:
            self.journal.note("not all is as it was before", why=error.message)
        self._start_again()

    def _start_again(self) -> None:
        """Started whatever its state was: one that is damaged may end at once, as before."""
        try:
            exclusive.start_again(self.target, self.path, Deadline(BACK_SECONDS).remaining)
        except RemedyError as error:
            exclusive.forget_stopped(self.path)
            self.journal.note("the server does not start on it", why=error.message)


def _remove_journals(path: Path) -> None:
    """A journal beside a restored database would be played into it."""
    for name in JOURNALS:
        (path / name).unlink(missing_ok=True)


def _figures(chosen: Manifest, known: Contents | None) -> dict[str, Figure]:
    """What going back costs: writes and records since the snapshot, as far as anybody knows."""
    back = age(chosen.taken_at, datetime.now(UTC))
    said: dict[str, Figure] = {
        "snapshot": chosen.name,
        "records": chosen.records,
        "seconds_back": None if back is None else round(back, 1),
    }
    if known is not None:
        said["records_before"] = known.records
        said["writes_lost"] = max(known.position - chosen.position, 0)
    return said
