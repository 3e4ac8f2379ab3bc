"""A generic webhook: what happened, as JSON, in batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from recovery.alerts.channel import Channel
from recovery.alerts.notices import Notice
from recovery.alerts.posting import Address, post

VERSION = "1"


class WebhookChannel(Channel):
    """``{"version": "1", "alerts": [...]}`` to one address."""

    def __init__(self, name: str, address: Callable[[], Address]) -> None:
        self.name = f"webhook/{name}"
        self._address = address

    def send(self, notices: Sequence[Notice]) -> None:
        said = [notice.as_dict() for notice in notices]
        post(self._address(), "", {"version": VERSION, "alerts": said})
