"""What a channel is: a name, what it wants, and how it sends. One class of hooks to override."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import structlog

from recovery.alerts.notices import Notice, is_wanted

if TYPE_CHECKING:
    from recovery.config import Policy
    from recovery.controlplane import ControlPlane

log = structlog.get_logger()


class Channel(ABC):
    """One way out. ``rest_seconds`` is how long it is left alone after each message."""

    name: str = ""
    rest_seconds: float = 0.0

    def wants(self, policy: Policy, fact: Mapping[str, Any]) -> bool:
        return is_wanted(policy, fact)

    @abstractmethod
    def send(self, notices: Sequence[Notice]) -> None:
        """Raises ``AlertNotDelivered`` to be asked again, ``AlertRefused`` where that is no use."""

    def tend(  # noqa: B027 - most channels have nothing to tend
        self, control: ControlPlane, policy: Policy, *, is_news: bool
    ) -> None:
        """Called at each turn, after what was to be sent; raises like ``send``."""


class LogChannel(Channel):
    """The channel that is always there: one structured line an alert."""

    name = "log"

    def send(self, notices: Sequence[Notice]) -> None:
        for notice in notices:
            said = notice.as_dict()
            facts = {**said.pop("labels"), **{k: v for k, v in said.items() if v}}
            log.warning("alert", **facts)
