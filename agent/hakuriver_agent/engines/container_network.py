"""Connections to what listens in a container, made from within its network."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from collections.abc import Callable
from typing import Any

from hakuriver.errors import ConflictError

_CLONE_NEWNET = 0x40000000
"""See setns(2)."""
_CONNECT_SECONDS = 10.0
_LOOPBACKS = ("127.0.0.1", "::1")


def connect_into(inspect: Callable[[], dict[str, Any] | None], port: int) -> socket.socket:
    """Connects to a port of a container: to what listens on its loopback too, where this process is root.

    The calling thread is in the container's network afterwards, so it has to be one that ends. A process that is not
    root stays where it is, and reaches what listens on all the container's addresses, if it has any.

    Raises:
        ConflictError: nothing listens there, or the container does not run.
    """
    info = _running(inspect())
    try:
        _enter(info, inspect)
    except PermissionError:
        addresses = [each["IPAddress"] for each in info["NetworkSettings"]["Networks"].values()]
        return _connected(
            [each for each in addresses if each],
            port,
            "let it listen on all addresses (0.0.0.0): the node's Runner is not root, and reaches no other",
        )
    return _connected(_LOOPBACKS, port, "see that the program has started, and which port it says")


def _enter(info: dict[str, Any], inspect: Callable[[], dict[str, Any] | None]) -> None:
    pid = info["State"]["Pid"]
    try:
        namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise _ended() from None
    try:
        # The number may have become another process's before it was opened.
        if _running(inspect())["State"]["Pid"] != pid:
            raise _ended()
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(namespace, _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise PermissionError(number, os.strerror(number))
    finally:
        os.close(namespace)


def _connected(addresses: list[str] | tuple[str, ...], port: int, hint: str) -> socket.socket:
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


def _running(info: dict[str, Any] | None) -> dict[str, Any]:
    if info is None or not info["State"]["Running"]:
        raise _ended()
    return info


def _ended() -> ConflictError:
    return ConflictError("the task's container does not run", "see `hakuriver task status`")
