"""How the engine's frames of output are read."""

from __future__ import annotations

import itertools
import struct

from hypothesis import given
from hypothesis import strategies as st

from hakuriver.terminals import Frames

Written = list[tuple[int, bytes]]
writes = st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=20)), max_size=12)


def framed(written: Written) -> bytes:
    return b"".join(struct.pack(">BxxxL", stream, len(data)) + data for stream, data in written)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@given(writes, st.lists(st.integers(0, 500), max_size=10))
def test_all_that_is_written_comes_in_its_order_however_it_is_cut(
    written: Written, places: list[int]
) -> None:
    frames = Frames()
    pieces = [piece for part in cut(framed(written), places) for piece in frames.feed(part)]
    assert [(piece[0], piece[1:2]) for piece in _bytes_of(pieces)] == [
        (stream, bytes([byte])) for stream, data in written for byte in data
    ]


def _bytes_of(pieces: list[bytes]) -> list[bytes]:
    return [piece[:1] + bytes([byte]) for piece in pieces for byte in piece[1:]]


def test_what_came_of_one_stream_is_one_piece() -> None:
    data = framed([(1, b"a"), (1, b"b"), (2, b"c"), (1, b"d"), (1, b"")])
    assert Frames().feed(data) == [b"\x01ab", b"\x02c", b"\x01d"]
