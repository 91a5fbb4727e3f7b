"""What people see of VPS, and the way to a VPS's SSH server through its Runner."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from hakuriver.errors import ConflictError, HakuRiverError, NotFoundError
from hakuriver.exchange import Talker
from hakuriver.ids import parse_id
from hakuriver.models.environments import PackResult, VersionInfo
from hakuriver.models.tasks import Message, TaskSummary
from hakuriver.models.vps import GatewayInfo, SshStart, VpsSummary
from hakuriver.references import Reference
from hakuriver.states import FINAL, TaskState
from hakuriver_host.db.repository import TaskFilter
from hakuriver_host.domain.cluster import lost
from hakuriver_host.domain.model import Task
from hakuriver_host.runners import RunnerTalker
from hakuriver_host.services.access import Access, Principal
from hakuriver_host.services.doors import Doors, relay, until_shut_out
from hakuriver_host.services.environments.snapshots import snapshots_of
from hakuriver_host.services.environments.versions import VersionService
from hakuriver_host.services.keys import Holder, Keys
from hakuriver_host.services.tasks import Tasks
from hakuriver_host.ssh.host_keys import private_pem, public_line

GATEWAY = "gateway"
_ACTIVE = tuple(state for state in TaskState if state not in FINAL or state is TaskState.LOST)
"""Lost ones too: they have their names, and may come back."""


class VpsDesk:
    def __init__(
        self, keys: Keys, access: Access, tasks: Tasks, doors: Doors, versions: VersionService, port: int
    ) -> None:
        self._keys, self._access, self._tasks, self.doors, self._port = keys, access, tasks, doors, port
        self._versions = versions
        self.problem: HakuRiverError | None = None
        """Why the gateway does not serve."""

    def gateway(self) -> GatewayInfo:
        """How the gateway is reached.

        Raises:
            ConflictError: it does not serve.
        """
        if self.problem is not None:
            raise self.problem
        return GatewayInfo(port=self._port, host_key=public_line(self._keys.host_seed(GATEWAY)))

    async def all(self, principal: Principal, *, active: bool) -> list[VpsSummary]:
        """All of them, or those that have not ended; newest first."""
        states = _ACTIVE if active else ()
        found = await self._tasks.list(TaskFilter(states=states, task_type="vps", limit=1_000), principal)
        return self._with_keys(found)

    async def find(self, reference: str, principal: Principal) -> VpsSummary:
        """The VPS with this id, or the live one of this name.

        Raises:
            NotFoundError: there is none.
        """
        task_id = self._id_of(reference)
        found = await self._tasks.list(TaskFilter(task_type="vps", before=task_id + 1, limit=1), principal)
        if not found or found[0].task_id != task_id:
            raise _unknown(reference)
        return self._with_keys(found)[0]

    def reached(self, reference: str, holder: Holder) -> Task:
        """The live VPS of this id or name, for whoever holds a key.

        Raises:
            NotFoundError: there is none that the key opens. Whether it is another's is not told.
        """
        with contextlib.suppress(NotFoundError):
            task_id = self._id_of(reference)
            for task in self._keys.live():
                if task.task_id == task_id and self._keys.admits(holder, task):
                    return task
        raise _unknown(reference)

    @contextlib.asynccontextmanager
    async def open(self, task: Task) -> AsyncIterator[RunnerTalker]:
        """A connection to the SSH server of a VPS: bytes both ways, as `hakuriver.exchange` carries them.

        Raises:
            ConflictError: it does not run.
            UnreachableError: its Runner does not answer.
        """
        async with self.doors.open(task, "ssh") as talker:
            start = SshStart(
                host_key=private_pem(self._keys.host_seed(str(task.task_id))),
                authorized_keys=self._keys.opening(task),
            )
            await talker.send_text(start.model_dump_json())
            await talker.receive_text()  # Its word that it serves.
            yield talker

    async def relay(self, task_id: int, person: Talker, principal: Principal, revoked: asyncio.Event) -> None:
        """The same for a person's own client, with their token.

        Raises:
            UnauthenticatedError: it was `revoked` meanwhile.
            NotFoundError: there is no such VPS.
            DeniedError: it is another's.
            ConflictError: it does not run.
            UnreachableError: its Runner does not answer.
        """
        task = await self.doors.entered(task_id, principal)
        if task.batch.spec.task_type != "vps":
            raise ConflictError(f"task {task_id} is no VPS", "enter it with `hakuriver task shell`")
        with self.doors.guest(task, principal.name) as shut_out:
            async with self.open(task) as runner:
                await until_shut_out(relay(person, runner), shut_out, revoked)

    async def stop(self, reference: str, principal: Principal) -> Message:
        """See `Tasks.stop`.

        Raises:
            NotFoundError: there is no such live VPS.
        """
        return await self._tasks.stop(await self._own(reference, principal), principal)

    async def start_again(self, reference: str, principal: Principal) -> Message:
        """See `Tasks.start_again`.

        Raises:
            NotFoundError: there is no such live VPS.
        """
        return await self._tasks.start_again(await self._own(reference, principal), principal)

    async def snapshot(self, reference: str, message: str, principal: Principal) -> PackResult:
        """Keeps what is in a VPS now as a version of an environment of its own.

        Raises:
            NotFoundError: there is no such live VPS.
            ConflictError: it has nothing in it now.
            StorageError: the share or the Host's disk does not take it.
            UnreachableError: the Runner does not answer.
        """
        task, archive = await self._tasks.vps_there(await self._own(reference, principal), principal)
        return await self._versions.snapshot(task, archive, message)

    async def snapshots(self, reference: str, principal: Principal) -> list[VersionInfo]:
        """Those of a VPS of the caller's, newest first.

        Raises:
            NotFoundError: there is no such live VPS.
        """
        return await self._versions.snapshots(await self._own(reference, principal, also_lost=True))

    async def restore(self, reference: str, version: int | None, principal: Principal) -> Message:
        """Has a VPS begin anew from one of its snapshots; none is the newest.

        Raises:
            NotFoundError: there is no such live VPS, or no such snapshot.
        """
        task_id = await self._own(reference, principal)
        number = await self._versions.chosen_snapshot(task_id, version)
        snapshot = Reference(snapshots_of(task_id), number)
        return await self._tasks.restore(task_id, snapshot, principal)

    async def extend(self, reference: str, seconds: int, principal: Principal) -> Message:
        """See `Tasks.extend`.

        Raises:
            NotFoundError: there is no such live VPS.
        """
        return await self._tasks.extend(await self._own(reference, principal), seconds, principal)

    async def share(self, reference: str, user: str, principal: Principal) -> int:
        """Lets another user into a VPS; its id.

        Raises:
            NotFoundError: there is no such live VPS, or no such user.
            DeniedError: it is another's.
        """
        task_id = await self._own(reference, principal)
        self._access.check_user(user)
        await self._keys.share(task_id, user)
        return task_id

    async def unshare(self, reference: str, user: str, principal: Principal) -> int:
        """Lets a user in no more, and ends their connections; its id.

        Raises:
            NotFoundError: there is no such live VPS.
            DeniedError: it is another's.
        """
        task_id = await self._own(reference, principal, also_lost=True)
        await self._keys.unshare(task_id, user)
        self.doors.shut_out(task_id, user)
        return task_id

    async def _own(self, reference: str, principal: Principal, *, also_lost: bool = False) -> int:
        task_id = self._id_of(reference)
        task = next((task for task in self._keys.live() if task.task_id == task_id), None)
        if task is None:
            raise _unknown(reference)
        await self._tasks.check_owns(task_id, principal)
        if task.state is TaskState.LOST and not also_lost:
            raise lost(task)
        return task_id

    def _id_of(self, reference: str) -> int:
        if reference.isdecimal():
            try:
                return parse_id(reference)
            except HakuRiverError:
                raise _unknown(reference) from None
        named = [task for task in self._keys.live() if task.batch.spec.name == reference]
        if not named:
            raise _unknown(reference)
        # Two can have one name if it was given anew while the first was lost, which older versions did.
        return min(named, key=lambda task: task.state is TaskState.LOST).task_id

    def _with_keys(self, found: Sequence[TaskSummary]) -> list[VpsSummary]:
        return [
            VpsSummary(
                **summary.model_dump(),
                host_key=public_line(self._keys.host_seed(str(summary.task_id))),
                ends_at=self._tasks.ends_at(summary.task_id, summary.started_at),
                shared_with=self._keys.shared_with(summary.task_id),
            )
            for summary in found
        ]


def _unknown(reference: str) -> NotFoundError:
    return NotFoundError(f"there is no VPS {reference[:80]} of yours", "list them with `hakuriver vps list`")
