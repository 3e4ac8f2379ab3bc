"""The archive of deleted keys: whatever is cut off its end, all before is there."""

from __future__ import annotations

import os
import resource
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recovery.components.redis import archive
from recovery.components.redis.archive import LEFT, TAKEN, UNSURE, KeyArchive, Record
from recovery.errors import NothingKept

RECORDS = st.lists(
    st.builds(
        Record,
        st.binary(min_size=1, max_size=40),
        st.just(-1) | st.integers(0, 2**52),
        st.binary(max_size=300),
    ),
    min_size=1,
    max_size=8,
)
PLENTY = 1 << 40


def plenty() -> int:
    return PLENTY


def write(path: Path, blocks: list[list[Record]]) -> list[int]:
    """Where each block ended."""
    ends = []
    with KeyArchive(path, plenty) as stored:
        for number, records in enumerate(blocks):
            stored.append(records, number)
            ends.append(stored.size)
            stored.settle(bytes([TAKEN]) * len(records))
    return ends


def read(path: Path) -> list[list[Record]]:
    return [list(block.records) for block in archive.blocks(path)]


@given(RECORDS)
def test_records_come_back_as_they_were(records: list[Record]) -> None:
    assert archive.unpack(archive.pack(records)) == records


@settings(deadline=None, max_examples=40)
@given(st.lists(RECORDS, min_size=1, max_size=4), st.data())
def test_a_torn_end_costs_only_what_was_not_yet_acted_upon(
    blocks: list[list[Record]], data: st.DataObject
) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / archive.FILE
        ends = write(path, blocks)
        cut = data.draw(st.integers(0, path.stat().st_size))
        torn = data.draw(st.binary(max_size=30))
        os.truncate(path, cut)
        with path.open("ab") as sink:
            sink.write(torn if cut >= ends[0] else b"")
        whole = [records for records, end in zip(blocks, ends, strict=True) if end <= cut]

        with KeyArchive(path, plenty) as stored:
            if stored.pending is not None:
                stored.settle(bytes([UNSURE]) * len(stored.pending.records))
            stored.append(blocks[0])
            stored.settle(bytes([TAKEN]) * len(blocks[0]))

        assert read(path) == [*whole, blocks[0]]
        assert archive.unreadable_bytes(path) == 0


def test_what_is_cut_off_is_not_thrown_away(tmp_path: Path) -> None:
    path = tmp_path / archive.FILE
    write(path, [[Record(b"a", -1, b"1")]])
    with path.open("ab") as sink:
        sink.write(b"half a block")

    with KeyArchive(path, plenty):
        pass

    assert (tmp_path / f"{archive.FILE}.torn-0").read_bytes() == b"half a block"


def test_a_block_that_was_not_settled_waits_for_it(tmp_path: Path) -> None:
    path = tmp_path / archive.FILE
    with KeyArchive(path, plenty) as stored:
        stored.append([Record(b"a", -1, b"1")], 7)

    with KeyArchive(path, plenty) as stored:
        assert stored.pending is not None
        assert stored.pending.tag == 7
        stored.settle(bytes([LEFT]))
        assert stored.kept == 0


def test_the_newest_record_of_a_key_counts_and_one_that_was_left_does_not(tmp_path: Path) -> None:
    path = tmp_path / archive.FILE
    first, second, third = (Record(b"a", -1, value) for value in (b"1", b"2", b"3"))
    with KeyArchive(path, plenty) as stored:
        for record, end in ((first, TAKEN), (second, UNSURE), (third, LEFT)):
            stored.append([record, Record(b"b" + record.dump, -1, b"")])
            stored.settle(bytes([end, TAKEN]))

    assert archive.superseded(path) == {(0, 0)}


def test_without_room_nothing_is_written_and_it_says_so(tmp_path: Path) -> None:
    path = tmp_path / archive.FILE
    with (
        KeyArchive(path, lambda: 10) as stored,
        pytest.raises(NothingKept, match="no room to keep"),
    ):
        stored.append([Record(b"a", -1, b"1" * 100)])

    assert read(path) == []


def test_a_write_that_fails_halfway_leaves_an_archive_that_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / archive.FILE
    records = [Record(os.urandom(20), -1, os.urandom(2000)) for _ in range(20)]
    write(path, [records])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with KeyArchive(path, plenty) as stored:
            # What the kernel says to a write past the limit is what it says on a full disk.
            resource.setrlimit(resource.RLIMIT_FSIZE, (stored.size + 10_000, hard))
            with pytest.raises(NothingKept, match="cannot write"):
                stored.append(records)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    with KeyArchive(path, plenty) as stored:
        assert stored.pending is None
    assert read(path) == [records]


def test_a_file_that_is_no_archive_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / archive.FILE
    shutil.copy(__file__, path)

    with pytest.raises(NothingKept, match="no archive"), KeyArchive(path, plenty):
        pass

    assert path.read_text() == Path(__file__).read_text()
