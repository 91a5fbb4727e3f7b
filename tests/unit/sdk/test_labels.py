"""Labels of nodes, and what tasks ask of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hakuriver.cores import as_list, parse_list
from hakuriver.errors import UsageError
from hakuriver.labels import Selector, as_text, parse_change, parse_selector


@pytest.mark.parametrize(
    ("text", "labels", "admitted"),
    [
        ("disk=ssd", {"disk": "ssd"}, True),
        ("disk=ssd", {"disk": "hdd"}, False),
        ("disk=ssd", {}, False),
        ("disk!=ssd", {"disk": "ssd"}, False),
        ("disk!=ssd", {"disk": "hdd"}, True),
        ("disk!=ssd", {}, True),
        ("disk", {"disk": ""}, True),
        ("disk", {"room": "2"}, False),
        ("disk=", {"disk": ""}, True),
        ("lab.example/room=2", {"lab.example/room": "2"}, True),
    ],
)
def test_what_a_selector_admits(text: str, labels: dict[str, str], admitted: bool) -> None:
    assert parse_selector(text).admits(labels) is admitted
    assert str(parse_selector(text)) == text


@pytest.mark.parametrize(
    "text", ["", "=ssd", "!=ssd", "a b", "a=b c", "-a", "a=-b", "a==b", "a" * 64, "disk=é"]
)
def test_what_is_no_selector(text: str) -> None:
    with pytest.raises(UsageError, match="is not a label's"):
        parse_selector(text)


def test_changes() -> None:
    assert parse_change("disk=ssd") == ("disk", "ssd")
    assert parse_change("disk=") == ("disk", "")
    assert parse_change("disk-") == ("disk", None)
    with pytest.raises(UsageError, match="changes no label"):
        parse_change("disk")
    with pytest.raises(UsageError, match="is not a label's key"):
        parse_change("-")


def test_as_text() -> None:
    assert as_text({"room": "2", "disk": "ssd"}) == "disk=ssd,room=2"
    assert Selector("disk").value is None


@given(st.sets(st.integers(0, 300)))
def test_lists_of_cores_are_read_as_they_are_written(numbers: set[int]) -> None:
    assert parse_list(as_list(numbers)) == sorted(numbers)


def test_a_list_of_cores() -> None:
    assert as_list([8, 0, 1, 2, 3, 3, 10]) == "0-3,8,10"
    assert as_list([]) == ""
