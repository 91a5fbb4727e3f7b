"""What keys open, what is left of them when they or their users are removed, and what becomes of lost VPS."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlmodel import create_engine

from hakuriver.errors import ConflictError, NotFoundError, StorageError
from hakuriver.models.access import UserCreate
from hakuriver.models.submission import OWN_KEYS, SubmitRequest
from hakuriver.models.vps import KeyCreate
from hakuriver.roles import Role
from hakuriver.states import TaskState
from hakuriver_host.db.migration import migrate
from hakuriver_host.db.repository import Repository
from hakuriver_host.db.rows import batch_row, new_task_row, request_of
from hakuriver_host.db.writer import Changes, Writer
from hakuriver_host.domain.cluster import Cluster
from hakuriver_host.domain.model import Batch, Now, Task
from hakuriver_host.services.access import PERMISSIONS, Access, Principal
from hakuriver_host.services.doors import Doors
from hakuriver_host.services.environments import Pins
from hakuriver_host.services.keys import Holder, Keys
from hakuriver_host.services.submit import Submissions
from hakuriver_host.ssh.connection import _Server
from hakuriver_host.ssh.gateway import Gateway
from hakuriver_host.ssh.vps import VpsDesk


def key(number: int) -> str:
    fields = (b"ssh-ed25519", bytes([number]) * 32)
    blob = b"".join(len(each).to_bytes(4, "big") + each for each in fields)
    return f"ssh-ed25519 {base64.b64encode(blob).decode()}"


def principal(name: str, role: Role = Role.USER) -> Principal:
    return Principal(name, role, PERMISSIONS[role])


A, B, C = key(1), key(2), key(3)
ADA, EVE, ADMIN = principal("ada"), principal("eve"), principal("admin", Role.ADMIN)


class OwnedTasks:
    """Stands in for the service of tasks, of which the desk asks here whose one is."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def check_owns(self, task_id: int, caller: Principal) -> None:
        caller.check_owns(self._cluster.tasks[task_id].batch.owner, f"task {task_id}")

    async def never(self, *_: object) -> None:
        raise AssertionError("nothing can be done with it")

    stop = start_again = extend = vps_there = restore = never


@dataclass
class Place:
    """The part of a Host that keeps keys, over a database."""

    engine: Engine
    core: Any
    keys: Keys
    access: Access
    doors: Doors
    desk: VpsDesk
    gateway: Gateway
    numbers: Counter[str] = field(default_factory=Counter)

    async def vps(
        self, owner: str, command: str, state: TaskState = TaskState.RUNNING, name: str | None = None
    ) -> Task:
        self.numbers["task"] += 1
        task_id = self.numbers["task"]
        spec = SubmitRequest(task_type="vps", command=command, name=name)
        task = Task(task_id, Batch(task_id, owner, 0.0, spec, None, None), 0, None, request_of(spec, None))
        task.state, task.message = state, "n has not been heard of for 700 s"
        self.core.cluster.tasks[task_id] = task
        row = batch_row(task.batch, failed_targets="[]", idempotency_key=None, request_digest="")
        await self.core.writer.write(Changes(batches=[row], new_tasks=[new_task_row(task)]))
        self.keys.note(task)
        return task

    async def ended(self, owner: str, command: str) -> Task:
        task = await self.vps(owner, command, TaskState.KILLED)
        del self.core.cluster.tasks[task.task_id]
        return task

    async def added(self, caller: Principal, public_key: str) -> str:
        return (await self.keys.create(KeyCreate(public_key=public_key), caller)).key_id

    def recorded(self, task: Task) -> str:
        """What the record says of the keys that a VPS was made with."""
        batch = Repository(self.engine).batch(task.batch.batch_id)
        assert batch is not None
        return batch.spec.command

    def again(self) -> Keys:
        """The keys as a Host finds them that starts now."""
        loaded = Repository(self.engine).load()
        return Keys(self.core, loaded.keys, loaded.shares, b"secret")

    def full_disk(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def write(changes: Changes, *, firm: bool = True) -> None:
            raise StorageError("the disk is full", "make room")

        monkeypatch.setattr(self.core, "writer", SimpleNamespace(write=write))

    def inside(self, public_key: str) -> tuple[Any, list[str]]:
        """A connection to the gateway that has logged in; the second says how it was ended."""
        ended: list[str] = []
        server = _Server(self.gateway, self.keys, self.desk)
        connection = SimpleNamespace(
            abort=lambda: ended.append("aborted"),
            disconnect=lambda _, words: ended.append(words),
            get_extra_info=lambda _: ("127.0.0.1", 1),
        )
        server.connection_made(connection)  # type: ignore[arg-type]
        assert server.opens(public_key)
        server.auth_completed()
        return server, ended


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Place]:
    engine = create_engine(f"sqlite:///{tmp_path / 'host.db'}")
    migrate(engine)
    writer = Writer(engine)
    core: Any = SimpleNamespace(cluster=Cluster(), writer=writer, now=lambda: Now(1e9, 1.0))
    keys, access = Keys(core, [], [], b"secret"), Access(core, [], [], b"secret")
    tasks: Any = OwnedTasks(core.cluster)
    doors = Doors(core, None, tasks, keys)  # type: ignore[arg-type]
    desk = VpsDesk(keys, access, tasks, doors, None, 0)  # type: ignore[arg-type]
    place = Place(engine, core, keys, access, doors, desk, Gateway(keys, desk, "", 0))
    for name, role in (("admin", Role.ADMIN), ("ada", Role.USER), ("eve", Role.USER)):
        await access.create_user(UserCreate(name=name, role=role), nothing_else)
    yield place
    await writer.close()


async def nothing_else(_: str) -> None:
    """What keeps a name from a new user elsewhere than here."""


async def removed(host: Place, name: str) -> None:
    async with host.keys.striking(name) as strike:
        await host.access.delete_user(name, strike)


class TestRemovedKeys:
    async def test_it_opens_no_vps_of_its_user(self, host: Place) -> None:
        both, alone = await host.vps("ada", f"{A} laptop\n{B}"), await host.vps("ada", A, TaskState.LOST)
        key_id = await host.added(ADA, A)
        assert host.keys.holder(A) == Holder("ada", frozenset({both.task_id, alone.task_id}))
        await host.keys.delete(key_id, ADA)
        for keys in (host.keys, host.again()):
            assert keys.holder(A) is None
            assert (keys.opening(both), keys.opening(alone)) == ([B], [])
        assert (host.recorded(both), host.recorded(alone)) == (B, OWN_KEYS)

    async def test_others_vps_keep_it(self, host: Place) -> None:
        """Who registers a key shows nothing but the public one: to remove it must not shut its holder out."""
        of_ada = await host.vps("ada", A)
        await host.keys.delete(await host.added(EVE, A), EVE)
        assert host.keys.holder(A) == Holder(None, frozenset({of_ada.task_id}))
        assert host.recorded(of_ada) == A

    async def test_a_retry_of_one_that_has_ended_brings_it_not_back(self, host: Place) -> None:
        mine, hers = await host.ended("ada", f"{A}\n{B}"), await host.ended("eve", A)
        await host.keys.delete(await host.added(ADA, A), ADA)
        assert (host.recorded(mine), host.recorded(hers)) == (B, A)
        await removed(host, "ada")
        assert (host.recorded(mine), host.recorded(hers)) == (OWN_KEYS, A)

    async def test_an_admin_takes_it_from_its_user(self, host: Place) -> None:
        await host.vps("ada", A)
        await host.keys.delete(await host.added(ADA, A), ADMIN)
        assert host.keys.holder(A) is None

    async def test_registered_again_or_given_to_a_new_vps_it_opens(self, host: Place) -> None:
        old = await host.vps("ada", A)
        await host.keys.delete(await host.added(ADA, A), ADA)
        new = await host.vps("ada", A)
        assert host.keys.holder(A) == Holder(None, frozenset({new.task_id}))
        await host.added(ADA, A)
        assert host.keys.opening(old) == [A]

    async def test_where_the_record_does_not_take_it_all_is_as_before(
        self, host: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        task = await host.vps("ada", f"{A} laptop")
        key_id = await host.added(ADA, A)
        with monkeypatch.context() as patch:
            host.full_disk(patch)
            with pytest.raises(StorageError):
                await host.keys.delete(key_id, ADA)
        assert host.keys.holder(A) == Holder("ada", frozenset({task.task_id}))
        assert task.batch.spec.command == f"{A} laptop"
        await host.keys.delete(key_id, ADA)
        with pytest.raises(NotFoundError):
            await host.keys.delete(key_id, ADA)


class TestConnections:
    async def test_one_that_came_by_the_key_ends(self, host: Place) -> None:
        ids = [await host.added(ADA, A), await host.added(ADA, B)]
        _, first = host.inside(A)
        other, second = host.inside(B)
        await host.keys.delete(ids[0], ADA)
        host.gateway.look_again()
        assert (first, second) == (["aborted"], [])
        other.connection_lost(None)
        await host.keys.delete(ids[1], ADA)
        host.gateway.look_again()
        assert second == [], "who has left is not looked at"

    async def test_many_keys_of_one_user_bring_no_more_connections(self, host: Place) -> None:
        """Keys of their own, and keys that are nobody's in VPS of theirs."""
        await host.added(ADA, A)
        await host.vps("ada", A)
        await host.vps("ada", B)
        inside = [host.inside(key) for key in (A, B) * 100]
        assert host.gateway.known == {"ada": 200}
        for key in (A, B):
            _, ended = host.inside(key)
            assert ended == ["you have 200 connections, which are as many as one may have; close some"]
        inside[0][0].connection_lost(None)
        _, ended = host.inside(B)
        assert ended == []
        await host.added(EVE, C)
        _, ended = host.inside(C)
        assert ended == []

    async def test_a_key_that_is_removed_during_the_login_does_not_come_in(self, host: Place) -> None:
        key_id = await host.added(ADA, A)
        server, ended = host.inside(A)
        server.connection_lost(None)
        assert server.opens(A)
        await host.keys.delete(key_id, ADA)
        server.auth_completed()
        assert ended == ["aborted"]
        assert not host.gateway.known

    async def test_a_key_that_somebody_else_gave_to_a_vps_leaves_that_alone(self, host: Place) -> None:
        mine, hers = await host.vps("eve", OWN_KEYS), await host.vps("ada", A)
        await host.added(EVE, A)
        server, ended = host.inside(A)
        assert server.may_enter(mine)
        assert server.may_enter(hers)
        await removed(host, "ada")
        host.gateway.look_again()
        assert ended == [], "it is eve's key, and she is there"
        assert server.may_enter(mine)
        assert not server.may_enter(hers)

    async def test_a_removed_user_is_shut_out_of_all_doors(self, host: Place) -> None:
        tasks = [await host.vps("ada", A), await host.vps("eve", B)]
        with (
            host.doors.guest(tasks[0], "ada") as first,
            host.doors.guest(tasks[1], "ada") as second,
            host.doors.guest(tasks[1], "eve") as third,
        ):
            host.doors.shut_out_everywhere("ada")
            assert [event.is_set() for event in (first, second, third)] == [True, True, False]


class TestRemovedUsers:
    async def test_no_key_of_theirs_opens_anything(self, host: Place) -> None:
        mine, hers = await host.vps("ada", A), await host.vps("eve", OWN_KEYS)
        await host.added(ADA, B)
        await host.keys.share(hers.task_id, "ada")
        await host.keys.share(mine.task_id, "eve")
        _, ended = host.inside(B)
        await removed(host, "ada")
        host.gateway.look_again()
        assert ended == ["aborted"]
        for keys in (host.keys, host.again()):
            assert (keys.holder(A), keys.holder(B)) == (None, None)
            assert (keys.opening(mine), keys.opening(hers)) == ([], [])
            assert keys.may_enter(mine, "eve"), "what they shared stays shared"
        assert host.access.still_has("ada") == "1 VPS"

    async def test_who_cannot_be_removed_keeps_all(self, host: Place) -> None:
        task = await host.vps("admin", A)
        await host.added(ADMIN, B)
        with pytest.raises(ConflictError, match="the only admin"):
            await removed(host, "admin")
        assert host.keys.opening(task) == [A, B]
        assert host.recorded(task) == A

    async def test_nobody_inherits_their_vps(self, host: Place) -> None:
        task = await host.vps("ada", A, TaskState.LOST)
        spec = SubmitRequest(command="x")
        for number, state in ((91, TaskState.RUNNING), (92, TaskState.PENDING), (93, TaskState.LOST)):
            command = Task(
                number, Batch(number, "ada", 0.0, spec, None, None), 0, None, request_of(spec, None)
            )
            command.state = state
            host.core.cluster.tasks[number] = command
        await removed(host, "ada")
        with pytest.raises(ConflictError, match="still has 1 VPS and 2 tasks") as refused:
            await host.access.create_user(UserCreate(name="ada"), nothing_else)
        assert "hakuriver task list --owner ada" in refused.value.hint
        for number in (task.task_id, 91, 92):
            del host.core.cluster.tasks[number]
        await host.access.create_user(UserCreate(name="ada"), nothing_else)

    async def test_the_first_admin_is_made_whatever_lives(self, host: Place, tmp_path: Path) -> None:
        await host.access.create_user(UserCreate(name="other", role=Role.ADMIN), nothing_else)
        await host.vps("admin", A)
        await removed(host, "admin")
        await host.access.bootstrap(tmp_path)
        host.access.check_user("admin")


class TestLostVps:
    async def test_its_name_is_taken_until_it_is_given_up(self, host: Place) -> None:
        task = await host.vps("ada", A, TaskState.LOST, "lab")
        submissions = Submissions(host.core, host.access, host.keys, Pins(host.core))
        spec = SubmitRequest(task_type="vps", command=A, name="lab", container_name="base")
        for caller, may_kill in ((ADA, True), (ADMIN, True), (EVE, False)):
            with pytest.raises(ConflictError, match="lab, which is lost and may come back: n has") as refused:
                submissions._check_free("lab", caller)
            assert ("hakuriver vps kill lab" in refused.value.hint) == may_kill
        task.kill_requested = True
        submissions._check_free("lab", EVE)
        task.kill_requested = False
        del host.core.cluster.tasks[task.task_id]
        with submissions._naming(spec, EVE), pytest.raises(ConflictError, match="there is a VPS named lab"):
            submissions._check_free("lab", ADA)

    @pytest.mark.parametrize("by", ["name", "id"])
    async def test_it_is_said_to_be_lost(self, host: Place, by: str) -> None:
        task = await host.vps("ada", A, TaskState.LOST, "lab")
        reference = "lab" if by == "name" else str(task.task_id)
        for asked in (
            host.desk.stop(reference, ADA),
            host.desk.start_again(reference, ADA),
            host.desk.extend(reference, 60, ADA),
            host.desk.snapshot(reference, "", ADA),
            host.desk.restore(reference, None, ADA),
            host.desk.share(reference, "eve", ADA),
        ):
            with pytest.raises(ConflictError, match=f"VPS {task.task_id} is lost: n has not") as refused:
                await asked
            assert "hakuriver vps kill" in refused.value.hint

    async def test_at_the_gateway(self, host: Place) -> None:
        task = await host.vps("ada", A, TaskState.LOST, "lab")
        holder = host.keys.holder(A)
        assert holder is not None
        assert host.desk.reached("lab", holder) is task
        with pytest.raises(ConflictError, match="is lost: n has not been heard of"):
            async with host.desk.open(task):
                pass
        with pytest.raises(NotFoundError):
            host.desk.reached("lab", Holder("eve", frozenset()))

    async def test_who_was_let_in_can_be_shut_out(self, host: Place) -> None:
        task = await host.vps("ada", A, name="lab")
        await host.desk.share("lab", "eve", ADA)
        task.state = TaskState.LOST
        assert await host.desk.unshare("lab", "eve", ADA) == task.task_id
        assert host.keys.shared_with(task.task_id) == []

    async def test_a_live_one_goes_before_a_lost_one_of_the_same_name(self, host: Place) -> None:
        await host.vps("ada", A, TaskState.LOST, "lab")
        live = await host.vps("ada", A, name="lab")
        assert await host.desk.share("lab", "eve", ADA) == live.task_id
