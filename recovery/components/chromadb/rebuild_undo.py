"""The undo of ``chromadb.index_rebuild``: the indexes from before, and the end of what is aside."""

from __future__ import annotations

from pathlib import Path

from recovery.components.chromadb import exclusive
from recovery.components.chromadb.index_rebuild import RELOAD, IndexRebuild, folders
from recovery.components.chromadb.rebuilding import taking_over
from recovery.components.chromadb.rebuilding.exchange import Exchange, remove_unused, revert
from recovery.components.chromadb.target import ChromaTarget
from recovery.strategy import Journal, Kept


def undo(target: ChromaTarget, parameters: IndexRebuild, journal: Journal, kept: Kept) -> None:
    """Put the old indexes back; the new ones are then what is aside.

    Raises ``WouldOverwrite`` where records came since, ``NotKept`` where an old index is gone.
    """
    if "path" not in kept.facts:
        from recovery.components.chromadb import served_replacement

        served_replacement.undo(target, journal, kept)
        return
    path = Path(kept.facts["path"])
    exchanges = [Exchange.from_dict(plain) for plain in kept.facts["exchanges"]]
    patience = parameters.lock_patience
    with exclusive.alone(path, patience):
        for exchange in exchanges:
            journal.change(
                f"{exchange.name}: old index back",
                lambda exchange=exchange: revert(  # type: ignore[misc]
                    path, exchange, patience, kept.folder, overwrite=journal.overwrite
                ),
            )
        if not journal.dry_run:
            names = ", ".join(sorted({exchange.name for exchange in exchanges}))
            new = folders(path, (exchange.new for exchange in exchanges))
            kept.store(f"the index that was built of {names}"[:160], lies_beside=new)
    if target.server is not None and not journal.dry_run:
        taking_over.see_answering(target, target.server, journal)
    journal.tell_applications("applications asked to open their collections anew", RELOAD)


def discard(target: ChromaTarget, parameters: IndexRebuild, kept: Kept) -> None:
    """Remove the indexes that no collection has any more."""
    if "path" not in kept.facts:
        from recovery.components.chromadb import served_replacement

        served_replacement.discard(target, kept)
        return
    path = Path(kept.facts["path"])
    if not path.is_dir():
        return
    exchanges = [Exchange.from_dict(plain) for plain in kept.facts["exchanges"]]
    both = (name for exchange in exchanges for name in (exchange.old, exchange.new))
    remove_unused(path, both, parameters.lock_patience)
