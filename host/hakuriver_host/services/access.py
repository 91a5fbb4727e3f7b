"""Who may do what: users, their tokens, nodes' tokens, and the one table of permissions.

Tokens are 256 random bits; the Host keeps their SHA-256. All of them are few, so they live in memory and a
check costs one look-up.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import os
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, insert
from sqlmodel import SQLModel

from hakuriver.errors import ConflictError, DeniedError, NotFoundError, StorageError, UnauthenticatedError
from hakuriver.models.access import TokenCreate, TokenCreated, TokenInfo, UserCreate, UserInfo
from hakuriver.roles import Role
from hakuriver.states import TaskState
from hakuriver_host.db.rows import millis
from hakuriver_host.db.tables import TokenRow, UserRow
from hakuriver_host.db.writer import Changes
from hakuriver_host.services.core import Core, moment, optional_moment

ADMIN = "admin"
"""The user that the first start makes."""


class Permission(StrEnum):
    """What an endpoint asks for. `PERMISSIONS` says who has it."""

    SEE = "see"
    """Nodes, the queue, the states of all tasks."""
    SUBMIT = "submit"
    OWN = "own"
    """Control and read one's own tasks; an admin, anyone's."""
    PREPARE = "prepare"
    """Make environments, and change one's own; an admin, anyone's."""
    MANAGE = "manage"
    """Users, tokens and nodes."""
    NODE = "node"
    """What a Runner says to the Host."""
    JOIN = "join"
    """Exchange the join token for a node's own."""


PERMISSIONS: dict[Role, frozenset[Permission]] = {
    Role.ADMIN: frozenset(
        {Permission.SEE, Permission.SUBMIT, Permission.OWN, Permission.PREPARE, Permission.MANAGE}
    ),
    Role.USER: frozenset({Permission.SEE, Permission.SUBMIT, Permission.OWN, Permission.PREPARE}),
    Role.VIEWER: frozenset({Permission.SEE}),
}


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is calling. A node's or a join token has no role."""

    name: str
    role: Role | None
    permissions: frozenset[Permission]
    uid: int | None = None
    gid: int | None = None

    @property
    def is_admin(self) -> bool:
        return self.role is Role.ADMIN

    def check_owns(self, owner: str, what: str) -> None:
        """Raises `DeniedError` unless it is the caller's own, or the caller is an admin."""
        if owner != self.name and not self.is_admin:
            raise DeniedError(f"{what} belongs to {owner}", "ask its owner or an admin")


_USERS, _TOKENS = (SQLModel.metadata.tables[str(model.__tablename__)] for model in (UserRow, TokenRow))


def token_is_over() -> UnauthenticatedError:
    """What ends what a token has opened."""
    return UnauthenticatedError("the token was revoked or has expired", "ask an admin for a new one")


def token_hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


class Access:
    """Users and tokens, in memory and on the record. A change that the record does not take changes nothing."""

    def __init__(
        self, core: Core, users: Iterable[UserRow], tokens: Iterable[TokenRow], secret: bytes
    ) -> None:
        self._core = core
        self._secret = secret
        self._users = {user.name: user for user in users}
        self._tokens = {token.token_hash: token for token in tokens}
        self._goes_on: dict[str, list[Callable[[], object]]] = {}
        """By a token's hash, what ends the things that it has opened and that go on."""
        self._changing = asyncio.Lock()
        """Held from the look at what is there to the end of the write."""

    def principal(self, authorization: str | None) -> Principal:
        """Who the bearer is.

        Raises:
            UnauthenticatedError: no token, or one that is unknown or has expired.

        """
        row = self._token(authorization)
        if row.kind == "node":
            return Principal(row.node or "", None, frozenset({Permission.NODE}))
        if row.kind == "join":
            return Principal("join", None, frozenset({Permission.JOIN}))
        user = self._users[row.user_name or ""]
        role = Role(user.role)
        return Principal(user.name, role, PERMISSIONS[role], user.uid, user.gid)

    @contextlib.contextmanager
    def while_valid(self, authorization: str | None, end: Callable[[], object]) -> Iterator[None]:
        """While something goes on that the bearer has opened: `end` is called when the token is revoked, or expires.

        Raises:
            UnauthenticatedError: no token, or one that is unknown or has expired.
        """
        row = self._token(authorization)
        ends = self._goes_on.setdefault(row.token_hash, [])
        ends.append(end)
        left = None if row.expires_at is None else row.expires_at / 1000 - self._core.now().wall
        timer = None if left is None else asyncio.get_running_loop().call_later(left, end)
        try:
            yield
        finally:
            if timer is not None:
                timer.cancel()
            ends.remove(end)
            if not ends:
                self._goes_on.pop(row.token_hash, None)

    def _token(self, authorization: str | None) -> TokenRow:
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise UnauthenticatedError(
                "a token is needed", "set client.token_file or HAKURIVER_TOKEN, or ask an admin for a token"
            )
        row = self._tokens.get(token_hash(token.strip()))
        if row is None or (row.expires_at is not None and row.expires_at <= self._core.now().wall * 1000):
            raise UnauthenticatedError("the token is not known or has expired", "ask an admin for a new one")
        return row

    def _forget(self, which: Callable[[TokenRow], bool]) -> None:
        """Makes tokens invalid at once, and ends what they have opened."""
        gone = {key for key, token in self._tokens.items() if which(token)}
        self._tokens = {key: token for key, token in self._tokens.items() if key not in gone}
        for key in gone:
            for end in [*self._goes_on.get(key, ())]:
                end()

    async def bootstrap(self, state_dir: Path) -> None:
        """At the first start: the admin, and a token each for the admin and for joining, in files of their own.

        A token's file is made before the token is on the record, and gets its name afterwards: a start that is
        broken off in between is taken up by the next.
        """
        if ADMIN not in self._users:
            # Whatever lives: a Host without this user would not start.
            await self._create_user(UserCreate(name=ADMIN, role=Role.ADMIN))
        for file_name, body in (
            ("admin.token", TokenCreate(kind="user", user=ADMIN, label="first start")),
            ("join.token", TokenCreate(kind="join", label="first start")),
        ):
            path = state_dir / file_name
            made = path.with_name(f"{file_name}.made")
            if made.exists() and token_hash(made.read_text().strip()) in self._tokens:
                made.replace(path)
            elif not path.exists() and not any(
                token.kind == body.kind and token.label == body.label for token in self._tokens.values()
            ):
                token, row = self._new_token(body.kind, user_name=body.user, label=body.label)
                await asyncio.to_thread(write_secret, made, token + "\n")
                await self._keep(row)
                made.replace(path)

    def users(self) -> list[UserInfo]:
        return [_user_info(user) for user in sorted(self._users.values(), key=lambda user: user.name)]

    def check_user(self, name: str) -> None:
        """That there is such a user.

        Raises:
            NotFoundError: there is none.
        """
        if name not in self._users:
            raise NotFoundError(f"there is no user {name}", "an admin lists them with `hakuriver user list`")

    def uid_of(self, name: str) -> str | None:
        """`uid:gid` of a user, where an admin has set them."""
        user = self._users.get(name)
        if user is None or user.uid is None:
            return None
        return f"{user.uid}:{user.uid if user.gid is None else user.gid}"

    async def create_user(self, body: UserCreate, also: Callable[[str], Awaitable[None]]) -> UserInfo:
        """Makes a user. `also` refuses a name for what lies elsewhere of a user who was removed.

        Raises:
            ConflictError: the name is taken, also by what lives on of a user who was removed.
        """
        if body.name not in self._users:
            if left := self.still_has(body.name):
                raise ConflictError(
                    f"a removed user {body.name} still has {left}, which a new one would have then",
                    f"see `hakuriver task list --owner {body.name}`, and kill them: `hakuriver task kill ID`",
                )
            await also(body.name)
        return await self._create_user(body)

    def still_has(self, name: str) -> str:
        """How many VPS and tasks of that owner live, in words; none is empty.

        Lost VPS count, which may come back and can be killed; lost commands do not, since nobody can end them.
        """
        kinds = Counter(
            task.batch.spec.task_type
            for task in self._core.cluster.tasks.values()
            if task.batch.owner == name
            and (task.state is not TaskState.LOST or task.batch.spec.task_type == "vps")
        )
        vps, commands = kinds["vps"], kinds["command"]
        words = [f"{vps} VPS"] if vps else []
        words += [f"{commands} task{'s' if commands > 1 else ''}"] if commands else []
        return " and ".join(words)

    async def _create_user(self, body: UserCreate) -> UserInfo:
        async with self._changing:
            if body.name in self._users:
                raise ConflictError(f"there is a user {body.name} already", "choose another name")
            row = UserRow(
                name=body.name, role=body.role, uid=body.uid, gid=body.gid, created_at=self._stamp()
            )
            await self._write(lambda connection: connection.execute(insert(_USERS), [row.model_dump()]))
            self._users[body.name] = row
        return _user_info(row)

    async def delete_user(self, name: str, also: Callable[[Connection], object]) -> None:
        """Removes a user, all of their tokens and, by `also`, their keys; their tasks stay, those that live too."""

        def remove(connection: Connection) -> None:
            also(connection)
            connection.execute(delete(_TOKENS).where(_TOKENS.c.user_name == name))
            connection.execute(delete(_USERS).where(_USERS.c.name == name))

        async with self._changing:
            self._check_removable(name)
            await self._write(remove)
            del self._users[name]
            self._forget(lambda token: token.user_name == name)

    def tokens(self, caller: Principal) -> list[TokenInfo]:
        """All of them for an admin, one's own for others."""
        mine = [token for token in self._tokens.values() if caller.is_admin or token.user_name == caller.name]
        return [
            _token_info(token) for token in sorted(mine, key=lambda token: (token.created_at, token.token_id))
        ]

    async def create_token(self, body: TokenCreate, caller: Principal) -> TokenCreated:
        user = (body.user or caller.name) if body.kind == "user" else None
        if (body.kind == "join" or user != caller.name) and not caller.is_admin:
            raise DeniedError("only an admin makes tokens for others", "leave out --user, or ask an admin")
        expires = None if body.expires_in_seconds is None else self._stamp() + body.expires_in_seconds * 1000
        async with self._changing:
            if user is not None and user not in self._users:
                raise NotFoundError(f"there is no user {user}", "make one with `hakuriver user create`")
            token, row = self._new_token(body.kind, user_name=user, label=body.label, expires_at=expires)
            await self._keep(row)
        return TokenCreated(**_token_info(row).model_dump(), token=token)

    async def delete_token(self, token_id: str, caller: Principal) -> None:
        row = next((token for token in self._tokens.values() if token.token_id == token_id), None)
        if row is None or (row.user_name != caller.name and not caller.is_admin):
            raise NotFoundError(
                f"there is no token {token_id} of yours", "list them with `hakuriver token list`"
            )
        await self._write(
            lambda connection: connection.execute(delete(_TOKENS).where(_TOKENS.c.token_id == token_id))
        )
        self._forget(lambda token: token.token_id == token_id)

    async def node_token(self, node: str) -> str:
        """A new token for a node; its older ones end."""
        token, row = self._new_token("node", node=node)

        def replace(connection: Connection) -> None:
            connection.execute(delete(_TOKENS).where(_TOKENS.c.node == node))
            connection.execute(insert(_TOKENS), [row.model_dump()])

        await self._write(replace)
        self.forget_node(node)
        self._tokens[row.token_hash] = row
        return token

    def forget_node(self, node: str) -> Callable[[Connection], None]:
        """Makes a node's tokens invalid at once; what is given strikes them from the record."""
        self._forget(lambda token: token.node == node)

        def remove(connection: Connection) -> None:
            connection.execute(delete(_TOKENS).where(_TOKENS.c.node == node))

        return remove

    def control_token(self, node: str, nonce: str) -> str:
        """What the Host shows the Runner: derived from the Host's secret, so that it is stored nowhere here."""
        digest = hmac.new(self._secret, f"{node}\n{nonce}".encode(), hashlib.sha256)
        return f"hkr_control_{digest.hexdigest()}"

    def _check_removable(self, name: str) -> None:
        if name not in self._users:
            raise NotFoundError(f"there is no user {name}", "list them with `hakuriver user list`")
        if (
            self._users[name].role == Role.ADMIN
            and sum(user.role == Role.ADMIN for user in self._users.values()) == 1
        ):
            raise ConflictError(f"{name} is the only admin", "make another admin first")

    def _new_token(self, kind: str, **columns: Any) -> tuple[str, TokenRow]:
        """A token, and the row that knows it."""
        token = f"hkr_{kind}_{secrets.token_urlsafe(32)}"
        row = TokenRow(
            token_id=secrets.token_hex(6),
            token_hash=token_hash(token),
            kind=kind,
            created_at=self._stamp(),
            **columns,
        )
        return token, row

    async def _keep(self, row: TokenRow) -> None:
        await self._write(lambda connection: connection.execute(insert(_TOKENS), [row.model_dump()]))
        self._tokens[row.token_hash] = row

    def _stamp(self) -> int:
        return millis(self._core.now().wall) or 0

    async def _write(self, action: Any) -> None:
        await self._core.writer.write(Changes(actions=[action]), firm=False)


def write_secret(path: Path, text: str) -> None:
    """Writes a file that only its owner reads, whole or not at all."""
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def load_secret(state_dir: Path) -> bytes:
    """The Host's own secret; made at the first start."""
    path = state_dir / "host.key"
    try:
        if not path.exists():
            write_secret(path, secrets.token_hex(32) + "\n")
        return path.read_text().strip().encode()
    except OSError as error:
        raise StorageError(
            f"cannot read the Host's key {path}: {error.strerror}", "check its permissions, and its disk"
        ) from None


def _user_info(user: UserRow) -> UserInfo:
    return UserInfo(
        name=user.name,
        role=Role(user.role),
        uid=user.uid,
        gid=user.gid,
        created_at=moment(user.created_at / 1000),
    )


def _token_info(token: TokenRow) -> TokenInfo:
    return TokenInfo(
        token_id=token.token_id,
        kind=token.kind,
        user=token.user_name,
        node=token.node,
        label=token.label,
        created_at=moment(token.created_at / 1000),
        expires_at=optional_moment(None if token.expires_at is None else token.expires_at / 1000),
    )
