"""Errors on their way over HTTP; the tree of them is in `hakuriver.errors`."""

from __future__ import annotations

from hakuriver.models.base import PeerModel


class ErrorBody(PeerModel):
    """How an error travels over HTTP."""

    error: str
    """The code of the error, such as `not_found`."""
    message: str
    """What is wrong, in one line."""
    hint: str = ""
    """What to do about it, in one line; may be empty."""
