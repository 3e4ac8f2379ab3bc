"""``recovery audit`` and ``recovery history`` as a person and as a script use them."""

from __future__ import annotations

import csv
import io
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.audit.trails import Trail
from tests.cli.test_commands import recovery
from tests.fleet import Fleet
from tests.stack import Stack
from tests.waiting import until


@pytest.fixture
def policy_options() -> dict[str, Any]:
    return {"sections": {"audit": {"retention_days": 36_500}}}


@pytest.fixture
def here(stack: Stack) -> Trail:
    """The trail of the stack's own host, with two days of entries."""
    folder = Path(stack.environ["RECOVERY_STATE_DIR"]) / "audit"
    trail = Trail(stack.control, folder, stack.policy.audit, "test-host")
    trail.write(0, 3)
    trail.write(1, 2)
    return trail


def exported(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    return recovery(stack, "audit", "export", *arguments)


def test_seal_and_verify_say_what_they_did(stack: Stack, here: Trail) -> None:
    sealed = recovery(stack, "audit", "seal")
    verified = recovery(stack, "audit", "verify")

    assert sealed.returncode == 0, sealed.stderr
    assert "5 entries sealed into audit-2025-01-01.jsonl.gz" in sealed.stdout
    assert verified.returncode == 0, verified.stdout
    assert "ok: 2 files with 5 entries" in verified.stdout


def test_verify_ends_with_one_and_every_finding(stack: Stack, here: Trail) -> None:
    here.seal()
    here.write(2, 2)
    here.control.redis.delete(here.control.key("audit"))
    (here.folder / "audit-2025-01-01.jsonl.gz").unlink()

    answer = recovery(stack, "audit", "verify", "--json")

    assert answer.returncode == 1
    verdict = json.loads(answer.stdout)
    assert not verdict["ok"]
    kinds = [(finding["kind"], finding["file"]) for finding in verdict["findings"]]
    assert kinds == [("missing_file", "audit-2025-01-01.jsonl.gz"), ("gap", None)]
    assert "missing_file: audit-2025-01-01.jsonl.gz" in recovery(stack, "audit", "verify").stdout


def test_a_copy_of_the_files_is_proved_without_a_control_redis(
    stack: Stack, here: Trail, tmp_path: Path
) -> None:
    here.seal()
    stack.environ["RECOVERY_REDIS_URL"] = "redis://127.0.0.1:1/0"

    assert recovery(stack, "audit", "verify", str(here.folder)).returncode == 0
    assert recovery(stack, "audit", "verify").returncode == 5
    assert recovery(stack, "audit", "verify", str(tmp_path)).returncode == 8


def test_export_as_json_lines_gives_every_entry(stack: Stack, here: Trail) -> None:
    here.seal()
    here.write(2, 2)

    answer = exported(stack)

    lines = [json.loads(line) for line in answer.stdout.splitlines()]
    assert [(line.pop("audit_id"), bool(line.pop("at"))) for line in lines] == [
        (entry_id, True) for entry_id, _ in here.written
    ]
    assert lines == [json.loads(text) for _, text in here.written]


def test_export_as_csv_has_a_column_for_each_fact(
    stack: Stack, here: Trail, tmp_path: Path
) -> None:
    before = {"found": "clients_exhausted", "clients": 40}
    entry = {"target": "redis/a", "reason": 'a, "b"\nc', "before": before, "new": 1, "n": 6}
    here.control.redis.set(here.control.key("audit", "n"), 6)
    here.control.redis.xadd(
        here.control.key("audit"), {"entry": json.dumps(entry)}, id="1735900000000-0"
    )
    output = tmp_path / "trail.csv"

    answer = exported(stack, "--format", "csv", "--output", str(output))

    assert answer.stdout.strip() == f"{output}: 6 entries"
    rows = list(csv.DictReader(io.StringIO(output.read_bytes().decode(), newline="")))
    assert [row["id"] for row in rows] == ["r0", "r1", "r2", "r3", "r4", ""]
    assert rows[-1]["reason"] == entry["reason"]
    assert json.loads(rows[-1]["before"]) == before
    assert json.loads(rows[-1]["more"]) == {"new": 1}
    assert not list(tmp_path.glob("*.draft"))


def test_export_is_told_from_when_to_when(stack: Stack, here: Trail) -> None:
    here.seal()

    answer = exported(stack, "--since", "2025-01-02", "--until", "2025-01-03", "--format", "jsonl")

    assert [json.loads(line)["id"] for line in answer.stdout.splitlines()] == ["r3", "r4"]


def test_export_of_a_damaged_trail_gives_what_there_is_and_fails(
    stack: Stack, here: Trail, tmp_path: Path
) -> None:
    here.seal()
    (here.folder / "audit-2025-01-01.jsonl.gz").write_bytes(b"")
    output = tmp_path / "trail.jsonl"

    answer = exported(stack, "--output", str(output))

    assert answer.returncode == 1
    assert "audit_damaged: audit-2025-01-01.jsonl.gz" in answer.stderr
    assert len(output.read_text().splitlines()) == 2


def test_an_output_that_cannot_be_written_has_its_own_code(stack: Stack, here: Trail) -> None:
    assert exported(stack, "--output", "/proc/none/trail").returncode == 8
    assert exported(stack, "--output", "/dev/full/x").returncode == 8


def test_history_reads_the_files_too(stack: Stack, here: Trail) -> None:
    here.seal()

    answer = recovery(stack, "history", "--last", "1000000", "--json", "--target", "redis/t1")

    assert [entry["id"] for entry in json.loads(answer.stdout)] == ["r1", "r4"]
    assert "r4" in recovery(stack, "status", "--json").stdout


def test_history_of_a_damaged_trail_shows_the_rest_and_fails(stack: Stack, here: Trail) -> None:
    here.seal()
    (here.folder / "audit-2025-01-01.jsonl.gz").write_bytes(b"")

    answer = recovery(stack, "history", "--last", "1000000", "--json")

    assert answer.returncode == 1
    assert [entry["id"] for entry in json.loads(answer.stdout)] == ["r3", "r4"]
    assert "recovery audit verify" in answer.stderr


def test_another_hosts_files_are_left_alone(stack: Stack, here: Trail) -> None:
    here.seal()
    here.write(2)
    stack.environ["RECOVERY_HOST"] = "other"
    stack.environ["RECOVERY_STATE_DIR"] += "-other"

    refused = recovery(stack, "audit", "seal")
    unproved = recovery(stack, "audit", "verify")
    history = recovery(stack, "history", "--last", "1000000", "--json")

    assert (refused.returncode, unproved.returncode) == (3, 8)
    assert "lie on test-host" in refused.stdout
    assert "lie on test-host" in history.stderr
    assert len(json.loads(history.stdout)) == 1
    assert recovery(stack, "audit", "seal", "--take-over").returncode == 0
    assert recovery(stack, "audit", "verify").returncode == 0


def test_a_worker_of_another_host_asks_the_one_that_has_the_files(
    stack: Stack, here: Trail, fleet: Fleet
) -> None:
    here.seal()
    here.write(2, 2)
    other = {"RECOVERY_HOST": "other", "RECOVERY_STATE_DIR": stack.environ["RECOVERY_STATE_DIR"]}
    fleet.start(queues=("maintenance",), beat=False, concurrency=1, environ=other)
    fleet.start(queues=("maintenance.test-host",), beat=False, concurrency=1)

    stack.app.send_task("recovery.seal_audit", queue="maintenance")

    until(lambda: here.waiting() == 0, what="sealed by the host that has the files")
    assert here.verify().findings == [], fleet.logs()
