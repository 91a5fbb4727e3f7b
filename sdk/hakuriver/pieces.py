"""Bytes on their way, piece by piece: a file as pieces, and pieces as a file that is read once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import IO

PIECE = 1 << 20


def pieces_of(file: IO[bytes]) -> Iterator[bytes]:
    """The rest of a file."""
    while piece := file.read(PIECE):
        yield piece


class PieceReader:
    """Pieces as a file."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._buffer = bytearray()

    def read(self, size: int = -1) -> bytes:
        buffer = self._buffer
        while size < 0 or len(buffer) < size:
            piece = next(self._pieces, None)
            if piece is None:
                size = len(buffer)
                break
            if not buffer and len(piece) == size:
                return piece
            buffer += piece
        data = bytes(buffer[:size])
        del buffer[:size]
        return data
