"""Archives that are not what was written: nothing leaves the folder, and a clear word is said."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from pydantic import ValidationError

from recovery.components.chromadb.snapshots import archive
from recovery.components.chromadb.snapshots.manifest import Manifest
from recovery.deadline import Deadline
from recovery.errors import SnapshotDamaged

Change = Callable[[tarfile.TarInfo, bytes], list[tarfile.TarInfo]]
CONTENT = b"vectors " * 50_000


@pytest.fixture
def packed(tmp_path: Path) -> tuple[Path, Manifest]:
    """An archive of two files, and what it says of itself."""
    source = tmp_path / "source"
    (source / "segment").mkdir(parents=True)
    (source / "chroma.sqlite3").write_bytes(CONTENT)
    (source / "segment" / "header.bin").write_bytes(b"header")
    (source / "segment" / "header.bin").chmod(0o640)
    place = tmp_path / "data.tar.zst"
    names = ["chroma.sqlite3", "segment/header.bin"]
    made = archive.pack(source, names, place, Deadline(60).remaining)
    return place, Manifest(
        name="one",
        target="chromadb/default",
        taken_at="2026-01-01T00:00:00Z",
        method="quiesce",
        chroma="1.5.9",
        schema_versions={},
        position=0,
        archive_bytes=made.bytes,
        archive_sha256=made.sha256,
        files=made.files,
        collections=(),
        queried=0,
        verified_at="2026-01-01T00:00:00Z",
        stopped_seconds=0,
    )


def unpack(place: Path, manifest: Manifest, into: Path) -> Path:
    into.mkdir()
    archive.unpack(place, manifest, into, Deadline(60).remaining)
    return into


def rewritten(place: Path, change: Change) -> None:
    """Write the archive anew with other members; each keeps the content that it had."""
    plain = zstandard.ZstdDecompressor().decompressobj().decompress(place.read_bytes())
    with (
        tarfile.open(fileobj=io.BytesIO(plain)) as old,
        place.open("wb") as file,
        zstandard.ZstdCompressor().stream_writer(file) as stream,
        tarfile.open(fileobj=stream, mode="w|") as new,
    ):
        for member in old:
            content = old.extractfile(member)
            assert content is not None
            known = content.read()
            for info in change(member, known):
                new.addfile(info, io.BytesIO(known) if info.isreg() else None)


def test_what_was_packed_comes_out_with_its_modes(
    packed: tuple[Path, Manifest], tmp_path: Path
) -> None:
    out = unpack(*packed, tmp_path / "out")

    assert (out / "chroma.sqlite3").read_bytes() == CONTENT
    assert (out / "segment" / "header.bin").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("share", [0, 0.3, 0.99])
def test_a_truncated_archive_is_damaged(
    packed: tuple[Path, Manifest], tmp_path: Path, share: float
) -> None:
    place, manifest = packed
    place.write_bytes(place.read_bytes()[: int(place.stat().st_size * share)])

    with pytest.raises(SnapshotDamaged, match="one"):
        unpack(place, manifest, tmp_path / "out")


def renamed(name: str) -> Change:
    def change(member: tarfile.TarInfo, _: bytes) -> list[tarfile.TarInfo]:
        member.name = name
        return [member]

    return change


def retyped(kind: bytes) -> Change:
    def change(member: tarfile.TarInfo, _: bytes) -> list[tarfile.TarInfo]:
        member.type, member.size, member.linkname = kind, 0, "/etc/passwd"
        return [member]

    return change


def doubled(member: tarfile.TarInfo, _: bytes) -> list[tarfile.TarInfo]:
    return [member, member]


@pytest.mark.parametrize(
    "change",
    [
        renamed("../outside"),
        renamed("/tmp/recovery-test-outside"),
        renamed("unknown"),
        retyped(tarfile.SYMTYPE),
        retyped(tarfile.LNKTYPE),
        retyped(tarfile.CHRTYPE),
        retyped(tarfile.FIFOTYPE),
        retyped(tarfile.DIRTYPE),
        doubled,
    ],
    ids=["climbs", "absolute", "unknown", "symlink", "link", "device", "fifo", "folder", "twice"],
)
def test_what_the_manifest_does_not_name_never_leaves_the_archive(
    packed: tuple[Path, Manifest],
    tmp_path: Path,
    change: Change,
) -> None:
    place, manifest = packed
    rewritten(place, change)

    with pytest.raises(SnapshotDamaged, match="not expected"):
        unpack(place, manifest, tmp_path / "out")

    assert not (tmp_path / "outside").exists()
    assert not Path("/tmp/recovery-test-outside").exists()


def test_another_content_of_the_same_size_is_noticed(
    packed: tuple[Path, Manifest], tmp_path: Path
) -> None:
    place, manifest = packed
    other = {**manifest.files}
    other["chroma.sqlite3"] = other["chroma.sqlite3"].model_copy(update={"sha256": "0" * 64})

    with pytest.raises(SnapshotDamaged, match="not what was stored"):
        unpack(place, manifest.model_copy(update={"files": other}), tmp_path / "out")


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a/../b", "a//b", "./a", "", "a\0b", "/".join("a" * 9)]
)
def test_a_manifest_with_a_path_that_climbs_out_is_none(
    packed: tuple[Path, Manifest], name: str
) -> None:
    plain = packed[1].model_dump(mode="json")
    plain["files"] = {name: plain["files"]["chroma.sqlite3"]}

    with pytest.raises(ValidationError):
        Manifest.model_validate(plain)
