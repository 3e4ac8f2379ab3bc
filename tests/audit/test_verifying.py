"""Whatever is done to the files is found; what nothing was done to is proved."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from recovery import audit
from recovery.audit import chain, sealed
from recovery.config.model import AuditSection
from recovery.controlplane import ControlPlane
from tests.audit.trails import Trail, lines_of, put_lines
from tests.servers import RedisServer

DAY_2 = "audit-2025-01-02.jsonl"
LAST = "audit-2025-01-01.4.jsonl"

Kinds = list[tuple[str, str | None]]


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "compressed"])
def made(
    request: pytest.FixtureRequest,
    audit_redis: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Trail]:
    """Three days and a supplement, proved; nothing of it is touched."""
    with audit_redis.client() as client:
        client.flushdb()
        settings = AuditSection(retention_days=36_500, compression_enabled=request.param)
        folder = tmp_path_factory.mktemp("made") / "audit"
        trail = Trail(ControlPlane(client), folder, settings)
        for day in range(3):
            trail.write(day, 5)
        trail.write(2, 5, late_for=0)
        trail.seal()
        assert audit.verify(folder).findings == []
        yield trail


@pytest.fixture
def copy(made: Trail, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made.folder, tmp_path / "copy"))


def named(folder: Path, name: str) -> Path:
    """With the ending that it has here."""
    path = folder / name
    return path if path.exists() else folder / f"{name}.gz"


def found(folder: Path) -> Kinds:
    findings = audit.verify(folder).findings
    return [(f.kind.value, f.file and f.file.removesuffix(".gz")) for f in findings]


def change_lines(path: Path, change: Callable[[list[bytes]], None]) -> None:
    lines = lines_of(path)
    change(lines)
    put_lines(path, lines)


def swap(lines: list[bytes]) -> None:
    lines[2], lines[3] = lines[3], lines[2]


def drop_one(lines: list[bytes]) -> None:
    del lines[3]


def drop_end(lines: list[bytes]) -> None:
    del lines[4:]


def alter(lines: list[bytes]) -> None:
    lines[2] = lines[2].replace(b"recovered", b"recoverex")


def garble(lines: list[bytes]) -> None:
    lines[2] = lines[2][1:]


def add(lines: list[bytes]) -> None:
    lines.append(lines[-1].replace(b"-0", b"-1"))


def change_header(lines: list[bytes]) -> None:
    lines[0] = lines[0].replace(b"one", b"two")


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (swap, "reordered"),
        (drop_one, "missing_entry"),
        (drop_end, "truncated"),
        (alter, "altered"),
        (garble, "altered"),
        (add, "altered"),
        (change_header, "bad_header"),
    ],
)
@pytest.mark.parametrize("name", [DAY_2, LAST])
def test_a_changed_file_is_named_with_what_was_done_to_it(
    copy: Path, change: Callable[[list[bytes]], None], kind: str, name: str
) -> None:
    change_lines(named(copy, name), change)

    assert (kind, name) in found(copy)


def test_a_missing_entry_is_named_by_its_number(copy: Path) -> None:
    change_lines(named(copy, DAY_2), drop_one)

    assert "number missing: 8" in audit.verify(copy).findings[0].detail


@pytest.mark.parametrize("bytes_left", [0, 5, 200, -1, -30])
@pytest.mark.parametrize("name", [DAY_2, LAST])
def test_a_truncated_file_is_found(copy: Path, bytes_left: int, name: str) -> None:
    path = named(copy, name)
    path.write_bytes(path.read_bytes()[:bytes_left])

    assert found(copy) == [("truncated", name)]


@pytest.mark.parametrize(
    "name", ["audit-2025-01-01.jsonl", DAY_2, "audit-2025-01-03.jsonl", LAST, chain.ANCHOR]
)
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    named(copy, name).unlink()

    assert found(copy) == [("missing_file", name)]


def test_several_missing_files_are_counted(copy: Path) -> None:
    for name in (DAY_2, "audit-2025-01-03.jsonl"):
        named(copy, name).unlink()

    assert ("missing_file", "audit-2025-01-03.jsonl") in found(copy)
    details = [finding.detail for finding in audit.verify(copy).findings]
    assert any("number 2 of the chain" in detail for detail in details)


def test_a_file_under_another_name_is_no_file_of_the_chain(copy: Path) -> None:
    path = named(copy, DAY_2)
    path.rename(path.with_name(path.name.replace("01-02", "01-05")))

    assert [kind for kind, _ in found(copy)] == ["bad_header", "missing_file"]


def test_a_forged_file_that_fits_its_own_header_does_not_fit_the_chain(copy: Path) -> None:
    for name in (DAY_2, LAST):
        path = named(copy, name)
        header = sealed.read_header(path)
        lines = [line for line, _ in sealed.read(path)]
        lines[1] = lines[1].replace("recovered", "failed")
        path.unlink()
        digest = sealed.digest_of_entries(lines)
        sealed.write(path, header.model_copy(update={"entries_sha256": digest}), lines)

        assert ("altered", name) in found(copy)


def test_the_control_redis_knows_the_end_even_where_files_and_anchor_are_gone(
    made: Trail, copy: Path
) -> None:
    named(copy, LAST).unlink()
    (copy / chain.ANCHOR).unlink()

    findings = audit.verify(copy, made.control).findings

    assert {finding.file and finding.file.removesuffix(".gz") for finding in findings} == {
        chain.ANCHOR,
        LAST,
    }


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=some.data())
def test_each_single_flipped_byte_is_found(
    made: Trail, tmp_path: Path, data: some.DataObject
) -> None:
    name = data.draw(some.sampled_from([*made.files(), chain.ANCHOR]))
    content = bytearray((made.folder / name).read_bytes())
    place = data.draw(some.integers(0, len(content) - 1))
    content[place] ^= data.draw(some.integers(1, 255))
    folder = tmp_path / "copy"
    shutil.copytree(made.folder, folder, dirs_exist_ok=True)
    (folder / name).write_bytes(content)

    assert name in {finding.file for finding in audit.verify(folder).findings}


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=some.data())
def test_each_swap_loss_and_repetition_of_lines_and_each_cut_is_found(
    made: Trail, tmp_path: Path, data: some.DataObject
) -> None:
    name = data.draw(some.sampled_from(made.files()))
    path = tmp_path / "copy" / name
    shutil.copytree(made.folder, path.parent, dirs_exist_ok=True)
    lines = lines_of(path)
    first, second = data.draw(
        some.lists(some.integers(0, len(lines) - 1), min_size=2, max_size=2, unique=True)
    )
    what = data.draw(some.sampled_from(["swap", "drop", "repeat", "cut"]))
    if what == "cut":
        content = path.read_bytes()
        path.write_bytes(content[: data.draw(some.integers(0, len(content) - 1))])
    else:
        if what == "swap":
            lines[first], lines[second] = lines[second], lines[first]
        elif what == "drop":
            del lines[first]
        else:
            lines.insert(second, lines[first])
        put_lines(path, lines)

    assert name in {finding.file for finding in audit.verify(path.parent).findings}
