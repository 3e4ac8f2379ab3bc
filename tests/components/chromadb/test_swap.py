"""Two directories change names: in one step, from wherever it stands, and back again."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from recovery.components.chromadb import swap
from recovery.components.chromadb.swap import Place, Swap
from recovery.errors import OwnerChanged


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Path, staged and aside; the first two are there, and say who they are."""
    places = (tmp_path / "data", tmp_path / ".data.new", tmp_path / ".data.old")
    for place, said in zip(places, ("old", "new"), strict=False):
        place.mkdir()
        (place / "who").write_text(said)
    return places


def who(place: Path) -> str | None:
    return (place / "who").read_text() if place.exists() else None


@pytest.fixture(params=["exchange", "two renames"])
def filesystem(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With and without a filesystem that exchanges names."""
    if request.param != "exchange":
        monkeypatch.setattr(swap, "_exchange_names", lambda *_: False)
    return str(request.param)


def test_forward_and_back(pair: tuple[Path, Path, Path], filesystem: str) -> None:
    path, staged, aside = pair
    begun = Swap.begin(path, staged, aside, "id")

    begun.forward()
    begun.forward()
    assert (who(path), who(staged), who(aside)) == ("new", None, "old")
    assert begun.place() is Place.NEW

    going = begun.back()
    going.back()
    assert (who(path), who(staged), who(aside)) == ("old", "new", None)
    going.end()
    assert Swap.find(path) is None
    assert sorted(one.name for one in path.parent.iterdir()) == [".data.new", "data"]


def test_where_nothing_was_nothing_comes_back(
    pair: tuple[Path, Path, Path], filesystem: str
) -> None:
    path, staged, aside = pair
    (path / "who").unlink()
    path.rmdir()
    begun = Swap.begin(path, staged, aside, "id")

    begun.forward()
    assert (who(path), who(staged), who(aside)) == ("new", None, None)
    begun.back()
    assert (who(path), who(staged)) == (None, "new")


class Killed(Exception):
    pass


@pytest.mark.parametrize("steps", range(6))
@pytest.mark.parametrize("direction", ["forward", "back"])
def test_whoever_comes_next_goes_on_from_any_step(
    pair: tuple[Path, Path, Path],
    filesystem: str,
    monkeypatch: pytest.MonkeyPatch,
    steps: int,
    direction: str,
) -> None:
    path, staged, aside = pair
    begun = Swap.begin(path, staged, aside, "id")
    if direction == "back":
        begun.forward()
    left = [steps]
    sync = swap._sync

    def dies_after(folder: Path) -> None:
        sync(folder)
        left[0] -= 1
        if left[0] < 0:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(swap, "_sync", dies_after)
        with suppress(Killed):
            begun.forward() if direction == "forward" else begun.back()

    assert who(path) in ("old", "new", None if filesystem != "exchange" else "old")
    found = Swap.find(path)
    assert found is not None
    if direction == "forward":
        found.forward()
        assert (who(path), who(staged), who(aside)) == ("new", None, "old")
    else:
        found.back()
        assert (who(path), who(staged), who(aside)) == ("old", "new", None)


def test_a_third_directory_under_the_name_is_left_alone(pair: tuple[Path, Path, Path]) -> None:
    path, staged, aside = pair
    begun = Swap.begin(path, staged, aside, "id")
    path.rename(path.with_name("moved"))
    path.mkdir()

    with pytest.raises(OwnerChanged, match="neither"):
        begun.forward()

    assert list(path.iterdir()) == []
