"""The health check of a Redis: what a new client would meet, and the figures behind it."""

from __future__ import annotations

import statistics
import time
from typing import Any

from redis import exceptions

from recovery.components.redis.connection import fresh, is_full
from recovery.components.redis.target import RedisTarget
from recovery.deadline import Deadline
from recovery.errors import RemedyError, TargetRefused
from recovery.events import Figure, ProbeReport
from recovery.runtime import manage

PINGS = 3


def probe(target: RedisTarget, timeout: float) -> ProbeReport:
    """Connect anew, PING, read INFO, judge. ``timeout`` in seconds holds for the whole of it.

    A server that accepts and stays silent costs the timeout of one answer, never more.
    """
    answer_timeout = max(timeout / 2, 0.05)
    try:
        return _ask(target, answer_timeout)
    except TargetRefused as error:
        return _failed("auth_failure", error.message)


def _ask(target: RedisTarget, answer_timeout: float) -> ProbeReport:
    with fresh(target, answer_timeout) as client:
        connected = False
        try:
            client.ping()
            connected = True
            latency_ms = statistics.median(_ping_ms(client) for _ in range(PINGS))
            info: dict[str, Any] = client.info()
        except exceptions.RedisError as error:
            return _from_error(target, error, connected=connected, timeout=answer_timeout)
    return _judge(target, latency_ms, info)


def _ping_ms(client: Any) -> float:
    began = time.perf_counter()
    client.ping()
    return (time.perf_counter() - began) * 1000


def _from_error(
    target: RedisTarget, error: exceptions.RedisError, *, connected: bool, timeout: float
) -> ProbeReport:
    """Which failure an error is. Order matters: redis-py derives several from ConnectionError."""
    text = str(error)
    if isinstance(error, exceptions.AuthenticationError | exceptions.AuthorizationError):
        return _failed("auth_failure", text)
    if isinstance(error, exceptions.NoPermissionError) or "NOAUTH" in text:
        return _failed("auth_failure", text)
    if isinstance(error, exceptions.BusyLoadingError):
        return _failed("loading", text)
    if is_full(error):
        return _failed("clients_exhausted", "max number of clients reached")
    if isinstance(error, exceptions.TimeoutError):
        if "connecting" in text.lower() and not connected:
            waited = min(target.connect_timeout, timeout)
            return _failed("connection_timeout", f"no connection within {waited:g} s")
        return _failed("unresponsive", f"accepted, and no answer within {timeout:g} s")
    if not connected and _has_ended(target, timeout):
        return _failed("process_down", "its process does not run")
    return _failed("connection_error", text)


def _has_ended(target: RedisTarget, timeout: float) -> bool:
    """Whether whoever runs the server says that it does not run; False where nobody can tell."""
    if target.runtime is None:
        return False
    try:
        state = manage(target.runtime, Deadline(timeout).remaining, target.url).inspect()
    except RemedyError:
        return False
    return state.exists and not state.running


def _failed(failure_type: str, summary: str) -> ProbeReport:
    return ProbeReport(healthy=False, failure_type=failure_type, summary=summary[:200])


def _judge(target: RedisTarget, latency_ms: float, info: dict[str, Any]) -> ProbeReport:
    figures = _figures(latency_ms, info)
    limits = target.thresholds
    failure_type, summary = None, f"PING {latency_ms:.2f} ms"
    if _cannot_save(info):
        failure_type, summary = "persistence_error", "the last save failed: writes are refused"
    elif target.role == "primary" and info.get("role") == "slave":
        failure_type, summary = "read_only", "it is a replica and takes no writes"
    elif _number(figures, "memory_percent") >= limits.memory_percent:
        failure_type, summary = "memory_pressure", f"memory {figures['memory_percent']} % used"
    elif _number(figures, "clients_percent") >= limits.clients_percent:
        failure_type, summary = "clients_exhausted", f"clients {figures['clients_percent']} % used"
    elif latency_ms >= limits.latency_ms:
        failure_type, summary = "high_latency", f"PING {latency_ms:.2f} ms"
    return ProbeReport(
        healthy=failure_type is None, failure_type=failure_type, summary=summary, figures=figures
    )


def _figures(latency_ms: float, info: dict[str, Any]) -> dict[str, Figure]:
    clients, most = int(info.get("connected_clients", 0)), int(info.get("maxclients", 0))
    memory, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    return {
        "latency_ms": round(latency_ms, 3),
        "clients": clients,
        "maxclients": most,
        "clients_percent": round(100 * clients / most, 1) if most else 0.0,
        "memory_mb": round(memory / 1e6, 1),
        "memory_percent": round(100 * memory / limit, 1) if limit else 0.0,
        "rejected": int(info.get("rejected_connections", 0)),
        "blocked": int(info.get("blocked_clients", 0)),
        "uptime_s": int(info.get("uptime_in_seconds", 0)),
    }


def _cannot_save(info: dict[str, Any]) -> bool:
    return "err" in (info.get("rdb_last_bgsave_status"), info.get("aof_last_write_status"))


def _number(figures: dict[str, Figure], name: str) -> float:
    return float(figures[name] or 0)
