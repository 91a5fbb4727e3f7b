"""Folders that a task is given beside the shared one, written `HOST:CONTAINER[:ro|rw]`."""

from __future__ import annotations


def check_mount(text: str) -> str:
    """The mount, both of whose paths are absolute and without `..`; whether its root is allowed is the Runner's to say.

    Raises:
        ValueError: it is none.
    """
    parts = text.split(":")
    if len(parts) not in {2, 3} or (len(parts) == 3 and parts[2] not in {"ro", "rw"}):  # noqa: PLR2004
        raise ValueError(f"{text!r} is not HOST:CONTAINER or HOST:CONTAINER:ro")
    for path in parts[:2]:
        if not path.startswith("/") or "\0" in path or ".." in path.split("/"):
            raise ValueError(f"{path!r} in the mount {text!r} is not an absolute path without '..'")
    return text
