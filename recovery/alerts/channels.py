"""The channels that a policy asks for, and the addresses behind them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from recovery.alerts.alertmanager import AlertmanagerChannel
from recovery.alerts.channel import Channel, LogChannel
from recovery.alerts.messages import MessageChannel
from recovery.alerts.posting import Address
from recovery.alerts.webhook import WebhookChannel
from recovery.credentials import reveal
from recovery.errors import AlertNotDelivered, TargetRefused

if TYPE_CHECKING:
    from pydantic import SecretStr

    from recovery.config import Policy
    from recovery.config.alerting import AlertmanagerSection, MessageSection, WebhookSection


def channels_of(policy: Policy) -> tuple[Channel, ...]:
    """Every channel that is switched on; the log is always one."""
    return (LogChannel(), *_chosen(policy))


def _chosen(policy: Policy) -> Iterator[Channel]:
    alerting = policy.alerting
    url = policy.integration.prometheus_alertmanager
    if "prometheus_alertmanager" in alerting.channels and url:
        section = alerting.alertmanager
        address = partial(_alertmanager, url, section)
        yield AlertmanagerChannel(address, again=section.resend_after, shown=section.shown_for)
    if "webhooks" in alerting.channels:
        for name, hook in alerting.webhooks.items():
            yield WebhookChannel(name, partial(_webhook, hook))
    if "messages" in alerting.channels:
        for name, message in alerting.messages.items():
            yield MessageChannel(
                name, partial(_message, message), every=message.every, at_least=message.at_least
            )


def _alertmanager(url: str, section: AlertmanagerSection) -> Address:
    return Address(
        url=url,
        token=_secret(section.token, section.token_file),
        username=section.username,
        password=_secret(section.password, section.password_file),
        ca_file=section.tls_ca_file,
    )


def _webhook(section: WebhookSection) -> Address:
    return Address(
        url=_secret(section.url, section.url_file) or "",
        token=_secret(section.token, section.token_file),
        ca_file=section.tls_ca_file,
    )


def _message(section: MessageSection) -> str:
    return _secret(section.url, section.url_file) or ""


def _secret(given: SecretStr | None, file: Path | None) -> str | None:
    """A file is read each time; one that cannot be read holds up its own channel alone."""
    try:
        return reveal(given, file)
    except TargetRefused as error:
        raise AlertNotDelivered(error.message) from error
