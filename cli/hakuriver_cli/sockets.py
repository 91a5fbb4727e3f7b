"""WebSockets to the Host: how they are opened, and what is said where that fails, or where they are lost."""

from __future__ import annotations

from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

from hakuriver.client import wire
from hakuriver.closing import error_told
from hakuriver.errors import HakuRiverError, UnreachableError
from hakuriver.version import VERSION_HEADER, __version__

FAILURES = (OSError, InvalidHandshake, WebSocketException)
"""What opening a WebSocket raises."""
_CLOSE_SECONDS = 1.0


def opened(address: wire.Address, door: str, seconds: float | None = None) -> ClientConnection:
    """A door of the Host's, under `/api`, within so many seconds.

    Raises:
        UnreachableError: it does not open.
    """
    options = options_of(address)
    if seconds is not None:
        options["open_timeout"] = seconds
    try:
        return connect(f"{address.web_socket_url}/api/{door}", **options)
    except FAILURES as error:
        raise unopened(address, error) from None


def options_of(address: wire.Address) -> dict[str, Any]:
    """How both kinds of the library's `connect` reach the Host."""
    headers = {VERSION_HEADER: __version__}
    if address.token:
        headers["Authorization"] = f"Bearer {address.token}"
    secure = address.url.startswith("https:")
    return {
        "additional_headers": headers,
        "ssl": wire.tls_context(address.url, address.ca_file) if secure else None,
        "compression": None,
        "open_timeout": address.timeout,
        "max_size": None,
        "max_queue": None,  # What may be on its way is limited by `hakuriver.exchange`.
        "close_timeout": _CLOSE_SECONDS,
        "proxy": None,
    }


def unopened(address: wire.Address, error: Exception) -> UnreachableError:
    if isinstance(error, InvalidStatus):
        return UnreachableError(
            f"the Host at {address.url} opens no terminals ({error.response.status_code})",
            "see that it is of this version: `hakuriver version`",
        )
    return UnreachableError(
        f"no Host answers at {address.url} ({getattr(error, 'strerror', None) or error})",
        "start one with `hakuriver up` or `hakuriver host`, or set client.url to where it runs",
    )


def refusal(error: ConnectionClosed) -> HakuRiverError:
    close = error.rcvd
    return (close and error_told(close.code, close.reason)) or UnreachableError(
        f"the connection to the Host was lost{f' ({close.reason})' if close and close.reason else ''}",
        "see whether it still runs: `hakuriver status`",
    )
