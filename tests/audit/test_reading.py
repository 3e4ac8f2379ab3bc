"""One trail to its readers, wherever its entries lie."""

from __future__ import annotations

import json
import tracemalloc
from datetime import timedelta

import pytest

from recovery import audit
from recovery.audit import chain, sealed
from recovery.errors import AuditDamaged
from tests.audit.trails import FIRST_DAY, Trail, lines_of, put_lines


def ids(entries: list[audit.AuditEntry]) -> list[str]:
    return [str(entry.fields["id"]) for entry in entries]


@pytest.fixture
def mixed(trail: Trail) -> Trail:
    """Three sealed days, one that is not, and an entry that is late for the first."""
    for day in range(3):
        trail.write(day, 3)
    trail.seal()
    trail.write(3, 3)
    trail.write(3, 1, late_for=0)
    return trail


def test_files_and_stream_are_read_as_one(mixed: Trail) -> None:
    assert mixed.read() == mixed.expected()


def test_what_is_late_stands_in_its_place_once_it_is_sealed(mixed: Trail) -> None:
    mixed.seal()

    assert ids(mixed.history()) == [f"r{n}" for n in (0, 1, 2, 12, 3, 4, 5, 6, 7, 8, 9, 10, 11)]


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [(1, 2, [3, 4, 5]), (0, 1, [0, 1, 2, 12]), (2, None, [6, 7, 8, 9, 10, 11]), (5, None, [])],
)
def test_the_days_in_range_are_read(
    mixed: Trail, first: int, last: int | None, expected: list[int]
) -> None:
    since = FIRST_DAY + timedelta(days=first)
    until = None if last is None else FIRST_DAY + timedelta(days=last)

    assert ids(mixed.history(since, until=until)) == [f"r{n}" for n in expected]


def test_no_file_of_another_day_is_opened(mixed: Trail) -> None:
    (mixed.folder / "audit-2025-01-03.jsonl.gz").write_bytes(b"damaged")

    since, until = FIRST_DAY + timedelta(days=1), FIRST_DAY + timedelta(days=1, hours=20)
    assert ids(mixed.history(since, until=until)) == ["r3", "r4", "r5"]


def test_a_time_between_two_entries_of_a_file_divides_them(mixed: Trail) -> None:
    moment = mixed.history()[1].at

    assert ids(mixed.history(until=moment)) == ["r0"]
    assert ids(mixed.history(moment))[0] == "r1"


def test_component_and_target_choose(mixed: Trail) -> None:
    assert ids(mixed.history(target="redis/t1")) == ["r1", "r4", "r7", "r10"]
    assert len(mixed.history(component="redis")) == 13
    assert mixed.history(component="chromadb") == []


def test_without_a_folder_the_stream_alone_is_read(mixed: Trail) -> None:
    assert len(list(audit.history(mixed.control, since=FIRST_DAY))) == 4


def test_the_newest_come_from_the_files_where_the_stream_has_too_few(mixed: Trail) -> None:
    mixed.seal()

    newest = audit.latest(mixed.control, 5, mixed.folder)

    assert ids(list(newest)) == ["r11", "r10", "r9", "r8", "r7"]


def test_a_damaged_file_is_read_as_far_as_it_goes_and_said_at_the_end(mixed: Trail) -> None:
    path = mixed.folder / "audit-2025-01-02.jsonl.gz"
    lines = lines_of(path)
    lines[2] = b"garbage\n"
    put_lines(path, lines)
    read = []

    with pytest.raises(AuditDamaged) as caught:
        read.extend(audit.history(mixed.control, since=FIRST_DAY, folder=mixed.folder))

    assert caught.value.facts == {"file": path.name, "finding": "altered"}
    assert len(read) == 12


def test_a_file_removed_while_it_is_read_is_at_the_end_of_its_retention(mixed: Trail) -> None:
    reading = audit.history(mixed.control, since=FIRST_DAY, folder=mixed.folder)
    next(reading)
    (mixed.folder / "audit-2025-01-03.jsonl.gz").unlink()

    assert len(list(reading)) == 9


def test_what_is_sealed_while_it_is_read_is_read_from_its_file(trail: Trail) -> None:
    for day in range(20):
        trail.write(day, 60)
    reading = audit.history(trail.control, since=FIRST_DAY, folder=trail.folder)
    first = next(reading)

    trail.seal()

    assert trail.waiting() == 0
    assert ids([first, *reading]) == [f"r{n}" for n in range(1200)]


def test_memory_does_not_grow_with_the_trail(trail: Trail) -> None:
    trail.folder.mkdir()
    size = 0
    for day in range(1, 11):
        lines = [
            json.dumps(
                {"audit_id": f"{1735689600000 + day * 86_400_000 + n}-0", "detail": "x" * 300}
            )
            for n in range(3000)
        ]
        header = sealed.Header(
            file=chain.file_name(f"2025-01-{day + 1:02}", compressed=True),
            number=day,
            day=f"2025-01-{day + 1:02}",
            host="one",
            sealed_at="2025-03-01T00:00:00+00:00",
            count=len(lines),
            first_id="",
            last_id="",
            after_n=0,
            last_n=0,
            previous=None,
            entries_sha256=sealed.digest_of_entries(lines),
        )
        sealed.write(trail.folder / header.file, header, lines)
        size += sum(len(line) for line in lines)
    tracemalloc.start()

    count = sum(1 for _ in audit.history(trail.control, since=FIRST_DAY, folder=trail.folder))

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 30_000
    assert peak < size / 10
