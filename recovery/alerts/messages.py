"""E-mail and chat through Apprise: one message for all that happened since the last one."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from recovery.alerts.channel import Channel
from recovery.alerts.notices import SEVERITIES, Notice, is_wanted, notice_of
from recovery.errors import AlertNotDelivered

if TYPE_CHECKING:
    from recovery.config import Policy

LONGEST = 40
"""Lines of one message; a storm is told in numbers."""


class MessageChannel(Channel):
    """One Apprise address. At most one message every ``every`` seconds, from ``at_least`` up."""

    def __init__(self, name: str, url: Callable[[], str], *, every: float, at_least: str) -> None:
        self.name = f"message/{name}"
        self.rest_seconds = every
        self._url = url
        self._severities = SEVERITIES[: SEVERITIES.index(at_least) + 1]

    def wants(self, policy: Policy, fact: Mapping[str, Any]) -> bool:
        return is_wanted(policy, fact) and notice_of(policy, fact).severity in self._severities

    def send(self, notices: Sequence[Notice]) -> None:
        try:
            import apprise
        except ImportError:
            raise AlertNotDelivered("messages need the extra: pip install '…[notify]'") from None
        # What it logs may name the address, which is a secret.
        logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
        messenger = apprise.Apprise()
        if not messenger.add(self._url()):
            raise AlertNotDelivered("not an address that Apprise knows")
        if not messenger.notify(title=title(notices), body=body(notices)):
            raise AlertNotDelivered("not accepted by its server")


def title(notices: Sequence[Notice]) -> str:
    worst = min(notice.severity for notice in notices)
    if len(notices) == 1:
        return f"[{worst}] {notices[0].summary}"
    targets = {(n.labels.get("component"), n.labels.get("target")) for n in notices}
    of = "one target" if len(targets) == 1 else f"{len(targets)} targets"
    return f"[{worst}] {len(notices)} alerts of {of}"


def body(notices: Sequence[Notice]) -> str:
    """The worst first, each once however often it was said; then what did not fit, in numbers."""
    said = Counter((n.severity, n.summary) for n in notices)
    last = {(n.severity, n.summary): n for n in notices}
    worst = sorted(last, key=lambda key: (key[0], last[key].at))
    lines = [_line(last[key], said[key]) for key in worst[:LONGEST]]
    if rest := Counter(key[0] for key in worst[LONGEST:]):
        counted = ", ".join(f"{count} {severity}" for severity, count in sorted(rest.items()))
        lines.append(f"… and {sum(rest.values())} more: {counted}")
    return "\n".join(lines)


def _line(notice: Notice, times: int) -> str:
    when = notice.at.strftime("%Y-%m-%d %H:%M:%S UTC")
    often = f" ({times} times)" if times > 1 else ""
    links = [f"  {link}" for link in (notice.page, notice.runbook) if link]
    return "\n".join([f"{notice.severity}  {when}  {notice.summary}{often}", *links])
