"""Who may seal: one host owns the files, and one process of it works on them at a time.

Both are kept in the control Redis. Two processes of one host are kept apart by the folder's own
lock first, which the system frees at a death, so that nobody waits for a dead one.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recovery.audit.chain import Anchor
from recovery.controlplane import reachable
from recovery.errors import AuditNotSealed

if TYPE_CHECKING:
    from recovery.controlplane import ControlPlane

LOCK_SECONDS = 60.0
"""How long another host waits for one that was killed while it sealed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """``must_be_asked``: it has not been told yet that there may be something to seal."""

    host: str
    must_be_asked: bool


def find_owner(
    control: ControlPlane, host: str, *, takeover_seconds: float, take_over: bool
) -> Owner:
    """Whose turn it is, which is ours from now on where nobody else's; our sign of life, too."""
    owner, ask = control.run("audit_host", host, int(takeover_seconds * 1000), int(take_over))
    return Owner(host=owner, must_be_asked=bool(ask))


def known_owner(control: ControlPlane) -> str | None:
    with reachable():
        owner: str | None = control.redis.hget(control.key("audit", "host"), "host")
    return owner


def known_anchor(control: ControlPlane) -> Anchor | None:
    """The control Redis's copy of the ends of the chain."""
    with reachable():
        text = control.redis.get(control.key("audit", "chain"))
    return Anchor.parse(text) if text else None


class Turn:
    """The right to seal, which whoever holds the folder's lock asks for."""

    def __init__(self, control: ControlPlane, host: str) -> None:
        self.control = control
        self.host = host
        self._token = uuid.uuid4().hex

    def begin(self) -> bool:
        return self._say(LOCK_SECONDS, is_first=True)

    def hold(self, anchor: Anchor | None = None) -> None:
        """Renew, and store the anchor's copy; raises ``AuditNotSealed`` where another one has it.

        To be called before each step that others would see.
        """
        if not self._say(LOCK_SECONDS, anchor=anchor):
            raise AuditNotSealed("another process seals the audit trail by now")

    def end(self) -> None:
        self._say(0)

    def _say(self, seconds: float, *, is_first: bool = False, anchor: Anchor | None = None) -> bool:
        said = self.control.run(
            "audit_lock",
            self.host,
            self._token,
            int(seconds * 1000),
            int(is_first),
            anchor.render() if anchor else "",
        )
        return bool(said)
