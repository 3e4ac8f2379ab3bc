"""``process_restart`` by a real systemd; where none is, ``test_booted`` runs these."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from recovery.components.system.probe import probe
from recovery.components.system.process_restart import ProcessRestart, process_restart
from recovery.components.system.target import HostTarget
from recovery.errors import NeverReady, NoSuchProcess, WontStart, WontStop
from recovery.events import ProbeReport
from tests.components.system.test_process_restart import SERVER
from tests.journals import MemoryJournal
from tests.runtime.test_systemd import as_nobody
from tests.servers import free_port
from tests.units import Manager
from tests.waiting import until


@dataclass(slots=True)
class Site:
    """A web server that systemd runs, to be broken in real ways."""

    systemd: Manager
    folder: Path
    port: int
    unit: str = ""

    def write(self, *lines: str, start: str = "") -> None:
        command = start or f"{sys.executable} {self.folder}/server.py {self.port}"
        service = [f"ExecStart={command}", f"WorkingDirectory={self.folder}", *lines]
        self.unit = self.systemd.write("\n".join(service), name=self.unit or None)

    def start(self) -> int:
        self.systemd.open(self.unit).start()
        until(lambda: self.probed().healthy, seconds=60, what="it answers")
        return self.pid or 0

    @property
    def pid(self) -> int | None:
        return self.systemd.open(self.unit).inspect().pid

    def hang(self) -> None:
        """This process, and none that comes after it."""
        (self.folder / "hang").write_text(str(self.pid))
        until(lambda: not self.probed().healthy, what="it does not answer")

    @property
    def target(self) -> HostTarget:
        url = f"http://127.0.0.1:{self.port}/health"
        runtime = self.systemd.runtime(self.unit).model_dump()
        site = {"url": url, "cmdline": f"server.py {self.port}$", "runtime": runtime}
        return HostTarget.model_validate({"watch": ["processes"], "processes": {"site": site}})

    def probed(self) -> ProbeReport:
        return probe(self.target, 1)

    def restart(self, seconds: float = 60, **said: Any) -> list[str]:
        journal = MemoryJournal(state_dir=self.folder, seconds=seconds)
        parameters = ProcessRestart.model_validate({"stop_grace": 0.5, "steady": 0.3, **said})
        process_restart.remedy(self.target, parameters, journal)
        return journal.texts


@pytest.fixture
def site(systemd: Manager, tmp_path: Path) -> Site:
    (tmp_path / "server.py").write_text(SERVER)
    return Site(systemd, tmp_path, free_port())


def test_a_unit_that_was_stopped_is_started_and_answers(site: Site) -> None:
    site.write()
    assert "site does not run" in site.probed().summary

    site.restart()

    assert site.probed().healthy


def test_one_that_hangs_and_ignores_term_is_another_process_afterwards(site: Site) -> None:
    (site.folder / "stubborn").touch()
    site.write("Restart=always", "TimeoutStopSec=600")
    first = site.start()
    site.hang()
    os.kill(first, signal.SIGSTOP)

    site.restart()

    assert site.probed().healthy
    assert site.pid not in {None, first}


def test_a_masked_unit_that_hangs_is_left_as_it_is(site: Site) -> None:
    site.write()
    first = site.start()
    site.hang()
    site.systemd.mask(site.unit)

    with pytest.raises(NoSuchProcess, match="masked"):
        site.restart()

    assert site.pid == first


def test_a_unit_that_cannot_start_says_how_it_ended(site: Site) -> None:
    site.write(start="/no/such/program")
    with pytest.raises(WontStart, match="exit-code, status 203"):
        site.restart()

    site.write(start="/bin/sh -c 'exit 7'")
    with pytest.raises(WontStart, match="exit-code, status 7"):
        site.restart()


def test_one_that_systemd_starts_again_and_again_is_no_success(site: Site) -> None:
    (site.folder / "broken").touch()
    site.write("Restart=always", "RestartSec=100ms", "StartLimitIntervalSec=0")

    with pytest.raises((WontStart, NeverReady), match=r"exit-code, status 3, started again \d+"):
        site.restart(seconds=6)


def test_a_worker_that_may_not_manage_units_stops_nothing(site: Site) -> None:
    if site.systemd.scope != "system":
        pytest.skip("a user may do everything with units of its own")
    site.write()
    first = site.start()
    site.hang()

    with as_nobody(), pytest.raises(WontStop, match="Failed to stop"):
        site.restart()

    assert site.pid == first


ON_ITSELF = """
import sys
from pathlib import Path
from recovery.components.system.process_restart import OneProcess, ProcessRestart, process_restart
from recovery.components.system.target import HostTarget
from recovery.errors import WrongProcess
from tests.journals import MemoryJournal

worker = {"cmdline": "itself.py$", "runtime": {"kind": "systemd", "unit": sys.argv[2]}}
worker["runtime"]["scope"] = sys.argv[1]
target = HostTarget.model_validate({"processes": {"worker": worker}})
journal = MemoryJournal(state_dir=Path(sys.argv[3]), scope=OneProcess(process="worker"))
try:
    process_restart.remedy(target, ProcessRestart(stop_grace=0.5), journal)
except WrongProcess as error:
    Path(sys.argv[3], "said").write_text(error.message)
"""


def test_a_worker_does_not_stop_its_own_unit_since_nobody_would_start_it(
    systemd: Manager, tmp_path: Path
) -> None:
    root = Path(__file__).parents[3]
    (tmp_path / "remedy.py").write_text(ON_ITSELF)
    child = f"{sys.executable} {tmp_path}/remedy.py {systemd.scope} $UNIT {tmp_path}"
    (tmp_path / "itself.py").write_text(
        f"import os, subprocess, time\nos.chdir({str(root)!r})\n"
        f"subprocess.run(os.path.expandvars({child!r}).split(), check=False)\n"
        "time.sleep(600)\n"
    )
    said = tmp_path / "said"
    service = f"ExecStart={sys.executable} {tmp_path}/itself.py\nEnvironment=UNIT=%n"
    name = systemd.write(f"{service}\nEnvironment=PYTHONPATH={root}")

    systemd.open(name).start()

    until(said.exists, seconds=60, what="the remedy has answered")
    assert "carries out this recovery" in said.read_text()
    assert systemd.open(name).inspect().running
