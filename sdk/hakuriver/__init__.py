"""HakuRiver: a few machines used as one computer. This package is what all of its parts share.

`Client` and `AsyncClient` are loaded when they are first used, so that importing the package stays cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hakuriver.version import __version__

if TYPE_CHECKING:
    from hakuriver.client import AsyncClient, Client

__all__ = ["AsyncClient", "Client", "__version__"]


def __getattr__(name: str) -> Any:
    if name in {"AsyncClient", "Client"}:
        from hakuriver import client  # noqa: PLC0415  (loaded late on purpose)

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
