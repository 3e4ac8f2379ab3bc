"""The demonstration: a real Redis is broken, comes back, is killed, and is brought back."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any, TypeVar

import click
import yaml

MAX_CLIENTS = 40
COOLDOWN_SECONDS = 3
FAULTS = 3
WORKERS = 3
CORRUPT = 500

T = TypeVar("T")


class DemoFailed(Exception):
    """Something did not happen as it must."""


def main() -> int:
    """Run all of it; 0 only if every scene ended as it must."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="recovery-demo-") as folder, ExitStack() as stack:
        scene = _Scenes(Path(folder), stack)
        try:
            scene.play()
        except DemoFailed as failure:
            click.secho(f"the demo failed: {failure}", fg="red", err=True)
            click.echo((Path(folder) / "up.log").read_text()[-3000:], err=True)
            return 1
    if scene.left_over():
        click.secho(f"left running: {scene.left_over()}", fg="red", err=True)
        return 1
    click.secho(f"\nDone in {time.monotonic() - began:.0f} s. Nothing is left running.", fg="green")
    return 0


class _Scenes:
    def __init__(self, folder: Path, stack: ExitStack) -> None:
        from recovery import embedded

        self.folder = folder
        self.stack = stack
        self.binary = embedded.find_server()
        self.port = _free_port()
        self.pids: list[int] = []
        self.leaked: list[socket.socket] = []

    def play(self) -> None:
        self._set_up()
        self._leaked_connections()
        self._killed_for_good()
        self._approved()
        self._over_the_limit()
        self._flushed_and_undone()
        self._control_plane_killed()
        self._trail()

    def _set_up(self) -> None:
        _title("Starting a control plane, its workers, and a separate Redis to protect")
        policy = self.folder / "recovery_config.yml"
        policy.write_text(yaml.safe_dump(_policy(self.port, self._command()), sort_keys=False))
        os.environ.pop("RECOVERY_REDIS_URL", None)
        os.environ.update(
            {"RECOVERY_CONFIG": str(policy), "RECOVERY_STATE_DIR": str(self.folder / "s")}
        )
        from recovery.config import Environment, load_policy
        from recovery.controlplane import ControlPlane

        self.policy = load_policy(policy)
        self.control = ControlPlane.connect(Environment.read())
        self.target = self._start_target()
        self.stack.callback(self._stop_target)
        log = self.stack.enter_context((self.folder / "up.log").open("wb"))
        up = subprocess.Popen(
            [sys.executable, "-c", "from recovery.cli import main; main(['up'])"],
            stdout=log,
            stderr=log,
        )
        self.pids.append(up.pid)
        self.stack.callback(lambda: _end(up, 25))
        _wait(self._has_workers, 40, "workers")
        _say(f"target: redis://127.0.0.1:{self.port}, room for {MAX_CLIENTS} clients")

    def _leaked_connections(self) -> None:
        _title("1. An application leaks connections until Redis lets nobody in")
        self._leak()
        outcome = self._run("clients_exhausted")
        _expect(outcome.result.value == "recovered", f"not recovered: {outcome}")

    def _killed_for_good(self) -> None:
        _title("2. Redis is killed: reconnecting cannot repair that")
        self.target.kill()
        self.target.wait()
        outcome = self._run("connection_error")
        _expect(outcome.result.value == "failed", f"a dead Redis was called {outcome.result}")
        from recovery import modes

        active = modes.active(self.control, self.policy)
        _expect(bool(active), "no degraded mode")
        may = all("long_term_memory" not in mode.unavailable for mode in active)
        _expect(not may, "long_term_memory is still allowed")
        _say(f"degraded mode {active[0].mode}: may I use long_term_memory? {may}")
        refused = self._send("connection_error")
        _expect(refused == "cooldown", f"expected a cooldown, got {refused}")

    def _approved(self) -> None:
        _title("3. The next rung restarts it, and waits for a person")
        from recovery import approvals, modes, producer

        time.sleep(COOLDOWN_SECONDS + 0.2)
        identity = producer.trigger("redis", "connection_error")
        _wait(lambda: bool(approvals.pending(self.control)), 10, "the approval request")
        _say(f"waits: recovery approve {identity[:8]}")
        approvals.approve(self.control, self.policy, identity, by="a person", reason="seen it")
        producer.follow_approval(identity)
        outcome = self._follow(identity, is_approved=True)
        _expect(outcome.result.value == "recovered", f"not recovered: {outcome}")
        _expect(not modes.active(self.control, self.policy), "still degraded")
        _say("degraded mode over; cooldown cleared")

    def _over_the_limit(self) -> None:
        _title(f"4. {FAULTS} recoveries an hour, and no more")
        refused = self._send("connection_error")
        _expect(refused == "limit", f"expected the limit, got {refused}")

    def _flushed_and_undone(self) -> None:
        _title("5. Corrupt keys are flushed by a person's order, and brought back")
        from recovery import holdings, producer

        client = self._client()
        for number in range(CORRUPT):
            client.set(f"cache:{number}", f"value {number}")
            client.set(f"cache:good:{number}", "value", ex=3600)
        client.set("session:1", "no TTL, and none of our business")
        _say(f"{CORRUPT} keys of cache:* have no TTL; {client.dbsize()} keys in all")
        order = {"strategy": "flush_corrupted", "force": True, "by": "a person", "source": "cli"}
        identity = producer.trigger("redis", reason="cache poisoned", **order)  # type: ignore[arg-type]
        outcome = self._follow(identity)
        _expect(outcome.result.value == "recovered", f"not flushed: {outcome}")
        _expect(client.dbsize() == CORRUPT + 1, f"{client.dbsize()} keys are left")
        _say(f"{client.dbsize()} keys are left; recovery undo {identity[:8]}")
        kept = holdings.find(self.control, identity)
        undone = producer.undo(kept, by="a person", reason="they were needed")
        outcome = self._follow(undone)
        _expect(outcome.result.value == "undone", f"not undone: {outcome}")
        _expect(client.get("cache:7") == "value 7", "a key did not come back")
        _expect(client.dbsize() == 2 * CORRUPT + 1, f"{client.dbsize()} keys are there")
        _say(f"{client.dbsize()} keys are there again")
        client.close()

    def _control_plane_killed(self) -> None:
        _title("6. The control Redis itself is killed")
        from recovery import producer
        from recovery.errors import ControlPlaneUnavailable

        began = time.monotonic()
        os.kill(int(self.control.redis.info("server")["process_id"]), signal.SIGKILL)
        _wait(self._control_answers, 20, "the control Redis")
        _say(f"it answers again after {time.monotonic() - began:.1f} s, with all it knew")

        def sent() -> str | None:
            try:
                return producer.trigger("redis", strategy="reconnect", dry_run=True)
            except ControlPlaneUnavailable:
                return None

        identity = _wait(sent, 10, "an event is taken")
        outcome = self._follow(str(identity))
        _expect(outcome.result.value == "dry_run", f"the workers do not work: {outcome}")
        _say(f"the workers take events again after {time.monotonic() - began:.1f} s")

    def _control_answers(self) -> bool:
        from recovery.errors import ControlPlaneUnavailable

        try:
            return self.control.now_ms() > 0
        except ControlPlaneUnavailable:
            return False

    def _has_workers(self) -> bool:
        from recovery import registry
        from recovery.errors import ControlPlaneUnavailable

        try:
            return len(registry.workers(self.control)) == WORKERS
        except ControlPlaneUnavailable:
            return False

    def _client(self) -> Any:
        from redis import Redis

        return Redis(port=self.port, decode_responses=True)

    def _trail(self) -> None:
        from recovery import audit

        _title("The audit trail")
        for entry in audit.history(self.control, since=audit.last_hours(1)):
            facts = entry.fields
            why = [facts.get("error") or facts.get("reason"), facts.get("decided")]
            found = [facts[when]["found"] for when in ("before", "after") if when in facts]
            click.echo(
                f"  {entry.at:%H:%M:%S}  {facts['target']}  {facts['result']:<9}"
                f"  {' → '.join(found):<29}  {', '.join(filter(None, why))}".rstrip()
            )

    def _run(self, failure_type: str) -> Any:
        from recovery import producer

        began = time.monotonic()
        outcome = self._follow(producer.trigger("redis", failure_type))
        _say(f"event to proven outcome: {time.monotonic() - began:.2f} s")
        return outcome

    def _follow(self, identity: str, *, is_approved: bool = False) -> Any:
        from recovery import records
        from recovery.events import Decision, Step

        outcome = None
        for seen in records.follow(self.control, identity, 30, is_approved=is_approved):
            if isinstance(seen, Step):
                planned = "would: " if seen.planned else ""
                _say(f"{seen.at_seconds:5.2f} s  {planned}{seen.text}{_figures(seen.figures)}")
            elif isinstance(seen, Decision):
                raise DemoFailed(f"refused: {seen.reason} {seen.detail}")
            else:
                outcome = seen.outcome
        if outcome is None:
            raise DemoFailed(f"{identity} did not end")
        for name, report in (("before", outcome.before), ("after", outcome.after)):
            if report is not None:
                _say(f"{name}: {report.failure_type or 'healthy'}: {report.summary}")
        why = f": {outcome.detail}" if outcome.detail else ""
        click.secho(f"  {outcome.result.value}{why}", bold=True)
        return outcome

    def _send(self, failure_type: str) -> str:
        """The reason with which an event is refused."""
        from recovery import producer, records
        from recovery.events import Decision

        identity = producer.trigger("redis", failure_type)
        for seen in records.follow(self.control, identity, 10):
            if isinstance(seen, Decision):
                again = f", again in {seen.retry_after:.0f} s" if seen.retry_after else ""
                _say(f"refused: {seen.reason}: {seen.detail}{again}")
                return str(seen.reason)
        return "admitted"

    def _leak(self) -> None:
        from recovery.components.redis.probe import probe
        from recovery.events import TargetRef

        self.leaked = [socket.create_connection(("127.0.0.1", self.port)) for _ in range(60)]
        for leaked in self.leaked:
            self.stack.callback(leaked.close)
        time.sleep(2)
        found = probe(self.policy.target(TargetRef("redis")), 1.0)  # type: ignore[arg-type]
        _expect(found.failure_type == "clients_exhausted", f"not broken: {found}")
        _say(f"the probe says: {found.failure_type}: {found.summary}")

    def _command(self) -> list[str]:
        command = [self.binary, "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        return [*command, "--maxclients", str(MAX_CLIENTS), "--dir", str(self.folder)]

    def _start_target(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(self._command(), stdout=subprocess.DEVNULL)
        self.pids.append(process.pid)
        _wait(lambda: _listens(self.port), 10, "the target")
        return process

    def _stop_target(self) -> None:
        """Ours, or the one that the remedy started in its place."""
        from redis import RedisError

        _end(self.target)
        with suppress(RedisError), closing(self._client()) as client:
            client.shutdown(nosave=True)

    def left_over(self) -> list[int]:
        """Pids that still run, and the target's port if anything listens on it."""
        left = [pid for pid in self.pids if Path(f"/proc/{pid}/exe").exists()]
        return [*left, self.port] if _listens(self.port) else left


def _policy(port: int, command: list[str]) -> dict[str, Any]:
    reconnect = {
        "name": "reconnect",
        "max_retries": 2,
        "backoff_multiplier": 2,
        "timeout_seconds": 4,
        "conditions": ["connection_error", "connection_timeout", "high_latency"],
    }
    flush = {
        "name": "flush_corrupted",
        "auto_trigger": False,
        "key_patterns": [{"pattern": "cache:*", "no_ttl": True}],
        "conditions": ["corruption_detected", "memory_pressure"],
    }
    restart = {"name": "restart_container", "conditions": ["all_else_failed"]}
    runtime = {"kind": "command", "name": "demo-redis", "start": command}
    redis = {
        "priority": "critical",
        "targets": {"default": {"url": f"redis://127.0.0.1:{port}/0", "runtime": runtime}},
        "strategies": [reconnect, flush, restart],
    }
    mode = {
        "available_capabilities": ["basic_conversation"],
        "unavailable_capabilities": ["long_term_memory"],
    }
    limits = {"max_attempts_per_hour": FAULTS, "cooldown_seconds": COOLDOWN_SECONDS}
    return {
        "recovery": {**limits, "redis": redis},
        "degraded_modes": {"redis_unavailable": mode},
        # Each scene tells by itself what broke; a probe would be faster.
        "integration": {"health_check_integration": False},
        # Another one may be served on this machine already.
        "http": {"enabled": False},
    }


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as door:
        return door.connect_ex(("127.0.0.1", port)) == 0


def _end(process: subprocess.Popen[bytes], seconds: float = 5) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(condition: Callable[[], T], seconds: float, what: str) -> T:
    """The condition's first true value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise DemoFailed(f"{what}: not within {seconds:g} s")
        time.sleep(0.05)
    return value


def _expect(fact: bool, otherwise: str) -> None:
    if not fact:
        raise DemoFailed(otherwise)


def _title(text: str) -> None:
    click.secho(f"\n{text}", fg="cyan", bold=True)


def _figures(figures: Mapping[str, Any]) -> str:
    return "".join(f"  {name} {value}" for name, value in figures.items() if value is not None)


def _say(text: str) -> None:
    room = max(shutil.get_terminal_size().columns, 120) - 2
    if len(text) > room:
        # Up to the last whole figure.
        text = text[: room - 3].rpartition("  ")[0] + "  …"
    click.echo(f"  {text}")
