"""What the tests of Open WebUI share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.components.openwebui import instances
from tests.components.openwebui.instances import Instance


@pytest.fixture(
    params=["standing in", pytest.param("real", marks=pytest.mark.openwebui)],
)
def instance(request: pytest.FixtureRequest) -> Iterator[Instance]:
    """A running Open WebUI and its model server, which the test may kill."""
    if request.param == "standing in":
        yield instances.standing_in(request.getfixturevalue("openwebui"))
        return
    found = instances.real()
    if found is None:
        pytest.skip("RECOVERY_OPENWEBUI_URL names no real Open WebUI")
    found.upstream.start()
    yield found
    found.upstream.kill()
