"""The public keys of users: registered here, they open the users' VPS and the SSH gateway."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert
from sqlmodel import SQLModel

from hakuriver.errors import ConflictError, NotFoundError
from hakuriver.keys import parse_public_key, parse_public_keys
from hakuriver.models.tasks import OWN_KEYS
from hakuriver.models.vps import KeyCreate, KeyInfo
from hakuriver.states import TaskState
from hakuriver_host.db.rows import millis
from hakuriver_host.db.tables import PublicKeyRow
from hakuriver_host.db.writer import Changes
from hakuriver_host.domain.model import Task
from hakuriver_host.services.access import Principal
from hakuriver_host.services.core import Core, moment

_KEYS = SQLModel.metadata.tables[str(PublicKeyRow.__tablename__)]
_MOST = 100
"""Keys of one user."""


@dataclass(frozen=True, slots=True)
class Holder:
    """What a public key opens: the VPS of a user, or those that were submitted with it."""

    user: str | None
    vps: frozenset[int]


class Keys:
    """In memory and on the record, as tokens are."""

    def __init__(self, core: Core, keys: Iterable[PublicKeyRow], secret: bytes) -> None:
        self._core = core
        self._secret = secret
        self._keys = {row.key_id: row for row in keys}
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
            for row in self._keys.values():
                if parse_public_key(row.public_key).blob == key.blob:
                    raise ConflictError(
                        f"the key {key.fingerprint} is registered already, for {row.user_name}",
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
            self._keys[row.key_id] = row
        return _info(row)

    async def delete(self, key_id: str, caller: Principal) -> None:
        """Removes a key; connections that it opened go on.

        Raises:
            NotFoundError: there is no such key of the caller's.
        """
        row = self._keys.get(key_id)
        if row is None or (row.user_name != caller.name and not caller.is_admin):
            raise NotFoundError(f"there is no key {key_id} of yours", "list them with `hakuriver key list`")
        await self._write(
            lambda connection: connection.execute(delete(_KEYS).where(_KEYS.c.key_id == key_id))
        )
        self._keys.pop(key_id, None)

    def strike(self, name: str) -> Callable[[Connection], object]:
        """What strikes the keys of a user from the record; `forget` them when that is done."""
        return lambda connection: connection.execute(delete(_KEYS).where(_KEYS.c.user_name == name))

    def forget(self, name: str) -> None:
        self._keys = {key_id: row for key_id, row in self._keys.items() if row.user_name != name}

    def of_user(self, name: str) -> list[str]:
        """The public keys of a user, without comments."""
        return [parse_public_key(row.public_key).bare for row in self._keys.values() if row.user_name == name]

    def holder(self, bare: str) -> Holder | None:
        """What a key (without comment) opens; none when it opens nothing."""
        for row in self._keys.values():
            if parse_public_key(row.public_key).bare == bare:
                return Holder(row.user_name, frozenset())
        vps = frozenset(task.task_id for task in self.live() if bare in keys_of(task))
        return Holder(None, vps) if vps else None

    def live(self) -> list[Task]:
        """The VPS that have not ended."""
        return [
            task
            for task in self._core.cluster.tasks.values()
            if task.batch.spec.task_type == "vps" and task.state is not TaskState.LOST
        ]

    def opening(self, task: Task) -> list[str]:
        """The public keys that open a VPS now, without comments."""
        return sorted({*keys_of(task), *self.of_user(task.batch.owner)})

    def host_seed(self, what: str) -> bytes:
        """The seed (32 bytes) of the host key of the gateway or of a VPS.

        Derived from the Host's secret, as control tokens are: stored nowhere, the same for the whole life of a VPS on
        whatever node, and in a backup with the secret.
        """
        return hmac.new(self._secret, f"ssh host key\n{what}".encode(), hashlib.sha256).digest()

    async def _write(self, action: object) -> None:
        await self._core.writer.write(Changes(actions=[action]), firm=False)  # type: ignore[list-item]


def keys_of(task: Task) -> list[str]:
    """The public keys that a VPS was submitted with, without comments."""
    command = task.batch.spec.command
    return [] if command == OWN_KEYS else [key.bare for key in parse_public_keys(command)]


def _info(row: PublicKeyRow) -> KeyInfo:
    return KeyInfo(
        key_id=row.key_id,
        user=row.user_name,
        public_key=row.public_key,
        fingerprint=parse_public_key(row.public_key).fingerprint,
        label=row.label,
        created_at=moment(row.created_at / 1000),
    )
