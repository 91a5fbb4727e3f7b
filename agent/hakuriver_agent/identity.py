"""As whom a task runs: from what it asks for, who owns it, and what this node's settings allow.

In a container every user is a stranger to the machine, so a task may name any. Without container it is a user of the
machine: who chooses it freely chooses root, and root reads what the Runner and the Host keep secret.
"""

from __future__ import annotations

from dataclasses import dataclass

from hakuriver.models.runner import AttemptSpec

Ids = tuple[int, int]
"""A uid and a gid."""
ROOT = 0


class ForbiddenUserError(Exception):
    """The task may not run as whom it would; the text says why in one line, and what an admin can set."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What a Runner's settings say of tasks without container."""

    own: Ids
    """The Runner's own."""
    run_as_owner: bool = False
    runner_user: Ids | None = None
    allow_any_user: bool = False


def ids_of(user: str) -> Ids:
    """Those of `UID[:GID]`; the gid is the uid when it is not given."""
    uid, _, gid = user.partition(":")
    return int(uid), int(gid or uid)


def in_container(spec: AttemptSpec, *, run_as_owner: bool) -> str | None:
    """`UID[:GID]` that a task's container runs as: what is asked for, else the owner's; none for the image's own.

    Raises:
        ForbiddenUserError: the node runs tasks as their owners, and it is not known or another is asked for.
    """
    if not run_as_owner:
        return spec.user or spec.owner_uid
    uid, gid = _owner(spec)
    return f"{uid}:{gid}"


def as_process(spec: AttemptSpec, rules: Rules) -> Ids | None:
    """What a task without container runs as; none for the Runner's own.

    Raises:
        ForbiddenUserError: it may not run as that here.
    """
    ids = _wanted(spec, rules)
    if ids != rules.own and rules.own[0] != ROOT:
        raise ForbiddenUserError("the Runner is not root, so that it cannot run tasks as another user")
    if ids[0] == ROOT and not rules.allow_any_user:
        raise ForbiddenUserError(
            f"without container it would run as root on this node: {spec.owner} has no uid of their own"
            " (environment.runner_user, runner.allow_any_user)"
        )
    return None if ids == rules.own else ids


def _wanted(spec: AttemptSpec, rules: Rules) -> Ids:
    if rules.run_as_owner:
        return _owner(spec)
    usual = rules.runner_user or _unless_root(spec, rules)
    if spec.user is None or _names(spec.user, usual):
        return usual
    if rules.allow_any_user or rules.own[0] != ROOT:
        return ids_of(spec.user)
    raise ForbiddenUserError(
        f"without container this node runs no task of {spec.owner} as {spec.user} (runner.allow_any_user)"
    )


def _unless_root(spec: AttemptSpec, rules: Rules) -> Ids:
    """The Runner's own, or the owner's where that is root."""
    if rules.own[0] == ROOT and not rules.allow_any_user and spec.owner_uid is not None:
        return ids_of(spec.owner_uid)
    return rules.own


def _owner(spec: AttemptSpec) -> Ids:
    if spec.owner_uid is None:
        raise ForbiddenUserError(
            f"this node runs tasks as their owners, and the uid of {spec.owner} is not known"
        )
    if spec.user is not None and not _names(spec.user, ids_of(spec.owner_uid)):
        raise ForbiddenUserError(
            f"this node runs tasks as their owners, and {spec.user} is not {spec.owner} (runner.run_as_owner)"
        )
    return ids_of(spec.owner_uid)


def _names(user: str, ids: Ids) -> bool:
    """Whether `UID[:GID]` means these; without GID the uid says it all."""
    return user in {f"{ids[0]}", f"{ids[0]}:{ids[1]}"}
