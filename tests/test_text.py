"""What nobody can show or store becomes text that says what it was."""

from __future__ import annotations

import json
import math

import pytest

from recovery.events import Outcome, ProbeReport, Result, Step
from recovery.text import plain, readable


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("plain", "plain"),
        ("Grüße, 世界 🎉", "Grüße, 世界 🎉"),
        ("two\nlines\tand a column", "two\nlines\tand a column"),
        ("half \ud83c of one", r"half \ud83c of one"),
        ("name\udcff", r"name\udcff"),
        ("\x1b[2Jgone\x9b2J\x00", r"\x1b[2Jgone\x9b2J\x00"),
    ],
)
def test_text_is_shown_as_what_it_is(said: str, shown: str) -> None:
    assert readable(said) == shown
    assert readable(shown) == shown


def test_what_is_nested_is_plain_json_afterwards() -> None:
    said = {"a\udcff": ["\ud800", (1, 2.5)], "n": math.nan, "i": math.inf, "yes": True, "no": None}

    assert plain(said) == {
        r"a\udcff": [r"\ud800", [1, 2.5]],
        "n": None,
        "i": None,
        "yes": True,
        "no": None,
    }


def test_no_noun_holds_what_cannot_be_stored() -> None:
    figures = {"\udcff": "\ud800", "rows": math.inf}
    report = ProbeReport(healthy=False, summary="\ud800", figures=figures)
    nouns = (
        report,
        Step(text="\udcff", at_seconds=0.0, figures=figures),
        Outcome(result=Result.FAILED, detail="\udcff", after=report),
    )

    for noun in nouns:
        text = json.dumps(noun.as_dict(), ensure_ascii=False, allow_nan=False)
        assert text.encode()
        assert type(noun).from_dict(noun.as_dict()) == noun
