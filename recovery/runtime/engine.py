"""A Docker engine as the runtime needs it: few calls, each within the deadline, our errors.

The low-level interface is used on purpose: it takes and gives the engine's own documents, so that
nothing of a container's configuration is lost in between.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

from recovery.errors import (
    NoSuchProcess,
    NotReplaceable,
    OwnerChanged,
    RemedyError,
    RuntimeBusy,
    RuntimeUnavailable,
    WontStart,
    WontStop,
)
from recovery.runtime.process import KILL_SECONDS, Remaining

CALL_SECONDS = 30.0
"""The longest that one call may take, however much time is left."""

_CONFLICT = 409


@dataclass(frozen=True, slots=True)
class Inspected:
    """One container as ``inspect`` shows it; ``raw`` is the engine's whole document."""

    raw: Mapping[str, Any]

    @property
    def id(self) -> str:
        return str(self.raw["Id"])

    @property
    def name(self) -> str:
        return str(self.raw["Name"]).removeprefix("/")

    @property
    def status(self) -> str:
        """``created``, ``running``, ``paused``, ``restarting``, ``exited`` or ``dead``."""
        return str(self.raw["State"]["Status"])

    @property
    def runs(self) -> bool:
        """Whether it has a process or the engine will give it one by itself."""
        state = self.raw["State"]
        return bool(state["Running"] or state["Restarting"])

    @property
    def upper_folder(self) -> str | None:
        """Where the engine puts what the container writes; None where it does not say."""
        driver = self.raw.get("GraphDriver") or {}
        found = (driver.get("Data") or {}).get("UpperDir")
        return str(found) if found else None

    @property
    def restart_policy(self) -> dict[str, Any]:
        return dict(self.raw["HostConfig"].get("RestartPolicy") or {"Name": "no"})

    @property
    def host(self) -> dict[str, Any]:
        return dict(self.raw["HostConfig"])

    @property
    def config(self) -> dict[str, Any]:
        return dict(self.raw["Config"])


class Engine:
    """Raises ``RuntimeUnavailable`` where the engine does not answer, ``DeadlineExceeded``."""

    def __init__(self, api: Any, remaining: Remaining) -> None:
        self._api = api
        self._remaining = remaining

    @classmethod
    @contextmanager
    def open(cls, base_url: str | None, remaining: Remaining) -> Iterator[Self]:
        """A connection that is closed at the end."""
        api = _connect(base_url, min(remaining(), CALL_SECONDS))
        try:
            yield cls(api, remaining)
        finally:
            api.close()

    def within(self, remaining: Remaining) -> Engine:
        """The same connection with another deadline."""
        return Engine(self._api, remaining)

    def find(self, reference: str) -> Inspected | None:
        """The container of exactly that name or whole id; the engine itself takes prefixes too."""
        try:
            with self._call():
                found = Inspected(self._api.inspect_container(reference))
        except NoSuchProcess:
            return None
        return found if reference in {found.id, found.name} else None

    def get(self, reference: str) -> Inspected:
        """Raises ``NoSuchProcess``."""
        found = self.find(reference)
        if found is None:
            raise NoSuchProcess(f"the Docker engine has no container {reference}")
        return found

    def names(self, labels: Mapping[str, str] | None = None) -> list[str]:
        """The names of all containers, or of those that have all these labels, sorted."""
        filters = {"label": [f"{name}={value}" for name, value in (labels or {}).items()]}
        with self._call():
            listed = self._api.containers(all=True, filters=filters)
        # A linked container is listed under its links' names too, which hold a second slash.
        own = (name[1:] for entry in listed for name in entry["Names"] or ())
        return sorted(name for name in own if "/" not in name)

    def image_id(self, reference: str) -> str | None:
        try:
            with self._call():
                return str(self._api.inspect_image(reference)["Id"])
        except NoSuchProcess:
            return None

    def create(self, name: str, document: Mapping[str, Any]) -> str:
        """Make a container and return its id; raises ``NotReplaceable``, ``RuntimeBusy``."""
        try:
            with self._call(NotReplaceable, conflict=RuntimeBusy):
                made = self._api.create_container_from_config(dict(document), name=name)
        except NoSuchProcess as error:
            raise NotReplaceable(error.message) from error
        return str(made["Id"])

    def connect(self, container: str, network: str, endpoint: Mapping[str, Any]) -> None:
        """Attach a container that does not run; raises ``NotReplaceable``."""
        path = self._api._url("/networks/{0}/connect", network)  # noqa: SLF001 - the public method drops fields
        with self._call(NotReplaceable):
            answer = self._api._post_json(  # noqa: SLF001 - likewise
                path, data={"Container": container, "EndpointConfig": dict(endpoint)}
            )
            self._api._raise_for_status(answer)  # noqa: SLF001 - likewise

    def disconnect(self, container: str, network: str) -> None:
        with self._call(NotReplaceable):
            self._api.disconnect_container_from_network(container, network)

    def start(self, container: str) -> None:
        """Raises ``WontStart``."""
        with self._call(WontStart):
            self._api.start(container)

    def stop(self, container: str, grace: float) -> None:
        """Its stop signal, ``grace`` seconds, KILL; raises ``WontStop``."""
        seconds = max(math.ceil(grace), 0)
        with self._call(WontStop):
            self._api.timeout = min(KILL_SECONDS, self._remaining())
            self._api.stop(container, timeout=seconds)

    def ask_to_end(self, container: str) -> None:
        """Its stop signal and nothing after it; raises ``WontStop``."""
        wanted = self.get(container).raw["Config"].get("StopSignal") or "SIGTERM"
        with self._call(WontStop):
            self._api.kill(container, signal=wanted)

    def rename(self, container: str, name: str) -> None:
        """Raises ``OwnerChanged`` where another container has that name."""
        try:
            with self._call(conflict=OwnerChanged):
                self._api.rename(container, name)
        except RemedyError:
            # A dead worker's request may have been carried out just before ours.
            if self.get(container).name != name:
                raise

    def set_restart_policy(self, container: str, policy: Mapping[str, Any]) -> None:
        with self._call():
            self._api.update_container(container, restart_policy=dict(policy))

    def remove(self, container: str, *, anonymous_volumes: bool = False) -> None:
        """No error where it is gone. A volume that any container uses is never removed.

        Raises ``RuntimeBusy`` where it runs or is just being removed.
        """
        try:
            with self._call(conflict=RuntimeBusy):
                self._api.remove_container(container, v=anonymous_volumes)
        except NoSuchProcess:
            return

    @contextmanager
    def _call(
        self,
        refused: type[RemedyError] = RemedyError,
        *,
        conflict: type[RemedyError] | None = None,
    ) -> Iterator[None]:
        """Docker's errors as ours; ``refused`` is what the engine's own refusal becomes."""
        import requests
        from docker import errors

        self._api.timeout = min(self._remaining(), CALL_SECONDS)
        try:
            yield
        except errors.NotFound as error:
            raise NoSuchProcess(_said(error)) from error
        except errors.APIError as error:
            is_conflict = error.status_code == _CONFLICT
            raise (conflict if is_conflict and conflict else refused)(_said(error)) from error
        except (errors.DockerException, requests.exceptions.RequestException) as error:
            # An engine that was only given too little time is not away.
            self._remaining()
            raise RuntimeUnavailable(f"the Docker engine does not answer: {error}") from error


def _connect(base_url: str | None, timeout: float) -> Any:
    try:
        from docker import APIClient, errors
        from docker.utils import kwargs_from_env
    except ImportError as error:
        raise RuntimeUnavailable("the docker package is not installed") from error
    chosen: dict[str, Any] = {**kwargs_from_env(), "timeout": timeout}
    if base_url is not None:
        chosen["base_url"] = base_url
    try:
        return APIClient(**chosen)
    except errors.DockerException as error:
        raise RuntimeUnavailable(f"no Docker engine answers: {error}") from error


def _said(error: Any) -> str:
    return f"the Docker engine says: {str(error.explanation or error)[:300]}"
