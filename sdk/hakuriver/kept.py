"""Bytes of one way of a terminal that the other end may not have: kept until it says that it has them.

So after a lost connection nothing is missing and nothing comes twice: the other end says how much has come, and is sent
what is after that place. Places count the bytes since the terminal began.
"""

from __future__ import annotations

from hakuriver.errors import UsageError
from hakuriver.exchange import WINDOW


class Kept:
    """What was added, from the first byte that the other end is not known to have."""

    def __init__(self) -> None:
        self.start = 0
        self._bytes = bytearray()

    @property
    def end(self) -> int:
        return self.start + len(self._bytes)

    @property
    def full(self) -> bool:
        """Whether as much is kept as may be on its way; the last piece may go beyond."""
        return len(self._bytes) >= WINDOW

    def add(self, data: bytes) -> None:
        self._bytes += data

    def drop(self, place: int) -> None:
        """The other end has all that is before the place.

        Raises:
            UsageError: no more than that was ever sent, or it said before that it has more.
        """
        self._check(place)
        del self._bytes[: place - self.start]
        self.start = place

    def after(self, place: int, at_most: int) -> bytes:
        """What comes after a place, a piece of it; empty at the end.

        Raises:
            UsageError: it is not kept any more.
        """
        self._check(place)
        begin = place - self.start
        return bytes(self._bytes[begin : begin + at_most])

    def _check(self, place: int) -> None:
        if not self.start <= place <= self.end:
            raise UsageError(
                f"byte {place} is not between {self.start} and {self.end}",
                "say how many bytes have come since the terminal began",
            )
