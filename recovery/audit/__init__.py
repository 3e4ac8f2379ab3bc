"""The audit trail: one short entry for every recovery that ended and every burst of refusals.

Entries are written to a stream of the control Redis; closed days are sealed into files on one host.
"""

from __future__ import annotations

from recovery.audit.chain import folder_of
from recovery.audit.entries import ENTRY_BYTES, AuditEntry, compose, read_entry
from recovery.audit.exporting import Format, export
from recovery.audit.ownership import known_owner
from recovery.audit.paging import AuditPage, Wanted, page
from recovery.audit.reading import history, last_hours, latest
from recovery.audit.sealed import Kind
from recovery.audit.sealing import Report, Sealing, seal
from recovery.audit.verifying import Finding, Verdict, verify

__all__ = [
    "ENTRY_BYTES",
    "AuditEntry",
    "AuditPage",
    "Finding",
    "Format",
    "Kind",
    "Report",
    "Sealing",
    "Verdict",
    "Wanted",
    "compose",
    "export",
    "folder_of",
    "history",
    "known_owner",
    "last_hours",
    "latest",
    "page",
    "read_entry",
    "seal",
    "verify",
]
