"""Encryption of what lies in the control plane."""

from __future__ import annotations

from pathlib import Path

import pytest

from recovery import encryption
from recovery.errors import ConfigError, Unreadable

OLD, NEW = encryption.new_key(), encryption.new_key()


def test_what_is_encrypted_comes_back_and_cannot_be_read() -> None:
    encrypted = encryption.encrypt("token-in-clear", {"RECOVERY_SECRET_KEY": NEW})

    assert "token-in-clear" not in encrypted
    assert encryption.decrypt(encrypted, {"RECOVERY_SECRET_KEY": NEW}) == "token-in-clear"


def test_a_missing_key_says_how_to_make_one() -> None:
    with pytest.raises(ConfigError, match="recovery config secret-key"):
        encryption.encrypt("text", {})


def test_a_key_that_is_none_is_named_by_its_place_and_never_shown() -> None:
    with pytest.raises(ConfigError, match="key 2") as caught:
        encryption.encrypt("text", {"RECOVERY_SECRET_KEY": f"{NEW},hunter2-not-a-key"})

    assert "hunter2" not in str(caught.value)


def test_a_rotation_has_both_keys_for_a_while() -> None:
    encrypted = encryption.encrypt("text", {"RECOVERY_SECRET_KEY": OLD})
    both = {"RECOVERY_SECRET_KEY": f"{NEW}, {OLD}"}

    again = encryption.rotated(encrypted, both)

    assert again is not None
    assert encryption.decrypt(encrypted, both) == "text"
    assert encryption.decrypt(again, {"RECOVERY_SECRET_KEY": NEW}) == "text"
    assert encryption.rotated(again, both) is None


def test_what_another_key_encrypted_is_unreadable() -> None:
    encrypted = encryption.encrypt("text", {"RECOVERY_SECRET_KEY": OLD})

    with pytest.raises(Unreadable):
        encryption.decrypt(encrypted, {"RECOVERY_SECRET_KEY": NEW})


def test_a_key_may_be_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "secret.key"
    file.write_text(f"{NEW}\n")

    encrypted = encryption.encrypt("text", {"RECOVERY_SECRET_KEY_FILE": str(file)})

    assert encryption.decrypt(encrypted, {"RECOVERY_SECRET_KEY": NEW}) == "text"


def test_a_key_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.key"):
        encryption.encrypt("text", {"RECOVERY_SECRET_KEY_FILE": str(tmp_path / "gone.key")})
