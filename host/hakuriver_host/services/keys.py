"""The public keys of users: registered here, they open the users' VPS and the SSH gateway."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import hmac
import json
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select, update
from sqlmodel import SQLModel

from hakuriver.errors import ConflictError, NotFoundError
from hakuriver.keys import parse_public_key, parse_public_keys
from hakuriver.models.submission import OWN_KEYS
from hakuriver.models.vps import KeyCreate, KeyInfo
from hakuriver_host.db.rows import millis
from hakuriver_host.db.tables import BatchRow, PublicKeyRow, ShareRow, TaskRow
from hakuriver_host.db.writer import Changes
from hakuriver_host.domain.model import Batch, Task
from hakuriver_host.services.access import Principal
from hakuriver_host.services.core import Core, moment

_KEYS, _SHARES, _BATCHES, _TASKS = (
    SQLModel.metadata.tables[str(model.__tablename__)]
    for model in (PublicKeyRow, ShareRow, BatchRow, TaskRow)
)
_MOST = 100
"""Keys of one user."""


@dataclass(frozen=True, slots=True)
class Holder:
    """What a public key opens: the VPS of a user, or those that were submitted with it."""

    user: str | None
    vps: frozenset[int]


class Keys:
    """In memory and on the record, as tokens are."""

    def __init__(
        self, core: Core, keys: Iterable[PublicKeyRow], shares: Iterable[ShareRow], secret: bytes
    ) -> None:
        self._core = core
        self._secret = secret
        self._keys = {row.key_id: row for row in keys}
        self._by_key = {parse_public_key(row.public_key).bare: row for row in self._keys.values()}
        self._shares: dict[int, set[str]] = {}
        for share in shares:
            self._shares.setdefault(share.task_id, set()).add(share.user_name)
        self._vps: dict[int, Task] = {}
        for task in core.cluster.tasks.values():
            self.note(task)
        self._changing = asyncio.Lock()

    def seen_by(self, caller: Principal) -> list[KeyInfo]:
        """One's own; all of them for an admin."""
        mine = [row for row in self._keys.values() if caller.is_admin or row.user_name == caller.name]
        return [_info(row) for row in sorted(mine, key=lambda row: (row.user_name, row.created_at))]

    async def create(self, body: KeyCreate, caller: Principal) -> KeyInfo:
        """Registers a key.

        Raises:
            ConflictError: it is registered, for the caller or for somebody else, or the caller has too many.
        """
        key = parse_public_key(body.public_key)
        async with self._changing:
            if known := self._by_key.get(key.bare):
                raise ConflictError(
                    f"the key {key.fingerprint} is registered already, for {known.user_name}",
                    "a key tells one user from another: make one of your own with `ssh-keygen -t ed25519`",
                )
            if sum(row.user_name == caller.name for row in self._keys.values()) >= _MOST:
                raise ConflictError(f"you have {_MOST} keys already", "remove some: `hakuriver key list`")
            row = PublicKeyRow(
                key_id=secrets.token_hex(6),
                user_name=caller.name,
                public_key=key.line,
                label=body.label or key.comment[:128],
                created_at=millis(self._core.now().wall) or 0,
            )
            await self._write(lambda connection: connection.execute(insert(_KEYS), [row.model_dump()]))
            self._keys[row.key_id] = self._by_key[key.bare] = row
        return _info(row)

    async def delete(self, key_id: str, caller: Principal) -> None:
        """Removes a key, also from the VPS of its user that were made with it.

        Others' VPS keep it: any public key can be registered by anybody, who would shut others out by removing it.

        Raises:
            NotFoundError: there is no such key of the caller's.
        """
        async with self._changing:
            row = self._keys.get(key_id)
            if row is None or (row.user_name != caller.name and not caller.is_admin):
                raise NotFoundError(
                    f"there is no key {key_id} of yours", "list them with `hakuriver key list`"
                )
            bare = parse_public_key(row.public_key).bare

            def work(connection: Connection) -> None:
                connection.execute(delete(_KEYS).where(_KEYS.c.key_id == key_id))
                _strike_from_vps(connection, row.user_name, {bare})

            with self._taken(row.user_name, {bare}):
                await self._write(work)
            self._keys.pop(key_id, None)
            self._by_key.pop(bare, None)

    @contextlib.asynccontextmanager
    async def striking(self, name: str) -> AsyncIterator[Callable[[Connection], object]]:
        """While a user is removed: what strikes their keys, those of their live VPS too, and what is shared with them,
        from the record. They are forgotten when it is left without an error, and open what they did after one.
        """

        def work(connection: Connection) -> None:
            connection.execute(delete(_KEYS).where(_KEYS.c.user_name == name))
            connection.execute(delete(_SHARES).where(_SHARES.c.user_name == name))
            _strike_from_vps(connection, name, None)

        async with self._changing:
            with self._taken(name, None):
                yield work
            self._by_key = {key: row for key, row in self._by_key.items() if row.user_name != name}
            for users in self._shares.values():
                users.discard(name)
            self._keys = {key_id: row for key_id, row in self._keys.items() if row.user_name != name}

    @contextlib.contextmanager
    def _taken(self, owner: str, gone: AbstractSet[str] | None) -> Iterator[None]:
        """Takes keys (none: all) from the live VPS of a user that were made with them, before that is on the record: what
        is written of them from now on has them no more. They have them again when it is left with an error.
        """
        before = [(task.batch, task.batch.spec.command) for task in self.live() if task.batch.owner == owner]
        for batch, command in before:
            _set_command(batch, _without(command, gone))
        try:
            yield
        except Exception:
            for batch, command in before:
                _set_command(batch, command)
            raise

    def of_user(self, name: str) -> list[str]:
        """The public keys of a user, without comments."""
        return [key for key, row in self._by_key.items() if row.user_name == name]

    def holder(self, bare: str) -> Holder | None:
        """What a key (without comment) opens; none when it opens nothing."""
        row = self._by_key.get(bare)
        vps = frozenset(task.task_id for task in self.live() if bare in keys_of(task))
        return Holder(row.user_name if row else None, vps) if row or vps else None

    def answers(self, holder: Holder) -> str:
        """The user among whose connections one by this key counts: whose key it is, else who has put it into a VPS."""
        return holder.user or min(task.batch.owner for task in self.live() if task.task_id in holder.vps)

    def admits(self, holder: Holder, task: Task) -> bool:
        """Whether whoever holds a key may enter a VPS."""
        return self.may_enter(task, holder.user) or task.task_id in holder.vps

    def live(self) -> list[Task]:
        """The VPS that have not ended, lost ones too: they may come back with their nodes, with name and keys."""
        tasks = self._core.cluster.tasks
        self._vps = {task_id: task for task_id, task in self._vps.items() if tasks.get(task_id) is task}
        return [*self._vps.values()]

    def note(self, task: Task) -> None:
        """A task that is on the record now: kept here if it is a VPS, so that a login looks at those alone."""
        if task.batch.spec.task_type == "vps":
            self._vps[task.task_id] = task

    def opening(self, task: Task) -> list[str]:
        """The public keys that open a VPS now, without comments."""
        users = (task.batch.owner, *self.shared_with(task.task_id))
        return sorted({*keys_of(task), *(key for user in users for key in self.of_user(user))})

    def shared_with(self, task_id: int) -> list[str]:
        """The users who may enter a VPS beside its owner."""
        return sorted(self._shares.get(task_id, ()))

    def may_enter(self, task: Task, user: str | None) -> bool:
        """Whether it is the user's own VPS, or is shared with them."""
        return user is not None and (task.batch.owner == user or user in self._shares.get(task.task_id, ()))

    async def share(self, task_id: int, user: str) -> None:
        """Lets a user into a VPS; one who is let in already stays so."""
        async with self._changing:
            if user not in self._shares.get(task_id, ()):
                row = {"task_id": task_id, "user_name": user}
                await self._write(lambda connection: connection.execute(insert(_SHARES), [row]))
                self._shares.setdefault(task_id, set()).add(user)

    async def unshare(self, task_id: int, user: str) -> None:
        """Lets a user into a VPS no more."""
        mine = (_SHARES.c.task_id == task_id) & (_SHARES.c.user_name == user)
        async with self._changing:
            await self._write(lambda connection: connection.execute(delete(_SHARES).where(mine)))
            self._shares.get(task_id, set()).discard(user)

    def host_seed(self, what: str) -> bytes:
        """The seed (32 bytes) of the host key of the gateway or of a VPS.

        Derived from the Host's secret, as control tokens are: stored nowhere, the same for the whole life of a VPS on
        whatever node, and in a backup with the secret.
        """
        return hmac.new(self._secret, f"ssh host key\n{what}".encode(), hashlib.sha256).digest()

    async def _write(self, action: object) -> None:
        await self._core.writer.write(Changes(actions=[action]), firm=False)  # type: ignore[list-item]


def keys_of(task: Task) -> frozenset[str]:
    """The public keys that a VPS was submitted with, without comments."""
    return _keys_in(task.batch.spec.command)


def _strike_from_vps(connection: Connection, owner: str, gone: AbstractSet[str] | None) -> None:
    """Takes keys from the VPS of a user on the record, from those that have ended too: a retry would bring them back."""
    of_vps = select(_TASKS.c.batch_id).where(_TASKS.c.owner == owner, _TASKS.c.task_type == "vps")
    found = connection.execute(
        select(_BATCHES.c.batch_id, _BATCHES.c.spec).where(_BATCHES.c.batch_id.in_(of_vps))
    )
    for batch_id, text in found.all():
        spec = json.loads(text)
        command = _without(spec["command"], gone)
        if command != spec["command"]:
            changed = json.dumps({**spec, "command": command})
            connection.execute(update(_BATCHES).where(_BATCHES.c.batch_id == batch_id).values(spec=changed))


def _without(command: str, gone: AbstractSet[str] | None) -> str:
    """What a VPS is submitted with, without these keys; none is all of them."""
    keys = _keys_in(command)
    left = frozenset[str]() if gone is None else keys - gone
    return command if left == keys else "\n".join(sorted(left)) or OWN_KEYS


def _set_command(batch: Batch, command: str) -> None:
    batch.spec = batch.spec.model_copy(update={"command": command})


@functools.lru_cache(maxsize=10_000)
def _keys_in(command: str) -> frozenset[str]:
    return frozenset() if command == OWN_KEYS else frozenset(key.bare for key in parse_public_keys(command))


def _info(row: PublicKeyRow) -> KeyInfo:
    return KeyInfo(
        key_id=row.key_id,
        user=row.user_name,
        public_key=row.public_key,
        fingerprint=parse_public_key(row.public_key).fingerprint,
        label=row.label,
        created_at=moment(row.created_at / 1000),
    )
