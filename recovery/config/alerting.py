"""The policy's part on alerts: what comes in from Alertmanager and what goes out."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from recovery.strategy import COMPONENTS, Duration, StrictModel, find_component

PLACEHOLDER = re.compile(r"\{([a-zA-Z_][a-zA-Z0-9_]*)\}")
"""Where a rule takes the value of an alert's label: ``{instance}``."""


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is not a regular expression: {error}") from error
    return text


Pattern = Annotated[str, AfterValidator(_pattern)]
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
