"""Connections to what listens in a container, made from within its network."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from collections.abc import Sequence
from typing import Any

from hakuriver.errors import ConflictError

_CLONE_NEWNET = 0x40000000
"""See setns(2)."""
_CONNECT_SECONDS = 10.0
_LOOPBACKS = ("127.0.0.1", "::1")


def connect_into(info: dict[str, Any] | None, port: int) -> socket.socket:
    """Connects to a port of a container, as the engine tells of it: to what listens on its loopback too, where this is root.

    The calling thread is in the container's network afterwards, so it has to be one that ends. A process that is not
    root, or whose engine is on another machine, stays where it is, and reaches what listens on the container's
    addresses, if it has any.

    Raises:
        ConflictError: nothing listens there, or the container does not run.
    """
    if info is None or not info["State"]["Running"]:
        raise ConflictError("the task's container does not run", "see `hakuriver task status`")
    networks = info["NetworkSettings"]["Networks"].values()
    addresses = [
        address for each in networks for address in (each["IPAddress"], each["GlobalIPv6Address"]) if address
    ]
    if info["HostConfig"]["NetworkMode"] == "host" or _enter(info["NetworkSettings"]["SandboxKey"]):
        hint = "see that the program has started, and which port it says"
        return _connected([*_LOOPBACKS, *addresses], port, hint)
    hint = "let it listen on all addresses (0.0.0.0): the node's Runner is not root, and reaches no other"
    return _connected(addresses, port, hint)


def _enter(sandbox: str) -> bool:
    """Whether this thread is in the container's network now.

    The engine's name for it is no process's number, which may come to mean another, and is gone with the container.
    """
    try:
        namespace = os.open(sandbox, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return ctypes.CDLL(None).setns(namespace, _CLONE_NEWNET) == 0  # type: ignore[no-any-return]
    finally:
        os.close(namespace)


def _connected(addresses: Sequence[str], port: int, hint: str) -> socket.socket:
    for address in addresses:
        made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        made.settimeout(_CONNECT_SECONDS)
        try:
            made.connect((address, port))
        except OSError as error:
            made.close()
            if error.errno in {errno.ECONNREFUSED, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
                continue
            raise ConflictError(f"port {port} in the task: {error.strerror or error}", hint) from None
        made.setblocking(False)
        return made
    raise ConflictError(f"nothing listens on port {port} in the task", hint)
