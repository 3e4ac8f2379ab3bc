"""A Redis killed → serving again and proven: ours beside Monit's fastest cycle and Docker's policy.

Each watcher has a server of its own on this machine, and all are killed in turn, round by round, at
a random moment of their cycles. Ours counts until the recovery is concluded, which is after a probe
has proven it; the others have no such word, and count until the server answers a PING. Then each
server is hung, each is filled with clients, and each has its disk filled by what may be removed:
what happens is printed as it was seen. Monit is told of the disk and how to clean it, as ours is;
Docker has no word for that. The disks are tmpfs, which takes root; without it that case is not
tried.
"""

from __future__ import annotations

import argparse
import os
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import redis
import yaml

from bench import report, servers

CYCLE = 1.0
"""Seconds of the fastest cycle that Monit has; ours looks as often."""

PATIENCE = 30.0
RESTS = 11.0
"""Docker begins its back-off anew for who has lived for ten seconds; nobody is killed sooner."""

MAX_CLIENTS = 64
DISK_MB = 24
DISK_PERCENT = 85
CASES = ("hung", "clients", "disk")
NAME = f"recovery-bench-{os.getpid()}"
IMAGE = os.environ.get("RECOVERY_TEST_IMAGE", "recovery-base:bookworm")


class Watched:
    """One server and whoever watches it."""

    def __init__(self, name: str, port: int, folder: Path) -> None:
        self.name = name
        self.port = port
        self.folder = folder
        """Where its append-only file is, and ``old`` beside it, whose files may be removed."""

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def pid(self) -> int | None:
        with (
            suppress(redis.RedisError),
            redis.Redis.from_url(self.url, socket_timeout=0.5) as client,
        ):
            return int(client.info("server")["process_id"])
        return None

    def takes_writes(self) -> bool:
        with (
            suppress(redis.RedisError),
            redis.Redis.from_url(self.url, socket_timeout=0.5) as client,
        ):
            return bool(client.set("bench:written", "x" * 4096))
        return False

    def host_pid(self) -> int:
        """The same where no container has numbers of its own."""
        found = self.pid()
        if found is None:
            raise RuntimeError(f"{self.name}: no server to be broken")
        return found

    def proven(self) -> bool:
        return True


class Ours(Watched):
    def __init__(self, port: int, folder: Path, control_url: str) -> None:
        super().__init__("recovery", port, folder)
        self.control = redis.Redis.from_url(control_url, decode_responses=True)
        self.told = 0

    def recoveries(self) -> int:
        counters = self.control.hgetall("recovery:counters")
        return sum(int(n) for name, n in counters.items() if name.endswith("|recovered"))

    def host_pid(self) -> int:
        self.told = self.recoveries()
        return super().host_pid()

    def proven(self) -> bool:
        return self.recoveries() > self.told


class InDocker(Watched):
    def host_pid(self) -> int:
        asked = ["docker", "inspect", "-f", "{{.State.Pid}}", NAME]
        pid = int(subprocess.run(asked, capture_output=True, check=True, text=True).stdout)
        # The process of the container may be a shell around the server.
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        return next(one.pid for one in family if "redis" in one.name())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=20, help="kills of each")
    parser.add_argument("--no-cases", action="store_true", help="kills only")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    chosen = parser.parse_args()
    with servers.folder() as where, ExitStack() as stack:
        everybody = [stack.enter_context(ours(where))]
        if shutil.which("monit"):
            everybody.append(stack.enter_context(monit(where)))
        if has_docker():
            everybody.append(stack.enter_context(docker(where)))
        for one in everybody:
            servers.wait_for(lambda one=one: one.pid() is not None, 60)  # type: ignore[misc]
        times = killed(everybody, chosen.n)
        figures = {name: report.summary(values) for name, values in times.items()}
        for name, values in figures.items():
            print(f"killed → serving again  {name:9} {values} s")
        cases = {} if chosen.no_cases else tried(everybody, chosen.cases)
    mine = figures.pop("recovery")
    ratio = round(mine["p50"] / figures["monit"]["p50"], 3) if "monit" in figures else None
    report.finish(
        "detect",
        n=chosen.n,
        unit="s",
        ours={**mine, **cases.pop("recovery", {})},
        baseline={name: {**values, **cases.get(name, {})} for name, values in figures.items()},
        ratio=ratio,
        limit=1.0,
        ok=ratio is not None and ratio <= 1.0,
    )


def killed(everybody: list[Watched], rounds: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {one.name: [] for one in everybody}
    last = {one.name: time.monotonic() for one in everybody}
    for _ in range(rounds):
        for one in everybody:
            rest = last[one.name] + RESTS - time.monotonic()
            time.sleep(max(rest, 0) + random.uniform(0, CYCLE))
            victim = one.host_pid()
            before = one.pid()
            began = time.monotonic()
            os.kill(victim, signal.SIGKILL)
            back = took(lambda one=one, before=before: is_back(one, before), began)  # type: ignore[misc]
            times[one.name].append(back if back is not None else PATIENCE)
            last[one.name] = time.monotonic()
    return times


def is_back(one: Watched, before: int | None) -> bool:
    """In a container every server may have the same number."""
    now = one.pid()
    return now is not None and (now != before or one.name == "docker") and one.proven()


def tried(everybody: list[Watched], cases: Sequence[str]) -> dict[str, dict[str, str]]:
    """Faults in which the process lives: who serves again, and after how many seconds."""
    tries = {"hung": hung, "clients": full_of_clients, "disk": full_disk}
    found: dict[str, dict[str, str]] = {}
    for one in everybody:
        found[one.name] = {case: tries[case](one) for case in cases}
        for case, what in found[one.name].items():
            print(f"{case:7} {one.name:9} {what}")
    return found


def hung(one: Watched) -> str:
    time.sleep(RESTS)
    victim = one.host_pid()
    os.kill(victim, signal.SIGSTOP)
    seconds = took(lambda: one.pid() is not None, time.monotonic())
    if seconds is None:
        os.kill(victim, signal.SIGCONT)
    return said(seconds)


def full_of_clients(one: Watched) -> str:
    """Connections that somebody opened and forgot, until no new client gets in."""
    time.sleep(RESTS)
    one.host_pid()
    with redis.Redis.from_url(one.url) as client:
        client.config_set("maxclients", MAX_CLIENTS)
        before = client.info("server")["run_id"]
    leaked = []
    while one.pid() is not None and len(leaked) < 4 * MAX_CLIENTS:
        leaked += [socket.create_connection(("127.0.0.1", one.port)) for _ in range(8)]
    seconds = took(lambda: one.pid() is not None, time.monotonic())
    for connection in leaked:
        connection.close()
    servers.wait_for(lambda: one.pid() is not None, 30)
    with redis.Redis.from_url(one.url) as client:
        is_same = client.info("server")["run_id"] == before
    return said(seconds) + ("" if is_same or seconds is None else ", by a restart")


def full_disk(one: Watched) -> str:
    """Old files take all of it until the append-only file, and with it every write, is refused."""
    if not one.folder.is_mount():
        return "not tried: no disk of its own"
    time.sleep(RESTS)
    one.host_pid()
    until_full(one.folder / "old" / "left-behind")
    if took(lambda: not one.takes_writes(), time.monotonic()) is None:
        return "not tried: it takes writes on a full disk"
    seconds = took(one.takes_writes, time.monotonic())
    for file in (one.folder / "old").iterdir():
        file.unlink()
    servers.wait_for(one.takes_writes, 60)
    return said(seconds)


def until_full(path: Path) -> None:
    with suppress(OSError), path.open("wb", buffering=0) as sink:
        while True:
            sink.write(b"x" * 4096)


def said(seconds: float | None) -> str:
    return (
        f"not noticed in {PATIENCE:g} s" if seconds is None else f"served again in {seconds:.1f} s"
    )


def took(is_over: Callable[[], bool], began: float) -> float | None:
    while not is_over():
        if time.monotonic() - began > PATIENCE:
            return None
        time.sleep(0.02)
    return time.monotonic() - began


@contextmanager
def ours(where: Path) -> Iterator[Watched]:
    """The whole stack as ``recovery up`` runs it."""
    with disk(where / "ours") as folder, servers.redis_server(where) as control_url:
        watched = Ours(servers.free_port(), folder, control_url)
        policy = where / "policy.yml"
        policy.write_text(yaml.safe_dump(policy_of(watched)))
        environ = {
            **os.environ,
            "RECOVERY_CONFIG": str(policy),
            "RECOVERY_REDIS_URL": control_url,
            "RECOVERY_STATE_DIR": str(where / "state"),
            "RECOVERY_HOST": NAME,
        }
        command = [sys.executable, "-c", "from recovery.cli import main; main(['up'])"]
        with (
            (where / "up.log").open("wb") as log,
            ended(subprocess.Popen(command, cwd=servers.ROOT, env=environ, stdout=log, stderr=log)),
        ):
            yield watched
        end_server(watched)


def policy_of(watched: Watched) -> dict[str, object]:
    folder = str(watched.folder)
    start = [servers.redis_binary(), *arguments(watched.port, folder)]
    target = {
        "url": watched.url,
        "runtime": {"kind": "command", "name": NAME, "start": start, "folder": folder},
        "unattended": ["restart_container"],
        "depends_on": ["system/disk"],
    }
    restart = {
        "name": "restart_container",
        "stop_grace": 1,
        "conditions": ["unresponsive", "all_else_failed"],
    }
    reconnect = {"name": "reconnect", "idle_at_least": 0, "conditions": ["clients_exhausted"]}
    cleanup = {
        "name": "disk_cleanup",
        "cleanup_paths": [f"{folder}/old"],
        "preserve_days": 1e-9,
        "thresholds": {"disk_usage_percent": DISK_PERCENT},
        "conditions": ["disk_full", "disk_usage_high"],
    }
    host = {"host": NAME, "watch": ["disk"], "filesystems": [folder]}
    return {
        "recovery": {
            "max_attempts_per_hour": 1000,
            "redis": {"targets": {"default": target}, "strategies": [reconnect, restart]},
            "system": {"targets": {"disk": host}, "strategies": [cleanup]},
        },
        "detection": {"every": CYCLE, "confirm_after": 0.2, "flapping": {"changes": 100}},
        "http": {"enabled": False},
    }


def arguments(port: int, folder: str) -> list[str]:
    """Of the server that each watches."""
    known = ["--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    return [*known, "--appendonly", "yes", "--dir", folder]


@contextmanager
def disk(folder: Path) -> Iterator[Path]:
    """A small filesystem, where whoever runs this may mount one; else a folder."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)]
    mounted = not subprocess.run(mount, check=False, capture_output=True).returncode
    (folder / "old").mkdir()
    try:
        yield folder
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=False)


@contextmanager
def monit(where: Path) -> Iterator[Watched]:
    """In the foreground, on its fastest cycle, with its test of the protocol; it opens no port."""
    with disk(where / "monit") as data, ExitStack() as stack:
        folder = where / "monit-own"
        folder.mkdir()
        watched = Watched("monit", servers.free_port(), data)
        control = monitrc(watched, folder)
        command = ["monit", "-I", "-c", str(control)]
        quiet = subprocess.DEVNULL
        stack.enter_context(ended(subprocess.Popen(command, stdout=quiet, stderr=quiet)))
        yield watched
        stack.close()
        end_server(watched)


def monitrc(watched: Watched, folder: Path) -> Path:
    pid_file, control = folder / "redis.pid", folder / "monitrc"
    server = shlex.join(
        [
            servers.redis_binary(),
            *arguments(watched.port, str(watched.folder)),
            "--daemonize",
            "yes",
        ]
    )
    start = script(folder / "start", f"exec {server} --pidfile {pid_file}")
    stop = script(folder / "stop", f"kill -9 $(cat {pid_file})")
    clean = script(folder / "clean", f"find {watched.folder}/old -type f -delete")
    control.write_text(
        f"set daemon {CYCLE:.0f}\n"
        f"set pidfile {folder}/monit.pid\nset idfile {folder}/id\nset statefile {folder}/state\n"
        f"set log {folder}/monit.log\n"
        f"check process redis with pidfile {pid_file}\n"
        f'  start program = "{start}"\n'
        f'  stop program = "{stop}"\n'
        f"  if failed host 127.0.0.1 port {watched.port} protocol redis then restart\n"
        f"check filesystem disk with path {watched.folder}\n"
        f'  if space usage > {DISK_PERCENT}% then exec "{clean}"\n'
    )
    control.chmod(0o700)
    return control


def script(path: Path, line: str) -> Path:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o700)
    return path


@contextmanager
def docker(where: Path) -> Iterator[Watched]:
    """A container that Docker starts again whenever its process ends."""
    with disk(where / "docker") as folder:
        watched = InDocker("docker", servers.free_port(), folder)
        run = ["docker", "run", "-d", "--name", NAME, "--network", "host", "--restart", "always"]
        run += ["--volume", f"{folder}:/data", IMAGE]
        server = ["redis-server", *arguments(watched.port, "/data")]
        subprocess.run([*run, *server], check=True, stdout=subprocess.DEVNULL)
        try:
            yield watched
        finally:
            remove = ["docker", "rm", "-f", NAME]
            subprocess.run(remove, check=False, stdout=subprocess.DEVNULL)


def has_docker() -> bool:
    asked = ["docker", "image", "inspect", IMAGE]
    return (
        bool(shutil.which("docker"))
        and not subprocess.run(asked, check=False, capture_output=True).returncode
    )


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def end_server(watched: Watched) -> None:
    pid = watched.pid()
    if pid is not None:
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
