"""Signing in again: once, carefully, and with proof."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from recovery import encryption
from recovery.components.openwebui import tokens
from recovery.components.openwebui.known import stored_token
from recovery.components.openwebui.probe import probe
from recovery.components.openwebui.target import OpenWebuiTarget
from recovery.components.openwebui.token_refresh import token_refresh
from recovery.controlplane import ControlPlane
from recovery.errors import (
    CredentialsRefused,
    DeadlineExceeded,
    MemoryAway,
    NotConfigured,
    RemedyError,
    SignInsLimited,
    TargetUnreachable,
)
from recovery.memory import TargetMemory
from recovery.routing import Road, TokenKind
from recovery.strategy import Parameters
from tests.components.openwebui.describing import REF, described, store, with_token
from tests.journals import MemoryJournal
from tests.openwebui import EMAIL, PASSWORD, OpenWebui
from tests.servers import RedisServer


def refresh(target: OpenWebuiTarget, journal: MemoryJournal | None = None) -> MemoryJournal:
    journal = journal or MemoryJournal()
    assert token_refresh.remedy is not None
    token_refresh.remedy(target, Parameters(), journal)
    return journal


def test_a_refused_token_is_replaced_by_one_that_works(
    target: OpenWebuiTarget, openwebui: OpenWebui, memory: TargetMemory
) -> None:
    store(openwebui, memory, "garbage", None)
    assert probe(target, 10).failure_type == "auth_failure"

    journal = refresh(target)

    assert probe(target, 10).healthy
    route = memory.route()
    token = stored_token(route)
    assert (token.kind, token.expires) == (TokenKind.JWT, route.token_expires)
    assert token.seconds_left() > 2_400_000
    assert (route.road, route.model) == (Road.OPENWEBUI, "llama-3")
    assert openwebui.signed_in == [200]
    assert "stored the token, and told applications" in journal.texts


def test_the_first_token_makes_the_first_route(
    target: OpenWebuiTarget, memory: TargetMemory, openwebui: OpenWebui
) -> None:
    refresh(target)

    route = memory.route()
    assert (route.base_url, route.primary_model, route.is_home) == (openwebui.url, "llama-3", True)
    assert probe(target, 10).healthy


def test_what_still_works_is_not_signed_in_for_again(
    target: OpenWebuiTarget, openwebui: OpenWebui, memory: TargetMemory
) -> None:
    with_token(openwebui, memory)

    refresh(target)

    assert openwebui.sign_ins == []


def test_many_hosts_at_once_sign_in_once(
    openwebui: OpenWebui, control: ControlPlane, target: OpenWebuiTarget
) -> None:
    openwebui.sign_in_delay = 0.2
    errors: list[Exception] = []

    def one(number: int) -> None:
        own = target.reminded(TargetMemory(control, REF, recovery_id=f"r-{number}"))
        try:
            refresh(own, MemoryJournal(recovery_id=f"r-{number}"))
        except RemedyError as error:
            errors.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    assert openwebui.signed_in == [200]


def test_a_recovery_that_is_resumed_goes_on_with_the_lock_of_its_dead_worker(
    target: OpenWebuiTarget, control: ControlPlane, openwebui: OpenWebui
) -> None:
    control.redis.set(lock_name(target), MemoryJournal().recovery_id, px=60_000)

    refresh(target)

    assert openwebui.signed_in[-1] == 200


def lock_name(target: OpenWebuiTarget) -> str:
    return f"recovery:held:sign_in:{tokens.account(target.base_url, EMAIL)}"


def test_somebody_elses_lock_is_waited_for_until_the_time_is_over(
    target: OpenWebuiTarget, control: ControlPlane, openwebui: OpenWebui
) -> None:
    control.redis.set(lock_name(target), "somebody else", px=60_000)

    with pytest.raises(DeadlineExceeded):
        refresh(target, MemoryJournal(seconds=0.5))

    assert openwebui.sign_ins == []
    assert control.redis.get(lock_name(target)) == "somebody else"


@pytest.mark.parametrize("where", ["policy", "file"])
def test_a_wrong_password_is_for_a_person_and_not_tried_again(
    openwebui: OpenWebui, memory: TargetMemory, tmp_path: Path, where: str
) -> None:
    file = tmp_path / "password"
    file.write_text("wrong\n")
    wrong = {"password": "wrong"} if where == "policy" else {"password_file": file}
    target = described(openwebui.url, memory, **wrong)

    for _ in range(3):
        with pytest.raises(CredentialsRefused) as caught:
            refresh(target)
        assert caught.value.needs_person
        assert not caught.value.transient

    assert openwebui.signed_in == [400]
    assert memory.route() is None


def test_a_password_that_a_person_changed_is_tried_at_once(
    openwebui: OpenWebui, memory: TargetMemory, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text("wrong")
    target = described(openwebui.url, memory, password_file=file)
    with pytest.raises(CredentialsRefused):
        refresh(target)

    file.write_text(PASSWORD)
    refresh(target)

    assert openwebui.signed_in == [400, 200]


@pytest.mark.parametrize("odd", ["missing", "empty", "a directory"])
def test_a_password_file_that_cannot_be_read_is_for_a_person(
    openwebui: OpenWebui, memory: TargetMemory, tmp_path: Path, odd: str
) -> None:
    file = tmp_path / "password"
    if odd == "empty":
        file.touch()
    elif odd == "a directory":
        file.mkdir()

    with pytest.raises(CredentialsRefused, match="password"):
        refresh(described(openwebui.url, memory, password_file=file))

    assert openwebui.sign_ins == []


def test_a_sign_in_that_is_switched_off_says_what_helps(
    target: OpenWebuiTarget, openwebui: OpenWebui
) -> None:
    openwebui.password_sign_in = False

    with pytest.raises(CredentialsRefused, match="api_key"):
        refresh(target)


def test_the_old_path_is_a_setting_and_wrong_on_todays_servers(
    openwebui: OpenWebui, memory: TargetMemory
) -> None:
    target = described(openwebui.url, memory, login_path="/api/v1/auth/login")

    with pytest.raises(CredentialsRefused, match="login_path"):
        refresh(target)


def test_the_limiter_is_obeyed_by_every_host_and_for_longer_each_time(
    target: OpenWebuiTarget, openwebui: OpenWebui, control: ControlPlane
) -> None:
    openwebui.fill_limiter(EMAIL)
    waits = []
    for _ in range(4):
        with pytest.raises(SignInsLimited) as caught:
            refresh(target)
        waits.append(caught.value.facts["retry_after"])
        with pytest.raises(SignInsLimited):
            refresh(target.reminded(TargetMemory(control, REF, recovery_id="elsewhere")))
        forget(control, "limited")

    # One attempt of ours for each wait that was over, whoever asked meanwhile.
    assert openwebui.signed_in == [429] * 4
    assert waits == [45, 90, 180, 180]
    openwebui.forget_sign_ins()
    refresh(target)
    assert openwebui.signed_in[-1] == 200


def forget(control: ControlPlane, kind: str) -> None:
    """The wait is over."""
    for name in control.redis.scan_iter(f"recovery:held:{kind}:*"):
        control.redis.delete(name)


@pytest.mark.parametrize(
    "odd",
    [
        {},
        [],
        "text",
        {"token": None},
        {"token": 5},
        {"token": ""},
        {"token": ["a"]},
        {"token": "two words"},
        {"token": "line\nbreak"},
        {"token": "ümlaut"},
        {"token": "x" * 20_000},
    ],
)
def test_what_is_no_token_is_not_stored(
    target: OpenWebuiTarget, openwebui: OpenWebui, memory: TargetMemory, odd: Any
) -> None:
    openwebui.odd_sign_in = odd

    with pytest.raises(RemedyError, match="no usable token"):
        refresh(target)

    assert memory.route() is None


@pytest.mark.parametrize("expires", ["soon", True, -5, 1e400, [1]])
def test_an_end_that_is_none_is_read_from_the_token_itself(
    target: OpenWebuiTarget, openwebui: OpenWebui, memory: TargetMemory, expires: Any
) -> None:
    token = openwebui.token(expires_in=5000)
    openwebui.odd_sign_in = {"token": token, "expires_at": expires}

    refresh(target)

    assert memory.route().token_expires == pytest.approx(openwebui.ends(5000), abs=5)


def test_a_token_that_never_ends_is_good(
    target: OpenWebuiTarget, openwebui: OpenWebui, memory: TargetMemory
) -> None:
    openwebui.expires_in = None

    refresh(target)

    assert memory.route().token_expires is None
    assert probe(target, 10).healthy


def test_a_token_that_does_not_work_is_not_stored(
    target: OpenWebuiTarget, openwebui: OpenWebui, memory: TargetMemory
) -> None:
    openwebui.odd_sign_in = {"token": "looks.like.one"}

    with pytest.raises(RemedyError, match="refuses the token"):
        refresh(target)

    assert memory.route() is None


@pytest.mark.parametrize("mode", ["drop", "hang", "drip", "html", "malformed", "login", "503"])
def test_a_server_that_is_ill_is_not_taken_for_a_refusal(
    openwebui: OpenWebui, memory: TargetMemory, mode: str
) -> None:
    openwebui.modes["/api/v1/auths/signin"] = mode
    target = described(openwebui.url, memory, answer_timeout="2s")

    with pytest.raises(TargetUnreachable):
        refresh(target)


def test_an_api_key_is_proven_and_handed_to_applications(
    openwebui: OpenWebui, memory: TargetMemory
) -> None:
    key = openwebui.api_key()
    target = described(openwebui.url, memory, api_key=key)
    assert probe(target, 10).failure_type == "token_expired"

    refresh(target)

    route = memory.route()
    assert encryption.decrypt(route.token) == key
    assert (route.token_kind, route.token_expires) == (TokenKind.API_KEY, None)
    assert probe(target, 10).healthy
    assert openwebui.sign_ins == []


@pytest.mark.parametrize("why", ["unknown", "switched off"])
def test_an_api_key_that_is_refused_is_for_a_person(
    openwebui: OpenWebui, memory: TargetMemory, why: str
) -> None:
    key = openwebui.api_key()
    if why == "unknown":
        openwebui.api_keys.clear()
    else:
        openwebui.api_keys_enabled = False

    with pytest.raises(CredentialsRefused):
        refresh(described(openwebui.url, memory, api_key=key))


def test_without_the_secret_key_nothing_is_signed_in_for(
    target: OpenWebuiTarget, openwebui: OpenWebui, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RECOVERY_SECRET_KEY")

    with pytest.raises(NotConfigured, match="recovery config secret-key"):
        refresh(target)

    assert openwebui.sign_ins == []


def test_a_token_of_a_lost_key_is_replaced(
    target: OpenWebuiTarget,
    openwebui: OpenWebui,
    memory: TargetMemory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_token(openwebui, memory)
    monkeypatch.setenv("RECOVERY_SECRET_KEY", encryption.new_key())

    refresh(target)

    assert probe(target, 10).healthy


def test_without_an_account_it_says_which_key_is_missing(
    openwebui: OpenWebui, memory: TargetMemory
) -> None:
    with pytest.raises(NotConfigured):
        refresh(OpenWebuiTarget(base_url=openwebui.url).reminded(memory))


def test_without_the_control_plane_there_is_nowhere_to_put_a_token(
    target: OpenWebuiTarget, openwebui: OpenWebui, control_redis: RedisServer
) -> None:
    control_redis.kill()

    for alone in (target, described(openwebui.url, None)):
        with pytest.raises(MemoryAway):
            refresh(alone)
    assert openwebui.sign_ins == []


def test_a_rehearsal_signs_in_nowhere(
    target: OpenWebuiTarget, openwebui: OpenWebui, memory: TargetMemory
) -> None:
    journal = refresh(target, MemoryJournal(dry_run=True))

    assert [step.text for step in journal.steps if step.planned] == ["signed in"]
    assert (openwebui.sign_ins, memory.route()) == ([], None)
