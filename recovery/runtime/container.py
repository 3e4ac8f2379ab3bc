"""A Docker container, stopped and started in place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from recovery.errors import NoSuchProcess, WontStop
from recovery.runtime import ourselves
from recovery.runtime.engine import Engine, Inspected
from recovery.runtime.names import split
from recovery.runtime.process import ProcessState, Remaining, await_end
from recovery.runtime.settings import DockerRuntime


class Container:
    """See ``recovery.runtime.Process``."""

    def __init__(self, runtime: DockerRuntime, remaining: Remaining) -> None:
        self._runtime = runtime
        self._remaining = remaining

    def inspect(self) -> ProcessState:
        with self._engine() as engine:
            try:
                return state_of(engine.get(name_of(engine, self._runtime)))
            except NoSuchProcess as error:
                return ProcessState(exists=False, detail=error.message)

    def stop(self, grace: float, *, kill: bool = True) -> None:
        """Raises ``WrongProcess`` where it is the one that this worker lives in."""
        with self._engine() as engine:
            found = engine.get(name_of(engine, self._runtime))
            ourselves.refuse(found)
            if kill:
                engine.stop(found.id, grace)
            elif found.runs:
                engine.ask_to_end(found.id)
                await_end(lambda: engine.get(found.id).runs, grace, self._remaining)
            if engine.get(found.id).runs:
                raise WontStop(f"container {found.name} runs on")

    def start(self) -> None:
        with self._engine() as engine:
            engine.start(engine.get(name_of(engine, self._runtime)).id)

    def restart(self, grace: float) -> None:
        self.stop(grace)
        self.start()

    @contextmanager
    def _engine(self) -> Iterator[Engine]:
        with Engine.open(self._runtime.base_url, self._remaining) as engine:
            yield engine


def name_of(engine: Engine, runtime: DockerRuntime) -> str:
    """The name of the one container that a runtime means; raises ``NoSuchProcess``.

    What a replacement put aside has the same labels and is never meant.
    """
    if runtime.container is not None:
        return runtime.container
    wanted = ", ".join(f"{name}={value}" for name, value in runtime.labels.items())
    names = {split(name).base for name in engine.names(runtime.labels)}
    if len(names) != 1:
        found = ", ".join(sorted(names)) or "none"
        raise NoSuchProcess(f"the labels {wanted} must name one container; found: {found}")
    return names.pop()


def state_of(container: Inspected) -> ProcessState:
    state = container.raw["State"]
    ended = "" if container.runs else f", exit code {state['ExitCode']}"
    return ProcessState(
        exists=True,
        running=container.runs,
        id=container.id,
        pid=state["Pid"] or None,
        started_at=datetime.fromisoformat(state["StartedAt"]).timestamp() if state["Pid"] else None,
        detail=container.status + ended,
        carries_us=ourselves.is_in(container),
    )
