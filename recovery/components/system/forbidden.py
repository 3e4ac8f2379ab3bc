"""Folders that no policy may call disposable."""

from __future__ import annotations

from pathlib import PurePosixPath

ENTIRELY = (
    "/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/sbin",
    "/sys", "/usr", "/var/lib/containerd", "/var/lib/docker", "/var/lib/dpkg", "/var/lib/rpm",
)  # fmt: skip
"""With all that is in them."""

THEMSELVES = (
    "/", "/home", "/media", "/mnt", "/nix", "/opt", "/root", "/run", "/snap", "/srv", "/var",
    "/var/cache", "/var/lib", "/var/log", "/var/mail", "/var/run", "/var/spool",
)  # fmt: skip
"""A folder inside may be named, where somebody knows that it is disposable."""

_ONLY_HOMES_INSIDE = ("/home",)


def problem(path: str) -> str | None:
    """Why nothing may be removed in this folder, as the end of a sentence; None where it may."""
    if "\0" in path or not path.startswith("/"):
        return "is not an absolute path"
    parts = PurePosixPath(path)
    if ".." in parts.parts:
        return "must be written without '..'"
    # Two leading slashes are one to the kernel and two to pathlib.
    plain = PurePosixPath("/", *parts.parts[1:])
    for root in ENTIRELY:
        if plain.is_relative_to(root):
            return f"belongs to the system ({root}): nothing in it is disposable"
    for root in (*THEMSELVES, *ENTIRELY):
        if PurePosixPath(root).is_relative_to(plain):
            return "is too much: name the disposable folder inside it"
    if any(plain.parent == PurePosixPath(home) for home in _ONLY_HOMES_INSIDE):
        return "is somebody's home: name the disposable folder inside it"
    return None
