"""Queue ``redis`` and its host-bound ones: the remedies of Redis targets."""

from __future__ import annotations

from workers.task import strategy_task

reconnect = strategy_task("redis", "reconnect")
