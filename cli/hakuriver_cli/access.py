"""`hakuriver user … | token … | whoami`: who may use the cluster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from cyclopts import Parameter

from hakuriver import models
from hakuriver.errors import HakuRiverError, UsageError
from hakuriver.roles import Role
from hakuriver_cli import cluster_views as views
from hakuriver_cli.errors import report
from hakuriver_cli.options import COMMON, Common, Duration, Watch
from hakuriver_cli.output import Format
from hakuriver_cli.session import Session
from hakuriver_cli.tree import new_app

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import BaseModel

    from hakuriver.models.tasks import Message

M = TypeVar("M", bound="BaseModel")

users = new_app("user", "Administer users.")
tokens = new_app("token", "Make, list and revoke tokens.")
keys = new_app("key", "Register the public keys that open your VPS.")


def whoami(*, common: Common = COMMON) -> None:
    """Show whose token you use."""
    session = Session(common)
    session.printer.record(session.client.whoami(), views.WHOAMI)


@users.command(name="create")
def create_user(
    name: Annotated[str, Parameter(help="Lower-case letters, digits and _ . - inside, at most 32.")],
    /,
    *,
    role: Annotated[
        Role,
        Parameter(help="admin: everything; user: tasks of their own; viewer: looks at nodes and the queue."),
    ] = Role.USER,
    uid: Annotated[int | None, Parameter(help="Numeric user id that their tasks run as.")] = None,
    gid: Annotated[int | None, Parameter(help="Numeric group id that their tasks run as.")] = None,
    common: Common = COMMON,
) -> None:
    """Make a user. Give them a token with `hakuriver token create --user NAME`."""
    session = Session(common)
    request = _request(models.access.UserCreate, name=name, role=role, uid=uid, gid=gid)
    session.printer.record(session.client.create_user(request), views.USERS)


@users.command(name="list")
def list_users(*, watch: Watch = False, common: Common = COMMON) -> int:
    """List the users."""
    session = Session(common)
    return session.rows(session.client.users, views.USERS, watch=watch)


@users.command(name="remove")
def remove_users(
    names: Annotated[list[str], Parameter(name="NAME", help="Users; several may be given.")],
    /,
    *,
    common: Common = COMMON,
) -> int:
    """Remove users with their tokens and keys, and end their connections. Their tasks and VPS live on, and are counted.

    The keys that these VPS were made with open them no more; admins enter them with `hakuriver connect`, and end them with `hakuriver task kill`.
    """
    session = Session(common)
    return for_names(session, names, session.client.remove_user)


@tokens.command(name="create")
def create_token(
    *,
    user: Annotated[str | None, Parameter(help="Whose it is; none is your own.")] = None,
    kind: Annotated[
        Literal["user", "join"], Parameter(help="user: for a person or program; join: for new Runners.")
    ] = "user",
    label: Annotated[str, Parameter(help="What it is for; shown in the list.")] = "",
    expires: Annotated[
        Duration, Parameter(help="How long it is valid, such as 12h or 30d; none is for ever.")
    ] = None,
    common: Common = COMMON,
) -> None:
    """Make a token. It is shown this once, on stdout; the Host keeps only a hash of it."""
    session = Session(common, default=Format.NAME)
    request = _request(
        models.access.TokenCreate, kind=kind, user=user, label=label, expires_in_seconds=expires
    )
    made = session.client.create_token(request)
    session.printer.record(made, views.NEW_TOKEN)
    if session.printer.err.isatty():
        session.printer.say(f"(token {made.token_id}; keep it: it is not shown again)")


@tokens.command(name="list")
def list_tokens(*, watch: Watch = False, common: Common = COMMON) -> int:
    """List the tokens; not their secrets."""
    session = Session(common)
    return session.rows(session.client.tokens, views.TOKENS, watch=watch)


@tokens.command(name="revoke")
def revoke_tokens(
    token_ids: Annotated[list[str], Parameter(name="TOKEN_ID", help="Ids of tokens; several may be given.")],
    /,
    *,
    common: Common = COMMON,
) -> int:
    """Make tokens invalid at once."""
    session = Session(common)
    return for_names(session, token_ids, session.client.revoke_token)


@keys.command(name="add")
def add_key(
    file: Annotated[
        Path | None, Parameter(help="File of a public key, such as ~/.ssh/id_ed25519.pub; - is stdin.")
    ] = None,
    /,
    *,
    label: Annotated[str, Parameter(help="What to call it; the key's comment unless given.")] = "",
    common: Common = COMMON,
) -> None:
    """Register a public key: it opens the SSH gateway and your VPS, those that run too."""
    from hakuriver_cli.public_keys import default_files, read  # noqa: PLC0415  (loaded when it is needed)

    session = Session(common)
    path = file or next(iter(default_files()), None)
    if path is None:
        raise UsageError("no public key is named, and ~/.ssh has none", "make one: ssh-keygen -t ed25519")
    request = _request(models.vps.KeyCreate, public_key=read(path), label=label)
    session.printer.record(session.client.add_key(request), views.KEYS)


@keys.command(name="list")
def list_keys(*, watch: Watch = False, common: Common = COMMON) -> int:
    """List your public keys; all keys for an admin."""
    session = Session(common)
    return session.rows(session.client.keys, views.KEYS, watch=watch)


@keys.command(name="remove")
def remove_keys(
    key_ids: Annotated[list[str], Parameter(name="KEY_ID", help="Ids of keys; several may be given.")],
    /,
    *,
    common: Common = COMMON,
) -> int:
    """Remove public keys: they open none of your VPS any more, and connections that came in by them end.

    That holds for live VPS that were made with them, too; others' VPS that were made with them keep them.
    """
    session = Session(common)
    return for_names(session, key_ids, session.client.remove_key)


def for_names(session: Session, names: list[str], act: Callable[[str], Message]) -> int:
    """Does it for all of them, reports each failure, and gives the exit code of the first."""
    from hakuriver_cli.records import Told  # noqa: PLC0415  (see there)

    code = 0
    done = []
    for name in dict.fromkeys(names):
        try:
            done.append(Told(name=name, message=act(name).message))
        except HakuRiverError as error:
            report(error, session.printer.err)
            code = code or error.exit_code
    if done:
        session.printer.rows(done, views.TOLD)
    return code


def _request(model: type[M], /, **fields: Any) -> M:
    from pydantic import ValidationError  # noqa: PLC0415  (loaded when it is needed)

    from hakuriver.client.calls import describe  # noqa: PLC0415

    try:
        return model(**fields)
    except ValidationError as error:
        raise UsageError(describe(error), "correct it and try again") from None
