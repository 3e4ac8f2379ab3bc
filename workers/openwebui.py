"""Queue ``openwebui`` and its host-bound ones: the remedies of Open WebUI targets."""

from __future__ import annotations

from workers.task import strategy_task

token_refresh = strategy_task("openwebui", "token_refresh")
model_failover = strategy_task("openwebui", "model_failover")
graceful_degradation = strategy_task("openwebui", "graceful_degradation")
