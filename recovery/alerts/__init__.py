"""Alerts on their way out: written by the scripts that change state, delivered from here.

Each channel reads the outbox by itself, at its own pace and with its own back-off, so that one that
is away holds up no other. Nothing here is in the way of a repair.
"""

from __future__ import annotations

from recovery.alerts.channel import Channel
from recovery.alerts.channels import channels_of
from recovery.alerts.delivery import deliver, standing
from recovery.alerts.notices import Notice, is_wanted, notice_of

__all__ = ["Channel", "Notice", "channels_of", "deliver", "is_wanted", "notice_of", "standing"]
