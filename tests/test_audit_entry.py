"""What an audit entry weighs, whatever the probes read and people wrote."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from recovery import audit
from recovery.events import FailureEvent, Outcome, ProbeReport, Result, State, TargetRef
from recovery.records import Recovery

FIGURES = st.dictionaries(
    st.text("abcdefghij_", min_size=1, max_size=20),
    st.one_of(
        st.floats(allow_nan=False, allow_infinity=False), st.integers(), st.text(max_size=40)
    ),
    max_size=30,
)
REPORTS = st.builds(
    ProbeReport,
    healthy=st.booleans(),
    failure_type=st.sampled_from(["connection_error", "clients_exhausted"]),
    figures=FIGURES,
)


def recovery(**said: str | None) -> Recovery:
    event = FailureEvent(
        id="0b5b6e0e-4a3c-4a8e-9d9c-6a1c7f0d2b11",
        target=TargetRef("redis", "cache"),
        failure_type="connection_error",
        **said,
    )
    return Recovery(
        id=event.id, event=event, strategy="reconnect", state=State.RUNNING, holder="web-1:4711"
    )


@given(REPORTS, REPORTS, st.floats(0, 1000), st.integers(0, 9))
def test_a_plain_entry_has_at_most_five_hundred_bytes(
    before: ProbeReport, after: ProbeReport, duration: float, attempts: int
) -> None:
    outcome = Outcome(
        result=Result.RECOVERED, before=before, after=after, attempts=attempts, duration=duration
    )

    entry = audit.compose(recovery(), outcome)

    assert len(entry.encode()) + len(',"level":3') <= audit.ENTRY_BYTES
    assert json.loads(entry)["before"]["found"] == before.failure_type


@given(st.text(max_size=2000), st.text(max_size=2000))
def test_what_people_write_is_cut_and_never_breaks_an_entry(reason: str, detail: str) -> None:
    outcome = Outcome(result=Result.FAILED, error="remedy_failed", detail=detail)

    entry = json.loads(audit.compose(recovery(reason=reason, by="eva"), outcome))

    assert len(entry.get("reason", "")) <= 160
    assert entry["by"] == "eva"
