"""Closed days become files of a chain, and leave the stream only then."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from recovery.audit import chain, sealed, sealing
from recovery.config.model import AuditSection
from recovery.errors import AuditNotSealed
from tests.audit.trails import FIRST_DAY, Trail, lines_of, put_lines


def test_each_closed_day_is_a_file_that_names_the_one_before(trail: Trail) -> None:
    for day in range(3):
        trail.write(day, 4)

    report = trail.seal()

    names = [f"audit-2025-01-0{day}.jsonl.gz" for day in (1, 2, 3)]
    assert (report.files, report.moved, trail.waiting()) == (names, 12, 0)
    first, second, third = (sealed.read_header(trail.folder / name) for name in names)
    assert (first.previous, first.number, first.count) == (None, 1, 4)
    assert second.previous == sealed.Previous(
        file=names[0], sha256=sealed.digest_of_file(trail.folder / names[0])
    )
    assert (third.number, third.after_n, third.last_n) == (3, 8, 12)
    assert trail.read() == trail.expected()
    assert trail.verify().is_whole


def test_today_stays_in_the_stream(trail: Trail) -> None:
    trail.write(0, 2)
    now = datetime.now(UTC)
    trail.write((now - FIRST_DAY).days, 1)

    trail.seal()

    assert trail.waiting() == 1
    assert trail.read() == trail.expected()


def test_a_second_run_finds_nothing_to_do(trail: Trail) -> None:
    trail.write(0, 3)
    trail.seal()
    before = {path.name: path.read_bytes() for path in trail.folder.iterdir()}

    report = trail.seal()

    assert (report.files, report.moved) == ([], 0)
    assert {path.name: path.read_bytes() for path in trail.folder.iterdir()} == before


def test_a_line_is_readable_and_holds_the_entry_as_it_was_written(trail: Trail) -> None:
    trail.settings = AuditSection(retention_days=36_500, compression_enabled=False)
    trail.write(0)
    entry_id, text = trail.written[0]

    trail.seal()

    (_, line) = lines_of(trail.folder / "audit-2025-01-01.jsonl")
    assert line.decode() == f'{{"audit_id":"{entry_id}",{text[1:]}\n'


def test_what_is_late_goes_into_a_supplement(trail: Trail) -> None:
    trail.write(0, 2)
    trail.seal()
    trail.write(3, 2, late_for=0)
    trail.write(3, 1)

    report = trail.seal()

    assert report.files == ["audit-2025-01-01.2.jsonl.gz", "audit-2025-01-04.jsonl.gz"]
    assert [entry.fields["id"] for entry in trail.history()] == ["r0", "r1", "r2", "r3", "r4"]
    assert trail.verify().is_whole


def test_what_a_clock_ahead_has_dated_into_the_future_is_sealed_too(trail: Trail) -> None:
    ahead = (datetime.now(UTC) - FIRST_DAY).days + 400
    trail.write(ahead, 2)
    trail.write(ahead, 2, late_for=1)

    assert len(trail.seal().files) == 2
    assert trail.waiting() == 0
    assert trail.read() == trail.expected()


def test_a_full_day_gets_several_files(trail: Trail, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "MOST_ENTRIES", 10)
    trail.write(0, 25)

    trail.seal()

    assert len(trail.files()) == 3
    assert [entry.fields["id"] for entry in trail.history()] == [f"r{n}" for n in range(25)]
    assert trail.verify().is_whole


def test_a_run_out_of_time_says_that_there_is_more(trail: Trail) -> None:
    trail.write(0)
    trail.write(1)

    report = sealing.seal(trail.control, trail.folder, trail.settings, "one", seconds=-1)

    assert report.more
    assert trail.seal().moved == 2


def test_what_is_no_entry_of_ours_is_kept_as_well(trail: Trail) -> None:
    redis, key = trail.control.redis, trail.control.key("audit")
    foreign = [{"entry": "no json"}, {"other": "x", "entry": "{}"}, {"entry": '{"a":\n1}'}]
    for number, stored in enumerate(foreign):
        redis.xadd(key, stored, id=f"1735700000000-{number}")
    before = [dict(entry.fields) for entry in trail.history()]

    trail.seal()

    assert trail.waiting() == 0
    assert [dict(entry.fields) for entry in trail.history()] == before
    assert before == [{"stored": stored} for stored in foreign]


def test_entries_from_before_there_were_numbers_leave_no_gap(trail: Trail) -> None:
    for number in range(3):
        stored = {"entry": json.dumps({"target": "redis/a", "result": "failed"})}
        trail.control.redis.xadd(trail.control.key("audit"), stored, id=f"1735600000000-{number}")
    trail.write(0, 2)

    report = trail.seal()

    assert (report.moved, report.lost) == (5, [])
    assert trail.verify().is_whole


def test_numbers_that_the_stream_lost_are_said_and_told(trail: Trail) -> None:
    trail.write(0, 5)
    lost = [entry_id for entry_id, _ in trail.written[1:3]]
    trail.control.redis.xdel(trail.control.key("audit"), *lost)

    report = trail.seal()

    assert report.lost == ["the control Redis lost what was number 2 to 3"]
    (alert,) = trail.alerts()
    assert (alert["kind"], alert["host"]) == ("audit_gap", "one")
    assert "number 2 to 3" in str(alert["why"])
    assert [finding.kind for finding in trail.verify().findings] == ["gap"]


def test_a_stream_trimmed_behind_our_back_is_noticed_before_anything_is_sealed(
    trail: Trail,
) -> None:
    trail.write(0, 5)
    trail.control.redis.xtrim(trail.control.key("audit"), maxlen=2, approximate=False)

    (finding,) = trail.verify().findings

    assert (finding.kind, finding.file) == ("gap", None)
    assert "1 to 3" in finding.detail


def test_a_control_redis_that_counts_anew_is_noticed(trail: Trail) -> None:
    trail.write(0, 3)
    trail.seal()
    trail.control.redis.delete(trail.control.key("audit"), trail.control.key("audit", "n"))
    assert [finding.kind for finding in trail.verify().findings] == ["counted_back"]

    trail.write(1, 2)
    report = trail.seal()

    assert "number 1 follows number 3" in report.lost[0]
    assert [finding.kind for finding in trail.verify().findings] == ["counted_back"]
    assert trail.read() == trail.expected()


def test_files_past_their_retention_go_the_oldest_first_and_the_rest_is_still_proved(
    trail: Trail,
) -> None:
    for day in range(4):
        trail.write(day, 2)
    trail.seal()
    kept = datetime.now(UTC) - FIRST_DAY - timedelta(days=2)
    trail.settings = AuditSection(retention_days=kept / timedelta(days=1))

    report = trail.seal()

    assert report.removed == ["audit-2025-01-01.jsonl.gz", "audit-2025-01-02.jsonl.gz"]
    assert trail.files() == ["audit-2025-01-03.jsonl.gz", "audit-2025-01-04.jsonl.gz"]
    anchor = chain.read_anchor(trail.folder)
    assert anchor is not None
    assert anchor.removed is not None
    assert anchor.removed.file == "audit-2025-01-02.jsonl.gz"
    assert trail.verify().is_whole
    (trail.folder / "audit-2025-01-03.jsonl.gz").unlink()
    assert not trail.verify().is_whole


def test_everything_may_be_past_its_retention(trail: Trail) -> None:
    trail.write(0, 2)
    trail.settings = AuditSection(retention_days=1)

    trail.seal()

    assert trail.files() == []
    trail.write(1, 2)
    trail.settings = AuditSection(retention_days=36_500)
    trail.seal()
    assert trail.files() == ["audit-2025-01-02.jsonl.gz"]
    assert trail.verify().is_whole


@pytest.mark.parametrize(("compressed", "ending"), [(True, ".jsonl.gz"), (False, ".jsonl")])
def test_compression_is_the_policys_choice(trail: Trail, compressed: bool, ending: str) -> None:
    trail.settings = AuditSection(retention_days=36_500, compression_enabled=compressed)
    trail.write(0, 50)

    trail.seal()

    assert trail.files() == [f"audit-2025-01-01{ending}"]
    size = (trail.folder / trail.files()[0]).stat().st_size
    assert (size < 2000) is compressed
    trail.settings = AuditSection(retention_days=36_500, compression_enabled=not compressed)
    trail.write(1)
    trail.seal()
    assert trail.read() == trail.expected()
    assert trail.verify().is_whole


def test_a_lost_anchor_comes_back_from_the_control_redis_or_the_files(trail: Trail) -> None:
    for day in range(3):
        trail.write(day)
    trail.seal()
    anchor = chain.read_anchor(trail.folder)
    for lost in ((), (trail.control.key("audit", "chain"),)):
        (trail.folder / chain.ANCHOR).unlink()
        if lost:
            trail.control.redis.delete(*lost)
        assert [finding.kind for finding in trail.verify().findings] == ["missing_file"]

        trail.seal()

        assert chain.read_anchor(trail.folder) == anchor
        assert trail.verify().is_whole


def test_a_damaged_anchor_is_put_aside(trail: Trail) -> None:
    trail.write(0)
    trail.seal()
    path = trail.folder / chain.ANCHOR
    path.write_text(path.read_text().replace("one", "two"))

    trail.seal()

    assert (trail.folder / f"{chain.ANCHOR}.damaged").exists()
    assert trail.verify().is_whole


def test_a_lost_folder_is_found_missing_and_sealing_goes_on(trail: Trail) -> None:
    trail.write(0, 2)
    trail.seal()
    for path in trail.folder.iterdir():
        path.unlink()
    trail.write(1, 2)

    trail.seal()

    assert trail.files() == ["audit-2025-01-02.jsonl.gz"]
    (finding,) = trail.verify().findings
    assert (finding.kind, finding.file) == ("missing_file", "audit-2025-01-01.jsonl.gz")


def test_nothing_is_deleted_on_the_word_of_a_damaged_file(trail: Trail) -> None:
    trail.settings = AuditSection(retention_days=36_500, compression_enabled=False)
    trail.write(0, 3)
    trail.seal()
    stream = trail.control.key("audit")
    trail.control.redis.delete(stream)
    for entry_id, text in trail.written:
        trail.control.redis.xadd(stream, {"entry": text}, id=entry_id)
    path = trail.folder / "audit-2025-01-01.jsonl"
    lines = lines_of(path)
    put_lines(path, [*lines[:-1], lines[-1].replace(b"recovered", b"altered")])

    trail.seal()

    whole = trail.folder / "audit-2025-01-01.2.jsonl"
    assert [entry.fields["id"] for _, entry in sealed.read(whole)] == ["r0", "r1", "r2"]


def test_a_folder_brought_back_from_an_old_copy_lacks_its_newest_files(
    trail: Trail, tmp_path: Path
) -> None:
    trail.write(0, 2)
    trail.seal()
    shutil.copytree(trail.folder, tmp_path / "old")
    trail.write(1, 2)
    trail.seal()
    shutil.rmtree(trail.folder)
    shutil.copytree(tmp_path / "old", trail.folder)
    missing = [("missing_file", "audit-2025-01-02.jsonl.gz")]
    assert [(found.kind, found.file) for found in trail.verify().findings] == missing

    trail.write(2, 2)
    trail.seal()

    assert sealed.read_header(trail.folder / "audit-2025-01-03.jsonl.gz").number == 3
    assert [(found.kind, found.file) for found in trail.verify().findings] == missing


def test_a_folder_that_cannot_be_made_is_told_once_a_day(trail: Trail) -> None:
    trail.write(0, 2)
    trail.folder.write_text("in the way")

    for _ in range(2):
        with pytest.raises(AuditNotSealed):
            trail.seal()

    (alert,) = trail.alerts()
    assert alert["kind"] == "audit_not_sealed"
    assert trail.waiting() == 2
    trail.folder.unlink()
    assert trail.seal().moved == 2
