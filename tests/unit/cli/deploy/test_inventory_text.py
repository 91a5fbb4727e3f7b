"""Adding and taking away machines changes those lines of hosts.yml and no other."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hakuriver.errors import ConflictError, HakuRiverError, NotFoundError, UsageError
from hakuriver_cli.deploy.inventory_text import (
    flaw,
    has_machine,
    with_machine,
    without_machine,
    without_runner,
)

TEXT = """\
# The lab.
---
hakuriver:
  children:
    hakuriver_host:
      hosts:
        head: {ansible_host: 10.0.0.1}   # in the cellar
    hakuriver_runners:
      hosts:
        # the old one
        node-1:
          ansible_host: 10.0.0.11   # by the door
          secret: !vault |
            $ANSIBLE_VAULT;1.1;AES256
            6162
        head:
      vars:
        colour: red

    # after all
    gpus:
      hosts: {}
"""


def test_a_machine_is_added_after_the_last_of_its_group() -> None:
    changed = with_machine(
        TEXT, "node-2", "hakuriver_runners", {"ansible_host": "10.0.0.12", "note": "it's: #1"}
    )
    added = [
        "        node-2:",
        "          ansible_host: 10.0.0.12",
        "          note: 'it''s: #1'",
    ]
    before, after = TEXT.splitlines(), changed.splitlines()
    at = after.index(added[0])
    assert after[at : at + 3] == added
    assert after[:at] + after[at + 3 :] == before
    assert after[at - 1] == "        head:"


def test_the_first_machine_of_an_empty_group() -> None:
    changed = with_machine(TEXT, "node-2", "gpus", {})
    assert changed.endswith("    gpus:\n      hosts:\n        node-2:\n")


@pytest.mark.parametrize("empty", ["hosts:", "hosts: {}", "hosts: # none yet", "hosts: {} # none yet"])
def test_groups_may_be_empty_in_several_ways(empty: str) -> None:
    text = f"hakuriver_runners:\n  {empty}\n  vars:\n    a: 1"
    changed = with_machine(text, "n", "hakuriver_runners", {"x": "1"})
    assert yaml.safe_load(changed) == {"hakuriver_runners": {"hosts": {"n": {"x": 1}}, "vars": {"a": 1}}}


def test_a_file_without_a_last_newline() -> None:
    assert with_machine("g:\n  hosts:\n    a:", "b", "g", {}) == "g:\n  hosts:\n    a:\n    b:\n"


def test_taking_it_away_again_gives_the_text_of_before() -> None:
    changed = with_machine(TEXT, "node-2", "hakuriver_runners", {"ansible_host": "x", "b": "true"})
    assert without_machine(changed, "node-2") == TEXT


def test_a_machine_goes_from_all_its_groups() -> None:
    changed = without_machine(TEXT, "head")
    assert "cellar" not in changed
    assert "# the old one" in changed
    assert not has_machine(changed, "head")
    assert has_machine(changed, "node-1")


def test_one_with_many_lines_goes_as_a_whole() -> None:
    changed = without_machine(TEXT, "node-1")
    assert "VAULT" not in changed
    assert "by the door" not in changed
    assert "        head:\n      vars:\n" in changed


def test_a_machine_is_there_once() -> None:
    with pytest.raises(ConflictError):
        with_machine(TEXT, "node-1", "gpus", {})
    with pytest.raises(NotFoundError):
        without_machine(TEXT, "node-9")
    with pytest.raises(NotFoundError):
        without_runner(TEXT, "node-9")


def both(host: str, runner: str) -> str:
    """An inventory in which one machine is Host and Runner, as these lines have it."""
    indented = [line.replace("\n", "\n        ") for line in (host, runner)]
    return (
        "hakuriver:\n  children:\n    hakuriver_host:\n      hosts:\n"
        f"        {indented[0]}\n"
        "    hakuriver_runners:\n      hosts:\n        node-1:\n"
        f"        {indented[1]}\n      vars:\n        colour: red\n"
    )


def test_the_host_goes_from_the_runners_alone() -> None:
    changed = without_runner(TEXT, "head")
    assert changed.splitlines() == [line for line in TEXT.splitlines() if line != "        head:"]


def test_a_machine_that_is_a_runner_alone_goes_as_a_whole() -> None:
    assert without_runner(TEXT, "node-1") == without_machine(TEXT, "node-1")


@pytest.mark.parametrize(
    ("host", "runner", "after"),
    [
        (
            "head:",
            "head:\n  ansible_host: 10.0.0.1  # below\n  words:\n    - a",
            "head:\n  ansible_host: 10.0.0.1  # below\n  words:\n    - a",
        ),
        (
            "head:\n    ansible_host: 10.0.0.1",
            "head:\n  ansible_host: 10.0.0.1\n  rack: 7",
            "head:\n    ansible_host: 10.0.0.1\n    rack: 7",
        ),
        ("head:", "head: {ansible_host: 10.0.0.1, rack: 7}", "head:\n  ansible_host: 10.0.0.1\n  rack: 7"),
        ("head: {rack: 7}", "head: {rack: 7}", "head: {rack: 7}"),
    ],
)
def test_what_was_said_of_the_host_as_a_runner_stays_said(host: str, runner: str, after: str) -> None:
    changed = without_runner(both(host, runner), "head")
    assert changed == both(after, "@").replace("        @\n", "")


@pytest.mark.parametrize(
    ("host", "runner"),
    [
        ("head:\n  rack: 6", "head:\n  rack: 7"),
        ("head: {a: 1}", "head:\n  rack: 7"),
        ("head: {}", "head: {b: 1}"),
    ],
)
def test_variables_that_cannot_be_moved_by_lines_are_left_to_a_person(host: str, runner: str) -> None:
    with pytest.raises(HakuRiverError, match="cannot take head off the Runners") as error:
        without_runner(both(host, runner), "head")
    assert "by hand" in error.value.hint


def test_groups_inside_those_of_the_runners_count_wherever_they_are_written() -> None:
    text = (
        "hakuriver_host:\n  hosts:\n    head:\nhakuriver_runners:\n  children:\n    gpus:\n"
        "gpus:\n  hosts:\n    head:\n      rack: 7\n    node-1:\nothers:\n  hosts:\n    head:\n"
    )
    assert yaml.safe_load(without_runner(text, "head")) == {
        "hakuriver_host": {"hosts": {"head": {"rack": 7}}},
        "hakuriver_runners": {"children": {"gpus": None}},
        "gpus": {"hosts": {"node-1": None}},
        "others": {"hosts": {"head": None}},
    }


@pytest.mark.parametrize("name", ["head", "other"])
def test_a_machine_that_is_no_runner_does_not_leave(name: str) -> None:
    text = with_machine(without_runner(TEXT, "head"), "other", "gpus", {})
    with pytest.raises(NotFoundError, match=f"{name} is no Runner in the inventory") as error:
        without_runner(text, name)
    assert "cluster reset" in error.value.hint


@pytest.mark.parametrize(
    ("text", "group"),
    [
        (TEXT, "nowhere"),
        ("- a\n", "g"),
        ("", "g"),
        ("g: {hosts: {a: }}\n", "g"),
        ("g:\n  - [\n", "g"),
        ("g:\n  vars:\n", "g"),
    ],
)
def test_what_cannot_be_changed_by_lines_is_left_to_a_person(text: str, group: str) -> None:
    with pytest.raises(HakuRiverError) as error:
        with_machine(text, "node-2", group, {})
    assert error.value.hint


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (TEXT, None),
        ("g:\n  hosts:\n    a:\n    b:\n    a: {x: 1}\n", "line 5: a, which line 3 has already"),
        ("a: {x: 1, x: 2}\n", "line 1: x, which line 1 has already"),
        ("- {x: 1}\n- {x: 2}\n", None),
        ("a: &a {x: 1}\nb:\n  <<: *a\n  y: 2\nc:\n  <<: *a\n", None),
        ("a: [\n", "line 2: expected the node content, but found '<stream end>'"),
        ("$ANSIBLE_VAULT;1.1;AES256\n61: [", None),
        ("", None),
    ],
)
def test_what_cannot_be_read_or_is_there_twice(text: str, why: str | None) -> None:
    assert flaw(text) == why


@pytest.mark.parametrize("name", ["", "a b", "-x", "a:", "a\nb", "x" + "é"])
def test_names_that_would_be_something_else_are_refused(name: str) -> None:
    with pytest.raises(UsageError):
        with_machine(TEXT, name, "gpus", {})


@given(
    st.dictionaries(
        st.from_regex(r"[a-z_]{1,8}", fullmatch=True),
        st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=20),
        max_size=3,
    )
)
def test_any_value_comes_out_as_it_went_in_or_is_refused(variables: dict[str, str]) -> None:
    try:
        changed = with_machine("g:\n  hosts:\n    a:\n", "b", "g", variables)
    except HakuRiverError:
        return
    found = yaml.safe_load(changed)["g"]["hosts"]["b"] or {}
    assert {key: str(value).lower() for key, value in found.items()} == {
        key: value.lower() for key, value in variables.items()
    }
