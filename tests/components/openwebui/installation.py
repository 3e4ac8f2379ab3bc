"""A whole installation around one Open WebUI, driven step by step without workers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recovery import lifecycle, records, returning, routing
from recovery.config import Policy, load_policy
from recovery.controlplane import ControlPlane
from recovery.dispatch import dispatch
from recovery.events import Decision, Outcome
from recovery.memory import TargetMemory
from recovery.returning import Return
from tests.components.openwebui.describing import PRIMARY, REF, direct_to, with_token
from tests.openwebui import EMAIL, PASSWORD, OpenWebui
from tests.policies import write_policy
from tests.upstreams import AnthropicUpstream, OpenAiUpstream

STRATEGIES: list[dict[str, Any]] = [
    {"name": "token_refresh", "max_retries": 2, "conditions": ["auth_failure", "token_expired"]},
    {
        "name": "model_failover",
        "fallback_models": ["deepseek-chat", "gemini-pro", "gpt-4-turbo"],
        "conditions": ["model_unavailable", "model_error"],
    },
    {
        "name": "graceful_degradation",
        "conditions": ["service_unavailable", "rate_limiting", "high_latency", "all_else_failed"],
    },
]


@dataclass
class Installation:
    control: ControlPlane
    policy: Policy
    server: Any
    upstream: OpenAiUpstream
    direct: AnthropicUpstream
    count: int = 0

    @property
    def memory(self) -> TargetMemory:
        return TargetMemory(self.control, REF)

    @property
    def route(self) -> routing.Route:
        found = routing.read(self.control, REF)
        assert found is not None
        return found

    @property
    def is_degraded(self) -> bool:
        return bool(self.control.redis.hexists("recovery:degraded", str(REF)))

    @property
    def level(self) -> int:
        return int(self.control.redis.hget(f"recovery:target:{REF}", "level") or 1)

    @property
    def audit(self) -> list[str]:
        entries = self.control.redis.xrange("recovery:audit")
        return [fields["entry"] for _, fields in entries]

    @property
    def alerts(self) -> list[str]:
        return [fields["alert"] for _, fields in self.control.redis.xrange("recovery:outbox")]

    def sign_in(self) -> None:
        """Somebody did, and applications have the token."""
        with_token(self.server, self.memory)
        self.follow()

    def decide(self, failure: str | None = None, **said: Any) -> tuple[Decision, Any]:
        self.count += 1
        message = {"component": "openwebui", "failure_type": failure, "source": "probe", **said}
        told = dispatch(self.control, self.policy, f"r-{self.count}", message)
        return told.decision, told.assignments

    def recover(self, failure: str | None = None, **said: Any) -> Outcome:
        """One event, its attempts, and how it ended."""
        decision, assignments = self.decide(failure, **said)
        assert decision.admitted, decision
        while True:
            ended = lifecycle.run(self.control, self.policy, assignments[0], "test:1")
            if not isinstance(ended, lifecycle.RetryLater):
                break
        assert isinstance(ended, Outcome), ended
        assert records.load(self.control, decision.recovery_id).outcome == ended
        return ended

    def follow(self) -> Return:
        return returning.follow(self.control, self.policy, REF)


def load(folder: Path, target: dict[str, Any], *rest: Any, **more: Any) -> Policy:
    return load_policy(write(folder, target, *rest, **more))


def write(
    folder: Path,
    target: dict[str, Any],
    strategies: list[dict[str, Any]] | None = None,
    *,
    effective_after: str = "300s",
    **limits: Any,
) -> Path:
    block = {
        "priority": "medium",
        "targets": {"default": target},
        "strategies": strategies or STRATEGIES,
    }
    modes = {
        "openwebui_unavailable": {
            "available_capabilities": ["direct_api_calls"],
            "unavailable_capabilities": ["model_switching"],
        }
    }
    return write_policy(
        folder,
        {"default": {"url": "redis://127.0.0.1:1/0"}},
        recovery={
            "openwebui": block,
            "max_attempts_per_hour": 20,
            "effective_after_seconds": effective_after,
            **limits,
        },
        sections={"degraded_modes": modes},
    )


def described_target(server: OpenWebui, provider: AnthropicUpstream, **said: Any) -> dict[str, Any]:
    return {
        "base_url": server.url,
        "email": EMAIL,
        "password": PASSWORD,
        "model": PRIMARY,
        "direct": direct_to(provider),
        "return_after": "300ms",
        **said,
    }


def install(
    folder: Path,
    control: ControlPlane,
    server: OpenWebui,
    provider: AnthropicUpstream,
    strategies: list[dict[str, Any]] | None = None,
    **said: Any,
) -> Installation:
    return Installation(
        control=control,
        policy=load(folder, described_target(server, provider, **said), strategies),
        server=server,
        upstream=server.upstream,
        direct=provider,
    )
