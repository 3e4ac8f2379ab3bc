"""One host has the files, and one process of it works on them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from recovery.audit import Sealing, chain, sealed
from recovery.config.model import AuditSection
from recovery.errors import AuditNotSealed
from tests.audit.trails import Trail


def test_the_files_belong_to_one_host(trail: Trail, tmp_path: Path) -> None:
    trail.write(0, 2)
    trail.seal()
    trail.write(1, 2)
    other = replace(trail, host="two", folder=tmp_path / "two")

    report = other.seal()

    assert (report.sealing, report.owner) == (Sealing.ELSEWHERE, "one")
    assert report.must_be_asked
    assert not other.seal().must_be_asked
    assert not other.folder.exists()
    assert trail.seal().moved == 2


def test_another_host_takes_over_when_told_and_goes_on_behind_the_chain(
    trail: Trail, tmp_path: Path
) -> None:
    trail.write(0, 2)
    trail.seal()
    trail.write(1, 2)
    other = replace(trail, host="two", folder=tmp_path / "two")

    other.seal(take_over=True)

    assert other.files() == ["audit-2025-01-02.jsonl.gz"]
    header = sealed.read_header(other.folder / other.files()[0])
    assert header.number == 2
    assert header.previous is not None
    assert header.previous.file == "audit-2025-01-01.jsonl.gz"
    assert other.verify().is_whole
    assert trail.seal().sealing is Sealing.ELSEWHERE
    for name in trail.files():
        (other.folder / name).write_bytes((trail.folder / name).read_bytes())
    assert other.verify().is_whole
    assert other.read() == other.expected()
    brought = other.folder / trail.files()[0]
    header, lines = sealed.read_header(brought), [line for line, _ in sealed.read(brought)]
    brought.unlink()
    sealed.write(brought, header.model_copy(update={"host": "forged"}), lines)
    assert [(f.kind, f.file) for f in other.verify().findings] == [("altered", brought.name)]


def test_a_silent_host_is_given_up(trail: Trail, tmp_path: Path) -> None:
    trail.write(0, 2)
    trail.seal()
    trail.write(1, 2)
    silent = int(datetime.now(UTC).timestamp() * 1000) - 60_000
    trail.control.redis.hset(trail.control.key("audit", "host"), "seen", silent)
    other = replace(trail, host="two", folder=tmp_path / "two")

    other.settings = AuditSection(retention_days=36_500, takeover_after=3600)
    assert other.seal().sealing is Sealing.ELSEWHERE

    other.settings = AuditSection(retention_days=36_500, takeover_after=30)
    assert other.seal().moved == 2


def test_who_finds_the_folder_taken_leaves_it_alone(trail: Trail) -> None:
    trail.write(0, 2)
    trail.folder.mkdir()
    with chain.exclusive(trail.folder) as is_ours:
        assert is_ours
        assert trail.seal().sealing is Sealing.BUSY
    assert trail.seal().moved == 2


def test_another_hosts_lock_is_waited_for(trail: Trail) -> None:
    trail.write(0, 2)
    lock = trail.control.key("audit", "lock")
    trail.control.redis.set(lock, "two 123", px=60_000)

    assert trail.seal().sealing is Sealing.BUSY

    trail.control.redis.delete(lock)
    assert trail.seal().moved == 2


def test_who_loses_its_turn_puts_nothing_in_place(
    trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    trail.write(0, 2)
    write = sealed.write

    def overtaken(*args: object) -> None:
        write(*args)
        trail.control.redis.set(trail.control.key("audit", "lock"), "two 123", px=60_000)

    monkeypatch.setattr(sealed, "write", overtaken)
    with pytest.raises(AuditNotSealed, match="another process"):
        trail.seal()

    assert trail.files() == ["audit-2025-01-01.jsonl.gz.draft"]
    assert trail.waiting() == 2
