"""Channels have their turns: nothing is lost, and no channel waits for another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import trustme

from recovery import alerts
from recovery.alerts import Channel, Notice
from recovery.alerts.delivery import LONGEST_PAUSE_SECONDS
from recovery.errors import AlertNotDelivered, AlertRefused
from tests.alerts.conftest import Desk
from tests.alerts.sinks import HttpSink, MailSink
from tests.servers import free_port
from tests.stack import Stack
from tests.waiting import until


class Notebook(Channel):
    """Keeps what it is given, or says why not."""

    def __init__(self, name: str = "notebook", fault: BaseException | None = None) -> None:
        self.name = name
        self.fault = fault
        self.read: list[Notice] = []

    def send(self, notices: Sequence[Notice]) -> None:
        if self.fault is not None:
            raise self.fault
        self.read += notices


def test_each_channel_gets_every_alert_once(desk: Desk) -> None:
    one, two = Notebook("one"), Notebook("two")
    for number in range(450):
        desk.tell(id=f"r-{number}")

    desk.deliver(one, two)
    desk.deliver(one, two)

    for notebook in (one, two):
        assert [n.recovery_id for n in notebook.read] == [f"r-{i}" for i in range(450)]


def test_a_channel_that_is_away_holds_up_no_other_and_loses_nothing(desk: Desk) -> None:
    away, well = Notebook("away", AlertNotDelivered("down")), Notebook("well")
    for number in range(300):
        desk.tell(id=f"r-{number}")
        if number % 100 == 0:
            desk.deliver(away, well)
            desk.rest_is_over("away")
    desk.deliver(away, well)
    assert len(well.read) == 300
    assert not away.read
    (standing, _) = alerts.standing(desk.control, (away, well))
    assert (standing.failures, standing.error) == (4, "down")

    away.fault = None
    desk.rest_is_over("away")
    desk.deliver(away, well)

    assert [n.recovery_id for n in away.read] == [f"r-{i}" for i in range(300)]
    assert alerts.standing(desk.control, (away,))[0].failures == 0


def test_a_channel_that_is_away_is_asked_less_and_less_often(desk: Desk) -> None:
    away = Notebook("away", AlertNotDelivered("down"))
    desk.tell()
    pauses = []

    for _ in range(9):
        desk.rest_is_over("away")
        desk.deliver(away)
        until_ms = desk.control.redis.hget(desk.control.key("channel", "away"), "rests_until")
        pauses.append((int(until_ms) - desk.control.now_ms()) / 1000)

    assert pauses[0] <= 1 < pauses[2] < pauses[5] <= LONGEST_PAUSE_SECONDS
    assert pauses[-1] <= LONGEST_PAUSE_SECONDS


def test_while_it_rests_a_channel_is_not_asked(desk: Desk) -> None:
    away = Notebook("away", AlertNotDelivered("down"))
    desk.tell()
    desk.deliver(away)
    away.fault = None

    desk.deliver(away)

    assert not away.read


def test_what_a_channel_will_never_take_does_not_hold_up_what_follows(desk: Desk) -> None:
    notebook = Notebook(fault=AlertRefused("nonsense"))
    desk.tell(id="bad")
    desk.deliver(notebook)
    notebook.fault = None
    desk.tell(id="good")

    desk.deliver(notebook)

    assert [n.recovery_id for n in notebook.read] == ["good"]
    assert alerts.standing(desk.control, (notebook,))[0].refused == 1


def test_a_channel_that_crashes_is_left_alone_like_one_that_is_away(desk: Desk) -> None:
    broken, well = Notebook("broken", KeyError("?")), Notebook("well")
    desk.tell()

    desk.deliver(broken, well)

    assert len(well.read) == 1
    assert alerts.standing(desk.control, (broken,))[0].error == "KeyError"


def test_what_was_read_and_never_acknowledged_is_sent_by_the_next_turn(desk: Desk) -> None:
    notebook = Notebook(fault=SystemExit())
    desk.tell(id="r-9")
    with pytest.raises(SystemExit):
        desk.deliver(notebook)
    notebook.fault = None

    desk.deliver(notebook)

    assert [n.recovery_id for n in notebook.read] == ["r-9"]


def test_a_turn_that_runs_elsewhere_is_not_taken_twice(desk: Desk) -> None:
    notebook = Notebook()
    desk.tell()
    turn = desk.control.key("channel:turn", notebook.name)
    desk.control.redis.set(turn, "another worker", px=60_000)

    desk.deliver(notebook)
    assert not notebook.read

    desk.control.redis.delete(turn)
    desk.deliver(notebook)
    assert len(notebook.read) == 1


def test_alerts_that_a_channel_missed_for_too_long_are_counted(desk: Desk) -> None:
    away = Notebook("away", AlertNotDelivered("down"))
    for _ in range(3):
        desk.tell()
    desk.deliver(away)
    desk.control.redis.xtrim(desk.control.key("outbox"), maxlen=0)
    away.fault = None
    desk.rest_is_over("away")

    desk.deliver(away)

    assert alerts.standing(desk.control, (away,))[0].lost == 3


def test_a_webhook_is_told_in_batches_and_shows_its_token(
    desk: Desk, sink: HttpSink, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("t0ps3cret\n")
    hook = {"url": f"{sink.url}/hook", "token_file": str(tmp_path / "token")}
    desk.turn_to(channels=["webhooks"], webhooks={"pager": hook})
    for number in range(3):
        desk.tell(id=f"r-{number}")

    desk.deliver()

    assert sink.paths == ["/hook"]
    assert sink.seen_headers[0]["authorization"] == "Bearer t0ps3cret"
    assert [one["recovery_id"] for one in sink.alerts] == ["r-0", "r-1", "r-2"]
    assert sink.alerts[0]["summary"] == "reconnect could not repair redis/default"


def test_an_address_may_lie_in_a_file(desk: Desk, sink: HttpSink, tmp_path: Path) -> None:
    address = tmp_path / "address"
    desk.turn_to(channels=["webhooks"], webhooks={"pager": {"url_file": str(address)}})
    desk.tell()
    desk.deliver()
    assert not sink.received

    address.write_text(sink.url)
    desk.rest_is_over("webhook/pager")
    desk.deliver()

    assert len(sink.alerts) == 1


def test_one_webhook_that_is_away_costs_the_other_nothing(
    desk: Desk, sink: HttpSink, other_sink: HttpSink
) -> None:
    hooks = {"one": {"url": sink.url}, "two": {"url": other_sink.url}}
    desk.turn_to(channels=["webhooks"], webhooks=hooks)
    sink.status = 503
    desk.tell()

    desk.deliver()
    assert len(other_sink.alerts) == 1

    sink.status = 200
    desk.rest_is_over("webhook/one")
    desk.deliver()
    assert len(sink.alerts) == 1
    assert len(other_sink.alerts) == 1


@pytest.mark.parametrize(("status", "again"), [(500, True), (429, True), (401, True), (400, False)])
def test_an_answer_decides_whether_to_ask_again(
    desk: Desk, sink: HttpSink, status: int, again: bool
) -> None:
    desk.turn_to(channels=["webhooks"], webhooks={"pager": {"url": sink.url}})
    sink.status = status
    desk.tell()
    desk.deliver()
    sink.status = 200
    desk.rest_is_over("webhook/pager")

    desk.deliver()

    assert len(sink.received) == int(again)


def test_a_receiver_behind_tls_is_trusted_by_its_own_authority(desk: Desk, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    sink = HttpSink(certificate=authority.issue_cert("127.0.0.1"))
    sink.start()
    trusting = {"url": sink.url, "tls_ca_file": str(tmp_path / "ca.pem")}
    desk.turn_to(
        channels=["webhooks", "prometheus_alertmanager"],
        webhooks={"trusts": trusting, "doubts": {"url": sink.url}},
        integration={"prometheus_alertmanager": sink.url},
        alertmanager={"tls_ca_file": str(tmp_path / "ca.pem")},
    )
    desk.tell()

    channels = alerts.channels_of(desk.policy)
    desk.deliver(*channels)

    stood = {one.name: one for one in alerts.standing(desk.control, channels)}
    assert sorted(sink.paths) == ["/", "/api/v2/alerts"]
    assert stood["webhook/trusts"].delivered == 1
    assert stood["webhook/doubts"].error.startswith("TLS")
    sink.stop()


def test_what_is_sent_does_not_follow_to_another_place(
    desk: Desk, sink: HttpSink, other_sink: HttpSink
) -> None:
    hook = {"url": sink.url, "token": "t0ps3cret"}
    desk.turn_to(channels=["webhooks"], webhooks={"pager": hook})
    sink.status, sink.headers = 307, {"location": other_sink.url}
    desk.tell()

    desk.deliver()

    assert not other_sink.paths


def test_no_secret_is_said_about_a_channel_that_is_away(desk: Desk) -> None:
    url = f"http://127.0.0.1:{free_port()}/s3cret-path"
    message = "slack://s3cretA/s3cretB/s3cretC/#ops"
    desk.turn_to(
        channels=["webhooks", "messages"],
        webhooks={"pager": {"url": url, "token": "s3cret-token"}},
        messages={"chat": {"url": message}},
    )
    desk.tell()

    channels = alerts.channels_of(desk.policy)
    desk.deliver(*channels)

    stood = {one.name: one for one in alerts.standing(desk.control, channels)}
    assert stood["webhook/pager"].error == "Connection refused"
    assert stood["message/chat"].failures == 1
    assert "s3cret" not in repr(stood)
    assert "s3cret" not in repr([vars(channel) for channel in channels])


def test_a_message_goes_out_by_mail_with_links_to_runbook_and_page(
    desk: Desk, mail: MailSink
) -> None:
    desk.turn_to(
        channels=["messages"],
        messages={"ops": {"url": mail.url}},
        runbook_url="https://docs.example.org/runbooks/",
    )
    desk.tell("approval", strategy="restart_container", id="r-7", target="redis/cache")

    desk.deliver()

    (message,) = mail.messages
    assert (
        message["subject"] == "[P0] restart_container of redis/cache waits for a person's approval"
    )
    text = message.get_content()
    assert "https://docs.example.org/runbooks/redis-restart-container.md" in text
    assert "https://recovery.example.org/#a:r-7" in text


def test_an_address_of_a_message_may_lie_in_a_file(
    desk: Desk, mail: MailSink, tmp_path: Path
) -> None:
    (tmp_path / "address").write_text(f"{mail.url}\n")
    messages = {"ops": {"url_file": str(tmp_path / "address")}}
    desk.turn_to(channels=["messages"], messages=messages)
    desk.tell()

    desk.deliver()

    assert len(mail.messages) == 1


def test_a_storm_is_one_message_and_the_next_one_waits(desk: Desk, mail: MailSink) -> None:
    desk.turn_to(channels=["messages"], messages={"ops": {"url": mail.url, "every": "1h"}})
    for number in range(150):
        desk.tell(id=f"r-{number}", target=f"redis/t{number}")
    desk.deliver()
    desk.tell(id="late")
    desk.deliver()

    (message,) = mail.messages
    assert message["subject"] == "[P0] 150 alerts of 150 targets"
    assert "… and 110 more: 110 P0" in message.get_content()

    desk.rest_is_over("message/ops")
    desk.deliver()
    assert len(mail.messages) == 2


def test_who_wants_only_the_worst_gets_only_that(desk: Desk, mail: MailSink) -> None:
    desk.turn_to(
        channels=["messages"],
        messages={"ops": {"url": mail.url, "at_least": "P1"}},
        severity_mapping={"critical": "P2"},
    )
    desk.tell(id="mild")
    desk.tell(id="bad", severity="P1")

    desk.deliver()

    (message,) = mail.messages
    assert message["subject"] == "[P1] reconnect could not repair redis/default"


def test_a_repair_that_worked_wakes_nobody(desk: Desk, mail: MailSink) -> None:
    desk.turn_to(channels=["messages"], messages={"ops": {"url": mail.url, "at_least": "P2"}})
    desk.tell(result="recovered", severity="P0")

    desk.deliver()

    assert not mail.messages


def test_a_mail_server_that_is_away_gets_it_when_it_is_back(desk: Desk, mail: MailSink) -> None:
    mail.stop()
    desk.turn_to(channels=["messages"], messages={"ops": {"url": mail.url}})
    desk.tell()
    desk.deliver()
    assert not mail.messages

    mail.start()
    desk.rest_is_over("message/ops")
    desk.deliver()

    assert len(mail.messages) == 1


@pytest.fixture
def policy_options() -> dict[str, object]:
    hooks = {"one": {"url": f"http://127.0.0.1:{free_port()}"}}
    return {"sections": {"alerting": {"channels": ["webhooks"], "webhooks": hooks}}}


def test_workers_repair_while_a_channel_is_away(stack: Stack, fleet: object) -> None:
    fleet.start()  # type: ignore[attr-defined]
    stack.exhaust_clients()

    record = stack.concluded(stack.trigger("connection_error"), seconds=60)

    assert record.outcome is not None
    assert record.outcome.result == "recovered"
    state = stack.control.key("channel", "webhook/one")
    until(lambda: stack.control.redis.hget(state, "failures"), seconds=30, what="it was tried")
