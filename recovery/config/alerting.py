"""The policy's part on alerts: what comes in from Alertmanager and what goes out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, StringConstraints, model_validator

from recovery.credentials import one_of
from recovery.finding import find_component
from recovery.strategy import COMPONENTS, Duration, StrictModel

Severity = Literal["P0", "P1", "P2", "P3"]

PLACEHOLDER = re.compile(r"\{([a-zA-Z_][a-zA-Z0-9_]*)\}")
"""Where a rule takes the value of an alert's label: ``{instance}``."""


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is not a regular expression: {error}") from error
    return text


Pattern = Annotated[str, AfterValidator(_pattern)]
WebAddress = Annotated[str, StringConstraints(pattern=r"^https?://[^\s@]+$", max_length=2000)]
"""Where a secret has no place: it is shown."""

ChannelName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,40}$")]
Template = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class AlertRule(StrictModel):
    """Which alerts mean what: ``match`` maps labels to regular expressions that fit as a whole.

    The other keys are words, or hold ``{label}`` for the value of an alert's label.
    """

    match: dict[str, Pattern] = Field(default_factory=dict)
    component: Template
    target: Template | None = None
    failure_type: Template

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        if PLACEHOLDER.search(self.component):
            return self
        if self.component not in COMPONENTS:
            raise ValueError(f"unknown component {self.component!r}: {', '.join(COMPONENTS)}")
        if PLACEHOLDER.search(self.failure_type):
            return self
        known = [failure.name for failure in find_component(self.component).failure_types]
        if self.failure_type not in known:
            raise ValueError(
                f"{self.component} has no failure type {self.failure_type!r}: {', '.join(known)}"
            )
        return self


OUR_LABELS = AlertRule(component="{component}", target="{target}", failure_type="{failure_type}")
"""What the Prometheus rules that are shipped say in their labels; tried after every other rule."""


class ReceiveSection(StrictModel):
    """Alerts that Alertmanager sends to ``/alerts``.

    ``repeat_after``: an alert that still fires after so long is an event again, unless its recovery
    is still under way.
    """

    enabled: bool = True
    rules: tuple[AlertRule, ...] = ()
    repeat_after: Duration = 30.0
    max_alerts: int = Field(default=1000, ge=1, le=100_000)


class AlertmanagerSection(StrictModel):
    """How our alerts reach Alertmanager; where it is says ``integration.prometheus_alertmanager``.

    ``resend_after``: what still holds is told again, sooner than Alertmanager's resolve_timeout.
    ``shown_for``: how long a recovery that has ended is shown there.
    """

    username: str | None = None
    password: SecretStr | None = None
    password_file: Path | None = None
    token: SecretStr | None = None
    token_file: Path | None = None
    tls_ca_file: Path | None = None
    resend_after: Duration = 60.0
    shown_for: Duration = 300.0

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        one_of("password", self.password, self.password_file)
        one_of("token", self.token, self.token_file)
        return self


class WebhookSection(StrictModel):
    """An address that takes alerts as JSON; ``token`` goes along as a bearer token."""

    url: SecretStr | None = None
    url_file: Path | None = None
    token: SecretStr | None = None
    token_file: Path | None = None
    tls_ca_file: Path | None = None

    @model_validator(mode="after")
    def _is_an_address(self) -> Self:
        _needs_one(self.url, self.url_file)
        one_of("token", self.token, self.token_file)
        if self.url and not self.url.get_secret_value().startswith(("http://", "https://")):
            raise ValueError("url must begin with http:// or https://")
        return self


class MessageSection(StrictModel):
    """An address as Apprise writes it, for e-mail or chat, such as ``mailto://`` or ``slack://``.

    At most one message ``every`` so often, of alerts that are ``at_least`` so severe.
    """

    url: SecretStr | None = None
    url_file: Path | None = None
    every: Duration = 30.0
    at_least: Severity = "P3"

    @model_validator(mode="after")
    def _is_an_address(self) -> Self:
        _needs_one(self.url, self.url_file)
        return self


def _needs_one(url: SecretStr | None, file: Path | None) -> None:
    one_of("url", url, file)
    if url is None and file is None:
        raise ValueError("give url or url_file")
