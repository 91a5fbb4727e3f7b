"""As whom a task runs: the whole table of settings, what is asked for, and who the owner is."""

from __future__ import annotations

import re

import pytest

from hakuriver_agent.identity import ForbiddenUserError, Ids, Rules, as_process, ids_of, in_container
from unit.agent.agent_doubles import spec

ROOT, PERSON, SERVICE = (0, 0), (1000, 100), (990, 980)
OPEN = Rules(ROOT, allow_any_user=True)
SERVED = Rules(ROOT, runner_user=SERVICE)
OWNED = Rules(ROOT, run_as_owner=True)
NOT_SAID = Rules(ROOT)
PLAIN = Rules(PERSON)


def test_a_group_is_the_users_unless_it_is_named() -> None:
    assert ids_of("7") == (7, 7)
    assert ids_of("7:8") == (7, 8)


@pytest.mark.parametrize(
    ("rules", "user", "owner", "expected"),
    [
        (OPEN, None, None, None),
        (OPEN, None, "5:6", None),
        (OPEN, "0", None, None),
        (OPEN, "7", None, (7, 7)),
        (SERVED, None, None, SERVICE),
        (SERVED, None, "5:6", SERVICE),
        (SERVED, "990", None, SERVICE),
        (SERVED, "990:980", None, SERVICE),
        (OWNED, None, "5:6", (5, 6)),
        (OWNED, "5", "5:6", (5, 6)),
        (OWNED, "5:6", "5:6", (5, 6)),
        (NOT_SAID, None, "5:6", (5, 6)),
        (NOT_SAID, "5", "5:6", (5, 6)),
        (PLAIN, None, None, None),
        (PLAIN, None, "5:6", None),
        (PLAIN, "1000", None, None),
        (PLAIN, "1000:100", None, None),
        (Rules(PERSON, run_as_owner=True), None, "1000:100", None),
        (Rules(PERSON, runner_user=PERSON), None, None, None),
        (Rules(ROOT, runner_user=SERVICE, allow_any_user=True), "7", None, (7, 7)),
    ],
)
def test_as_whom_a_process_runs(
    rules: Rules, user: str | None, owner: str | None, expected: Ids | None
) -> None:
    assert as_process(spec(user=user, owner_uid=owner), rules) == expected


@pytest.mark.parametrize(
    ("rules", "user", "owner", "reason"),
    [
        (NOT_SAID, None, None, "would run as root"),
        (NOT_SAID, "0", None, "would run as root"),
        (NOT_SAID, None, "0:0", "would run as root"),
        (NOT_SAID, "7", None, "no task of tester as 7"),
        (NOT_SAID, "7", "5:6", "no task of tester as 7"),
        (NOT_SAID, "0", "0:0", "would run as root"),
        (NOT_SAID, "5:0", "5:6", "no task of tester as 5:0"),
        (SERVED, "0", None, "no task of tester as 0"),
        (SERVED, "5", "5:6", "no task of tester as 5"),
        (SERVED, "990:0", None, "no task of tester as 990:0"),
        (Rules(ROOT, runner_user=ROOT), None, None, "would run as root"),
        (OWNED, None, None, "the uid of tester is not known"),
        (OWNED, "0", None, "the uid of tester is not known"),
        (OWNED, "0", "5:6", "0 is not tester"),
        (OWNED, "5:0", "5:6", "5:0 is not tester"),
        (Rules(ROOT, run_as_owner=True, allow_any_user=True), "7", "5:6", "7 is not tester"),
        (PLAIN, "7", None, "the Runner is not root"),
        (PLAIN, "0", None, "the Runner is not root"),
        (PLAIN, "5", "5:6", "the Runner is not root"),
        (Rules(PERSON, run_as_owner=True), None, "5:6", "the Runner is not root"),
        (Rules(PERSON, runner_user=SERVICE), None, None, "the Runner is not root"),
        (Rules(PERSON, allow_any_user=True), "0", None, "the Runner is not root"),
    ],
)
def test_as_whom_no_process_runs(rules: Rules, user: str | None, owner: str | None, reason: str) -> None:
    with pytest.raises(ForbiddenUserError, match=re.escape(reason)) as refusal:
        as_process(spec(user=user, owner_uid=owner), rules)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("run_as_owner", "user", "owner", "expected"),
    [
        (False, None, None, None),
        (False, None, "5:6", "5:6"),
        (False, "0", "5:6", "0"),
        (True, None, "5:6", "5:6"),
        (True, "5", "5:6", "5:6"),
    ],
)
def test_as_whom_a_container_runs(
    run_as_owner: bool, user: str | None, owner: str | None, expected: str | None
) -> None:
    assert in_container(spec(user=user, owner_uid=owner), run_as_owner=run_as_owner) == expected


@pytest.mark.parametrize(
    ("user", "owner", "reason"), [(None, None, "not known"), ("0", "5:6", "0 is not tester")]
)
def test_as_whom_no_container_runs(user: str | None, owner: str | None, reason: str) -> None:
    with pytest.raises(ForbiddenUserError, match=reason):
        in_container(spec(user=user, owner_uid=owner), run_as_owner=True)
