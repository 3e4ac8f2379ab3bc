"""The policy file: the user's own loads, and what is wrong is said in its place."""

from __future__ import annotations

import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from recovery.config import effective, json_schema, load_policy
from recovery.config.model import policy_document
from recovery.errors import ConfigError
from recovery.events import TargetRef
from recovery.strategy import seconds

DATA = Path(__file__).parent / "data"


def problems(folder: Path, text: str, environ: dict[str, str] | None = None) -> list[str]:
    path = folder / "policy.yml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_policy(path, environ or {})
    return caught.value.message.splitlines()


def test_the_playbooks_own_file_loads_unchanged() -> None:
    policy = load_policy(DATA / "playbook_recovery_config.yml", {})

    assert set(policy.components) == {"redis", "chromadb", "openwebui", "system"}
    assert policy.limits(TargetRef("redis")).max_attempts_per_hour == 3
    assert policy.strategy("redis", "reconnect").max_retries == 3
    assert policy.severity("redis") == "P0"


def test_the_shipped_file_loads() -> None:
    assert load_policy(Path(__file__).parent.parent / "recovery_config.yml", {}).components


def test_an_unknown_key_is_said_with_its_line_and_the_likely_one(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, "recovery:\n  cooldown_second: 3\n")

    assert ":2: recovery.cooldown_second: unknown key, did you mean cooldown_seconds?" in found


def test_all_problems_are_said_at_once(tmp_path: Path) -> None:
    found = problems(tmp_path, "recovery:\n  cooldown_seconds: soon\naudit:\n  retention_days: 0\n")

    assert [line.split(": ")[1] for line in found] == [
        "recovery.cooldown_seconds",
        "audit.retention_days",
    ]


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, "audit:\n  enabled: true\n  enabled: false\n")

    assert "stands here twice, first in line 2" in found


def test_an_unset_variable_is_an_error_and_a_default_is_not(tmp_path: Path) -> None:
    text = "recovery:\n  redis:\n    targets:\n      a: {url: '${REDIS}'}\n"
    assert "REDIS is not set" in problems(tmp_path, text)[0]

    (tmp_path / "ok.yml").write_text(text.replace("${REDIS}", "${REDIS:-redis://127.0.0.1:1/0}"))
    load_policy(tmp_path / "ok.yml", {})


@pytest.mark.parametrize("text", ["", "- a\n", "a: [", "a: \t b\n\tc: d"])
def test_what_is_no_policy_is_a_clear_error(tmp_path: Path, text: str) -> None:
    assert problems(tmp_path, text)


def test_a_missing_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_policy(tmp_path / "none.yml", {})


def test_a_password_in_a_url_is_refused_without_being_repeated(tmp_path: Path) -> None:
    text = "recovery:\n  redis:\n    targets:\n      a: {url: 'redis://:hunter2@127.0.0.1/0'}\n"

    found = "\n".join(problems(tmp_path, text))

    assert "credentials" in found
    assert "hunter2" not in found


def test_effective_values_mask_secrets(tmp_path: Path) -> None:
    path = tmp_path / "policy.yml"
    path.write_text("recovery:\n  redis:\n    targets:\n      a: {password: '${PASSWORD}'}\n")

    shown = json.dumps(effective(load_policy(path, {"PASSWORD": "hunter2"})))

    assert "********" in shown
    assert "hunter2" not in shown


def test_the_schema_knows_every_strategy() -> None:
    text = json.dumps(json_schema())

    for name in ("reconnect", "snapshot_rollback", "model_failover", "disk_cleanup"):
        assert f'"{name}"' in text


@given(st.integers(1, 10_000), st.sampled_from(["ms", "s", "m", "h", "d"]))
def test_a_duration_is_its_number_times_its_unit(number: int, unit: str) -> None:
    factor = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}[unit]

    assert seconds(f"{number}{unit}") == pytest.approx(number * factor)
    assert seconds(f" {number} {unit} ") == seconds(f"{number}{unit}")


@given(st.text(max_size=12))
def test_other_text_is_refused_with_examples(text: str) -> None:
    assume(not re.fullmatch(r"\s*\d+(\.\d+)?\s*(ms|s|m|h|d)\s*", text))

    with pytest.raises(ValueError, match="30m"):
        seconds(text)


@given(st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=20))
def test_no_unknown_key_of_a_section_is_accepted(key: str) -> None:
    known = policy_document().model_fields["audit"].annotation.model_fields
    assume(key not in known)

    with TemporaryDirectory() as folder:
        (found,) = problems(Path(folder), f"audit:\n  ? {key!r}\n  : 1\n")

    assert f"audit.{key}: unknown key" in found
    assert "retention_days" in found
