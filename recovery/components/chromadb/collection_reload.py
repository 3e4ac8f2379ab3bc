"""``chromadb.collection_reload``: have whoever serves or uses the collections open them anew.

Chroma keeps what it opened: a database that was replaced and an index that was repaired are seen
by the next process alone, and a load that failed once may fail for ever. A server whose process
has ended opens nothing any more, and is started.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from recovery.components.chromadb import starting
from recovery.components.chromadb.findings import Budget, Examined
from recovery.components.chromadb.target import ChromaTarget
from recovery.errors import NotConfigured, RemedyError, TargetRefused, TargetUnreachable
from recovery.strategy import Journal, Parameters, Scope, strategy

RELOAD = "reload_collections"
BUSY_SECONDS = 5.0
DATABASE = "chroma.sqlite3"


class ReloadScope(Scope):
    """``collection``: this one must be there afterwards, and hold something."""

    collection: str | None = None


@strategy(
    component="chromadb",
    summary="Open the collections anew: start a server that died, restart one with old files open.",
    scope=ReloadScope,
    # A restart is a second, and loading a large index takes some more.
    timeout_seconds=30.0,
)
def collection_reload(target: ChromaTarget, _: Parameters, journal: Journal) -> None:
    """Raises ``TargetUnreachable`` where the server is away and its process is not known to have
    ended, ``NotConfigured`` where it must be restarted and the policy does not say how,
    ``RemedyError`` where opening anew cannot help, and what starting raises."""
    reload = _Reload(_including(target, journal.scope), journal)
    reload.run()


def _including(target: ChromaTarget, scope: Scope) -> ChromaTarget:
    """The target with the collection of the event among those that must be there."""
    named = scope.collection if isinstance(scope, ReloadScope) else None
    if named is None:
        return target
    least = max(target.collections.get(named, 0), 1)
    return target.model_copy(update={"collections": {**target.collections, named: least}})


@dataclass(slots=True)
class _Reload:
    target: ChromaTarget
    journal: Journal

    def run(self) -> None:
        on_disk = self._look_at_disk()
        if self.target.server is not None:
            self._reload_server(self.target.server, on_disk)
        self.journal.tell_applications("applications asked to open their collections anew", RELOAD)

    def _look_at_disk(self) -> Examined | None:
        """A fresh client on a copy: it loads, it counts, it is queried. Raises ``RemedyError``."""
        if self.target.path is None:
            return None
        from recovery.components.chromadb import child

        looked = child.inspect(self.target, self.target.path, self._budget())
        self.journal.note("opened from disk with a fresh client", **looked.figures)
        self._refuse(looked, "the files themselves are not well")
        return looked

    def _reload_server(self, url: str, on_disk: Examined | None) -> None:
        from recovery.components.chromadb import served

        asked = served.examine(self.target, url, self._budget())
        self.journal.note(
            "asked for by name",
            found=asked.finding.failure_type if asked.finding else None,
            **asked.figures,
        )
        if self._misses_one(asked) and self._end_exchanges():
            asked = served.examine(self.target, url, self._budget())
        if self._is_away(asked) and starting.has_ended(self.target, self.journal):
            self._start(url)
            return
        why = self._outdated(asked, on_disk)
        if why is None:
            self._refuse(asked, "the server was asked by name")
            return
        if self.target.runtime is None:
            raise NotConfigured(
                f"{why}; the server must be restarted, and the policy does not say how it is run:"
                " add the key runtime to its target",
                {"key": "runtime"},
            )
        from recovery.components.chromadb.rebuilding import taking_over

        self.journal.note("the server must open its files anew", why=why)
        taking_over.restart(self.target, self.journal)
        if not self.journal.dry_run:
            self._refuse(served.examine(self.target, url, self._budget()), "it was restarted")

    def _misses_one(self, asked: Examined) -> bool:
        return asked.finding is not None and asked.finding.failure_type == "collection_missing"

    def _end_exchanges(self) -> int:
        """How many names were nobody's since whoever gave them away was killed."""
        from recovery.components.chromadb import claim, exclusive, served_swap
        from recovery.components.chromadb.editing import ChromaEditor

        seconds = self._budget().seconds
        patience = min(BUSY_SECONDS, seconds)
        with (
            exclusive.alone_on_server(self.target, patience),
            ChromaEditor.of(self.target, seconds) as editor,
        ):
            if not served_swap.is_unsettled(editor):
                return 0
            with claim.held(self.target, editor, self.journal, patience):
                return served_swap.settle(editor, self.journal)

    def _is_away(self, asked: Examined) -> bool:
        return asked.finding is not None and asked.finding.failure_type in starting.AWAY

    def _start(self, url: str) -> None:
        from recovery.components.chromadb import served

        starting.start(self.target, self.journal)
        if not self.journal.dry_run:
            self._refuse(served.examine(self.target, url, self._budget()), "it was started")

    def _outdated(self, asked: Examined, on_disk: Examined | None) -> str | None:
        """Why what the server has in memory is worse than its files; None where it is not."""
        if self._holds_other_files():
            return "the server has a database open that was replaced meanwhile"
        if asked.finding is None or on_disk is None:
            return None
        return (
            f"the files are well, and what the server has in memory is not: {asked.finding.summary}"
        )

    def _holds_other_files(self) -> bool:
        """Whether the server's process has another database open than the one that is there."""
        if self.target.path is None or self.target.runtime is None:
            return False
        from recovery.components.chromadb.server import ServerProcess

        pid = ServerProcess(self.target, self.journal.remaining).inspect().pid
        return pid is not None and _has_another_open(pid, self.target.path / DATABASE)

    def _refuse(self, looked: Examined, where: str) -> None:
        finding = looked.finding
        if finding is None:
            return
        if finding.failure_type == "auth_failure":
            raise TargetRefused(finding.summary)
        if finding.failure_type in starting.AWAY | {"temporary_failure"}:
            nobody = "" if self.target.runtime else f"; {starting.NOBODY}"
            raise TargetUnreachable(f"{finding.summary}{nobody}")
        raise RemedyError(f"opening anew cannot help, {where}: {finding.summary}")

    def _budget(self) -> Budget:
        """Half of what is left: a restart, and a look at what came of it, must fit in as well."""
        return Budget(self.journal.remaining() / 2)


def _has_another_open(pid: int, database: Path) -> bool:
    """By the kernel's list of a process's open files; false where it may not be read."""
    try:
        there = database.stat()
        opened = [handle for handle in Path(f"/proc/{pid}/fd").iterdir() if _names(handle)]
        held = [handle.stat() for handle in opened]
    except OSError:
        return False
    return any(not os.path.samestat(one, there) for one in held)


def _names(handle: Path) -> bool:
    try:
        return handle.readlink().name.removesuffix(" (deleted)") == DATABASE
    except OSError:
        return False
