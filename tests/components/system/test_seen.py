"""What a survey remembers of files."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from recovery.components.system import seen
from recovery.components.system.seen import Group, Memory, Seen

NUMBERS = st.integers(min_value=-(2**63), max_value=2**63 - 1)
NAMES = st.binary(min_size=1, max_size=255).map(lambda raw: os.fsdecode(raw.replace(b"/", b"_")))
FILES = st.builds(
    Seen,
    name=NAMES,
    inode=st.integers(min_value=0, max_value=2**64 - 1),
    size=NUMBERS,
    written=NUMBERS,
    bits=st.integers(min_value=1, max_value=200),
)


@given(st.lists(FILES, min_size=1, max_size=50))
def test_every_file_is_remembered_as_it_was(files: list[Seen]) -> None:
    assert list(Group.of(0, ("a", "b"), files)) == files


def test_memory_is_bounded_and_says_that_it_is_not_all() -> None:
    memory = Memory()
    group = Group.of(0, (), [Seen("x" * 200, number, 1, 1, 1) for number in range(128)])

    while memory.is_whole:
        memory.add(group)
    held = len(memory.groups)
    memory.add(group)

    assert len(memory.groups) == held
    assert sum(each.bytes for each in memory.groups) <= seen.MOST_BYTES
