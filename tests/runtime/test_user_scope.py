"""The user's systemd from a service of the system, which no session has told where it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from recovery.deadline import Deadline
from recovery.errors import RuntimeUnavailable
from recovery.runtime import SystemdRuntime, manage
from recovery.runtime.systemd import BUS, FOLDER
from tests.units import Manager
from tests.waiting import until

HERE = Path("/run/user", str(os.getuid()))
USERS_MANAGER = f"""
ExecStart=/lib/systemd/systemd --user
Environment=XDG_RUNTIME_DIR={HERE}
RuntimeDirectory={HERE.relative_to("/run")}
Delegate=yes
KillMode=mixed
"""


@pytest.fixture
def no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (FOLDER, BUS):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def lingering(systemd: Manager) -> None:
    """A manager of root's own, as one runs at boot for whoever lingers."""
    if systemd.scope != "system" or HERE.exists():
        pytest.skip("this user has a session already")
    service = systemd.open(systemd.write(USERS_MANAGER))
    service.start()
    until((HERE / "systemd" / "private").is_socket, what="the user's manager takes orders")


@pytest.mark.usefixtures("no_session", "lingering")
def test_a_unit_of_a_user_who_lingers_is_handled_without_a_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    users = Manager("user", HERE / "systemd" / "user")
    with monkeypatch.context() as session:
        session.setenv(FOLDER, str(HERE))
        name = users.write("ExecStart=/bin/sleep 10000")
    unit = users.open(name)
    assert not unit.inspect().running

    unit.start()
    until(lambda: unit.inspect().pid, what="it runs")
    unit.stop(grace=5)

    assert not unit.inspect().running


@pytest.mark.usefixtures("no_session")
def test_a_user_without_a_manager_is_told_what_is_missing() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    runtime = SystemdRuntime(kind="systemd", unit="app.service", scope="user")
    os.seteuid(65534)
    try:
        with pytest.raises(RuntimeUnavailable, match=f"{FOLDER} is not set .* /run/user/65534"):
            manage(runtime, Deadline(20).remaining).inspect()
    finally:
        os.seteuid(0)
