"""What the log does to the records that an index held when it was last saved."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from recovery.components.chromadb.rebuilding.stock import Entry, Operation, Stock

Changed = dict[str, bytes | None]
"""Record → its newest vector, or None where it was deleted."""


def replay(log: Iterable[Entry], indexed: Collection[str]) -> Changed:
    """As Chroma does it: an add of what is there, and an update of what is not, do nothing."""
    changed: Changed = {}
    for entry in log:
        is_there = changed[entry.id] is not None if entry.id in changed else entry.id in indexed
        if entry.operation is Operation.DELETE:
            if is_there:
                changed[entry.id] = None
        elif entry.vector is not None and _counts(entry.operation, is_there=is_there):
            changed[entry.id] = entry.vector
    return changed


def _counts(operation: Operation, *, is_there: bool) -> bool:
    if operation is Operation.UPSERT:
        return True
    return is_there is (operation is Operation.UPDATE)


def wanted(stock: Stock) -> set[str]:
    """The records that there are at the log's end."""
    found = set(stock.ids)
    for entry in stock.log:
        if entry.position <= stock.described:
            continue
        if entry.operation is Operation.DELETE:
            found.discard(entry.id)
        elif entry.operation is not Operation.UPDATE:
            found.add(entry.id)
    return found


def unsaved(stock: Stock) -> list[Entry]:
    """The entries that the index on disk does not hold."""
    return [entry for entry in stock.log if entry.position > stock.saved]


def known(stock: Stock) -> dict[str, bytes]:
    """Vectors that the log still names of what the index holds: they must be the same there."""
    found: dict[str, bytes] = {}
    for entry in stock.log:
        if entry.position > stock.saved:
            break
        found.pop(entry.id, None)
        if entry.vector is not None:
            found[entry.id] = entry.vector
    return found
