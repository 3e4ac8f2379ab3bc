"""The scripts of the control Redis: what each takes from the shared parts, it includes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import recovery
from recovery.controlplane import source

LUA = Path(recovery.__file__).parent / "lua"
SCRIPTS = sorted(file.stem for file in LUA.glob("*.lua") if file.stem != "prelude")
SHARED = {
    name: part.stem
    for part in (LUA / "parts").glob("*.lua")
    for name in re.findall(r"^local function (\w+)", part.read_text(), re.MULTILINE)
}


def calls(text: str) -> set[str]:
    code = re.sub(r"--.*", "", text)
    return set(re.findall(r"(?<![\w.'])(\w+)\(", code)) & SHARED.keys()


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_includes_what_it_calls(script: str) -> None:
    text = (LUA / f"{script}.lua").read_text()
    included = re.findall(r"^ *-- include (\w+)$", text, re.MULTILINE)
    needed = calls(text) | {
        name for part in included for name in calls((LUA / "parts" / f"{part}.lua").read_text())
    }

    assert {SHARED[name] for name in needed} <= set(included)


@pytest.mark.parametrize("script", SCRIPTS)
def test_nothing_is_left_to_be_included(script: str) -> None:
    assert "-- include" not in source(script).replace("`-- include NAME`", "")
