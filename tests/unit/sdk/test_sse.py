"""The parser of server-sent events, against the rules of the HTML standard."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hakuriver.client.sse import ServerEvent, SseParser

STREAM = (
    b"\xef\xbb\xbf: keep-alive\n"
    b"event: log\r\nid: 7\r\ndata: one\r\n\r\n"
    b"data:two\rdata: lines\r\r"
    b": comment\n\n"
    b"id: 9\nunknown: x\nretry\ndata\n\n"
    b"event: end\ndata: \xc3\xa9 \n\n"
)
EVENTS = [
    ServerEvent("log", "one", "7"),
    ServerEvent("message", "two\nlines", "7"),
    ServerEvent("message", "", "9"),
    ServerEvent("end", "é ", "9"),
]


def parse(*pieces: bytes) -> list[ServerEvent]:
    parser = SseParser()
    return [event for piece in pieces for event in parser.feed(piece)]


def test_line_ends_comments_ids_and_data_of_several_lines() -> None:
    assert parse(STREAM) == EVENTS


def test_byte_by_byte_gives_the_same() -> None:
    assert parse(*(STREAM[index : index + 1] for index in range(len(STREAM)))) == EVENTS


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_any_cut_gives_the_same(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    assert parse(*(STREAM[a:b] for a, b in pairwise(edges))) == EVENTS


def test_what_is_not_ended_by_an_empty_line_is_kept_back() -> None:
    parser = SseParser()
    assert parser.feed(b"data: half") == []
    assert parser.feed(b" of it\n") == []
    assert parser.feed(b"\n") == [ServerEvent("message", "half of it")]


def test_an_event_without_data_is_none_but_its_id_stays() -> None:
    assert parse(b"event: ping\nid: 3\n\n", b"data: x\n\n") == [ServerEvent("message", "x", "3")]


@pytest.mark.parametrize("line", [b"id: a\0b\n", b"\n"])
def test_an_id_with_a_nul_is_left_aside(line: bytes) -> None:
    assert parse(line + b"data: x\n\n") == [ServerEvent("message", "x", "")]


def test_one_blank_after_the_colon_is_taken_away_and_no_more() -> None:
    assert parse(b"data:  two\n\n") == [ServerEvent("message", " two")]
