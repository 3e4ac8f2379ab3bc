"""A container's configuration as the engine takes it for a second container that is the same.

Built from what ``inspect`` shows, whole: what is not named here is passed on as it is. Named is
only what would differ in a new container, or what the engine shows in another form than it takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recovery.errors import NotReplaceable
from recovery.runtime.docker_swap import GOING
from recovery.runtime.engine import Engine, Inspected

SHORT_ID = 12
"""The engine's own short form of an id, which it uses as hostname and as alias."""

_ENDPOINT_FIELDS = ("IPAMConfig", "Links", "Aliases", "DriverOpts", "GwPriority")
"""What somebody chose of an endpoint; the rest is what the engine made of it."""

_WITHOUT_ENDPOINT = ("host", "none", "container:")


def refuse_unless_replaceable(old: Inspected) -> None:
    """Raises ``NotReplaceable``, with what to do instead, where a swap could not be undone."""
    if old.host.get("AutoRemove"):
        raise NotReplaceable(
            f"{old.name} was started with --rm: stopped, it is gone. Start it without"
        )
    if (old.config.get("Labels") or {}).get("com.docker.swarm.task.id"):
        raise NotReplaceable(f"{old.name} belongs to a swarm service, which replaces it by itself")
    if old.status in GOING:
        raise NotReplaceable(f"{old.name} is being removed (status {old.status})")


def document(old: Inspected, restart_policy: Mapping[str, Any], engine: Engine) -> dict[str, Any]:
    """What the engine takes to create the copy; networks beyond the first are connected later."""
    first = first_network(old)
    endpoints = {first: _endpoint(old, first)} if first is not None else {}
    return {
        **_config(old),
        "Image": _image(old, engine),
        "HostConfig": _host_config(old, restart_policy),
        "NetworkingConfig": {"EndpointsConfig": endpoints},
    }


def connect_all(old: Inspected, new: str, engine: Engine) -> None:
    """Attach a copy that does not run to the networks that the old one has, and to no other."""
    if _mode(old).startswith(_WITHOUT_ENDPOINT):
        return
    wanted = networks(old)
    attached = networks(engine.get(new))
    for name in attached.keys() - wanted.keys():
        engine.disconnect(new, name)
    for name in sorted(wanted.keys() - attached.keys()):
        engine.connect(new, name, _endpoint(old, name))


def networks(container: Inspected) -> dict[str, Any]:
    return dict(container.raw["NetworkSettings"].get("Networks") or {})


def first_network(old: Inspected) -> str | None:
    """The network of the container's network mode, by its name; the mode may hold its id."""
    mode = _mode(old)
    if mode.startswith(_WITHOUT_ENDPOINT):
        return None
    wanted = "bridge" if mode in {"", "default"} else mode
    for name, endpoint in networks(old).items():
        if name == wanted or (endpoint.get("NetworkID") or "-").startswith(wanted):
            return name
    return None


def _mode(old: Inspected) -> str:
    return str(old.host.get("NetworkMode") or "")


def _config(old: Inspected) -> dict[str, Any]:
    config = old.config
    if config.get("Hostname") == old.id[:SHORT_ID]:
        del config["Hostname"]
    if (old.host.get("UTSMode") or "") == "host":
        config.pop("Hostname", None)
    if _mode(old).startswith("container:"):
        # They are the other container's, and the engine refuses to be told.
        for name in ("Hostname", "Domainname", "MacAddress", "ExposedPorts"):
            config.pop(name, None)
    return config


def _image(old: Inspected, engine: Engine) -> str:
    """The very same image: by its name while that still means it, else by its id."""
    name, identity = str(old.config["Image"]), str(old.raw["Image"])
    if engine.image_id(name) == identity:
        return name
    return identity


def _host_config(old: Inspected, restart_policy: Mapping[str, Any]) -> dict[str, Any]:
    host = old.host
    host["RestartPolicy"] = dict(restart_policy)
    host["Links"] = [_link(link) for link in host.get("Links") or ()] or None
    host["Mounts"] = [_named(mount, old) for mount in host.get("Mounts") or ()] or None
    binds = [_bind(bind, old) for bind in host.get("Binds") or ()]
    host["Binds"] = [*binds, *_anonymous_binds(old)] or None
    # The engine would write the new id over the file of the old one's.
    host.pop("ContainerIDFile", None)
    return host


def _link(shown: str) -> str:
    """``/db:/cache/db`` as shown, ``db:db`` as taken."""
    source, _, alias = shown.partition(":")
    return f"{source.removeprefix('/')}:{alias.rpartition('/')[2]}"


def _volumes(old: Inspected) -> dict[str, Mapping[str, Any]]:
    mounted = old.raw.get("Mounts") or ()
    return {mount["Destination"]: mount for mount in mounted if mount.get("Type") == "volume"}


def _named(mount: Mapping[str, Any], old: Inspected) -> dict[str, Any]:
    """A ``--mount`` without a source is an anonymous volume: the copy takes it by its name."""
    volume = _volumes(old).get(mount.get("Target", ""))
    if mount.get("Type") != "volume" or mount.get("Source") or volume is None:
        return dict(mount)
    return {**mount, "Source": volume["Name"]}


def _anonymous_binds(old: Inspected) -> list[str]:
    """The volumes that the image or ``-v /path`` asked for without a name, now by name."""
    declared = set(old.config.get("Volumes") or {})
    targets = {mount.get("Target") for mount in old.host.get("Mounts") or ()}
    binds = {_destination(bind) for bind in old.host.get("Binds") or ()}
    return [
        f"{volume['Name']}:{destination}" + ("" if volume.get("RW", True) else ":ro")
        for destination, volume in sorted(_volumes(old).items())
        if destination in declared - targets - binds
    ]


def _bind(bind: str, old: Inspected) -> str:
    """A bind that is only a destination is an anonymous volume too."""
    volume = _volumes(old).get(bind)
    return bind if volume is None else f"{volume['Name']}:{bind}"


def _destination(bind: str) -> str:
    source, _, rest = bind.partition(":")
    return rest.partition(":")[0] or source


def _endpoint(old: Inspected, name: str) -> dict[str, Any]:
    shown = networks(old)[name]
    chosen = {field: shown[field] for field in _ENDPOINT_FIELDS if shown.get(field)}
    own = [alias for alias in chosen.pop("Aliases", ()) if alias != old.id[:SHORT_ID]]
    if own:
        chosen["Aliases"] = own
    address = old.config.get("MacAddress")
    if address and name == first_network(old):
        chosen["MacAddress"] = address
    return chosen
