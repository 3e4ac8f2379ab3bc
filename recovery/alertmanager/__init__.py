"""Alerts of Alertmanager's webhook (version 4) become failure events. Decides on no remedy."""

from __future__ import annotations

from recovery.alertmanager.receipt import Action, Left, Reason, Receipt, Taken
from recovery.alertmanager.receiving import receive

__all__ = ["Action", "Left", "Reason", "Receipt", "Taken", "receive"]
