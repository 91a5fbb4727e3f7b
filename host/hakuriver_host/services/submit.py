"""Submission: from what a person asks to tasks that are on the record, once.

A key that is repeated gives the first answer again. A target that no known node can ever serve is refused
with the reason, unless the submission holds for a node that is yet to come.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hakuriver.dependencies import Dependency, Outcome, parse_dependency
from hakuriver.errors import (
    ConflictError,
    DeniedError,
    HakuRiverError,
    ImpossibleError,
    NotFoundError,
    UsageError,
)
from hakuriver.keys import parse_public_keys
from hakuriver.models.submission import (
    MAX_AFTER,
    MAX_ARGV_BYTES,
    MAX_COUNT,
    NO_CONTAINER,
    OWN_KEYS,
    RESERVED_VARIABLES,
    FailedTarget,
    SubmitRequest,
    SubmitResponse,
)
from hakuriver.names import check_vps_name
from hakuriver.references import parse_reference
from hakuriver.states import TaskState
from hakuriver.store import Catalog
from hakuriver.targets import Target, parse_target
from hakuriver_host.db import rows
from hakuriver_host.db.tables import BatchRow
from hakuriver_host.db.writer import Changes
from hakuriver_host.domain import reactor
from hakuriver_host.domain.model import Batch, Event, Request, Task
from hakuriver_host.domain.placement import impossible, nearest_to
from hakuriver_host.domain.runs import runs_of
from hakuriver_host.domain.waiting import awaited, watching
from hakuriver_host.services.access import Access, Principal
from hakuriver_host.services.bus import Notice
from hakuriver_host.services.core import Core, event_of_row
from hakuriver_host.services.environments import Pins
from hakuriver_host.services.environments.snapshots import is_private
from hakuriver_host.services.keys import Keys

_AT_ONCE = 500
"""Tasks of one submission that are made between two turns of the loop."""
_LOOKS = 3

Place = tuple[int, str | None]
"""A task's number in its batch, and its target."""


@dataclass(frozen=True, slots=True)
class Again:
    """Tasks that are made once more, each with its number in its batch and its target."""

    of: int
    """The task or batch, by its id."""
    places: Sequence[Place]


@dataclass(frozen=True, slots=True)
class _UnderWay:
    """A submission with a key, whose answer those wait for who repeat it."""

    digest: str
    answer: asyncio.Future[SubmitResponse]


class Submissions:
    def __init__(self, core: Core, access: Access, keys: Keys, pins: Pins) -> None:
        self._core = core
        self._access = access
        self._keys = keys
        self._pins = pins
        self._names: set[str] = set()
        """Of VPS that are being made."""
        self._coming: Counter[str] = Counter()
        """How many tasks of each user are being submitted."""
        self._under_way: dict[tuple[str, str], _UnderWay] = {}

    async def submit(
        self,
        request: SubmitRequest,
        principal: Principal,
        key: str | None = None,
        again: Again | None = None,
    ) -> SubmitResponse:
        """Makes the tasks, or those of an earlier submission that are named. When this returns they are durable.

        Raises:
            UsageError: what was asked for is malformed in a way that only shows here.
            NotFoundError: no such environment, or the only target is not a node.
            ImpossibleError: no target can ever be served.
            ConflictError: the key was used for another submission.
            StorageError: the disk did not take it, or the share does not answer; nothing was submitted.

        """
        if key is None:
            return await self._make(request, principal, None, "", again)
        # What is made once more may be less the second time that it is asked for.
        what = f"again {again.of}" if again else request.model_dump_json(exclude_defaults=True)
        digest = hashlib.sha256(what.encode()).hexdigest()
        waiting = self._under_way.get((principal.name, key))
        if waiting is not None:
            _check_same(waiting.digest, digest)
            return await asyncio.shield(waiting.answer)
        future: asyncio.Future[SubmitResponse] = asyncio.get_running_loop().create_future()
        self._under_way[principal.name, key] = _UnderWay(digest, future)
        try:
            answer = await self._submit(request, principal, key, digest, again)
        except BaseException as error:
            future.set_exception(error)
            future.exception()
            raise
        else:
            future.set_result(answer)
            return answer
        finally:
            del self._under_way[principal.name, key]

    async def _submit(
        self, request: SubmitRequest, principal: Principal, key: str, digest: str, again: Again | None
    ) -> SubmitResponse:
        """Makes them, unless the key is on the record.

        The key is looked up only when the submission cannot be made: its uniqueness in the database makes it
        fail when it is there, so the usual case pays no read.
        """
        try:
            return await self._make(request, principal, key, digest, again)
        except HakuRiverError:
            first = await asyncio.to_thread(self._core.repository.batch_by_key, principal.name, key)
            if first is None:
                raise
            return await self._first_answer(first, digest)

    async def _make(
        self,
        request: SubmitRequest,
        principal: Principal,
        key: str | None,
        digest: str,
        again: Again | None = None,
    ) -> SubmitResponse:
        _check(request)
        check_priority(request.priority, principal)
        spec = self._resolved(request)
        if spec.task_type == "vps":
            with self._naming(spec, principal):
                return await self._make_resolved(request, spec, principal, key, digest, again)
        return await self._make_resolved(request, spec, principal, key, digest, again)

    async def _make_resolved(
        self,
        request: SubmitRequest,
        spec: SubmitRequest,
        principal: Principal,
        key: str | None,
        digest: str,
        again: Again | None,
    ) -> SubmitResponse:
        if unknown := {name for name in spec.not_nodes if name not in self._core.cluster.nodes}:
            named = ", ".join(sorted(unknown))
            raise NotFoundError(f"there is no node named {named}", "see `hakuriver node list`")
        wanted = [*dict.fromkeys(target for _, target in again.places)] if again else _targets(request)
        requests = {target: rows.request_of(spec, target) for target in wanted}
        self._check_limits(requests, principal.name)
        targets, failed = self._sort_targets(spec, wanted, requests)
        places = _places(spec, targets, again)
        with contextlib.ExitStack() as watched:
            waits = await self._waits(spec, principal, watched)
            watched.enter_context(self._coming_in(principal.name, len(places)))
            batch = await self._batch(spec, principal)
            batch.after = waits
            tasks = await self._make_tasks(batch, places, requests)
            return await self._record(batch, tasks, failed, key, digest)

    async def _record(
        self, batch: Batch, tasks: list[Task], failed: list[FailedTarget], key: str | None, digest: str
    ) -> SubmitResponse:
        answer = SubmitResponse(
            message=_message(len(tasks), failed),
            batch_id=batch.batch_id,
            task_ids=[task.task_id for task in tasks],
            failed_targets=failed,
        )
        failed_json = json.dumps([target.model_dump() for target in failed])
        changes = Changes(
            batches=[
                rows.batch_row(batch, failed_targets=failed_json, idempotency_key=key, request_digest=digest)
            ]
        )
        await self._commit(changes, tasks)
        return answer

    @contextlib.contextmanager
    def _naming(self, spec: SubmitRequest, principal: Principal) -> Iterator[None]:
        """Checks a VPS against what is here: somebody can log in, and its name is its own, also until it is made."""
        if spec.container_name == NO_CONTAINER:
            raise UsageError(
                "a VPS is a container, and the default here is none", "name one with --container"
            )
        if spec.command == OWN_KEYS and not self._keys.of_user(principal.name):
            raise UsageError(
                "no public key is given, and you have none registered",
                "register one: `hakuriver key add ~/.ssh/id_ed25519.pub`; `ssh-keygen -t ed25519` makes one",
            )
        if spec.name is not None:
            self._check_free(spec.name, principal)
        self._names.add(spec.name or "")
        try:
            yield
        finally:
            self._names.discard(spec.name or "")

    def _check_free(self, name: str, principal: Principal) -> None:
        named = [task for task in self._keys.live() if task.batch.spec.name == name]
        lost = [task for task in named if task.state is TaskState.LOST]
        if name in self._names or len(named) > len(lost):
            raise ConflictError(f"there is a VPS named {name}", "choose another name")
        for task in lost:
            if task.kill_requested:
                continue  # Its Runner ends it when it comes back.
            mine = principal.is_admin or task.batch.owner == principal.name
            give_up = f", or give that one up: `hakuriver vps kill {name}`" if mine else ""
            raise ConflictError(
                f"there is a VPS named {name}, which is lost and may come back: {task.message}",
                f"choose another name{give_up}",
            )

    async def _commit(self, changes: Changes, tasks: list[Task]) -> None:
        core = self._core
        for start in range(0, len(tasks), _AT_ONCE):
            changes.new_tasks += [rows.new_task_row(task) for task in tasks[start : start + _AT_ONCE]]
            await _let_others_in(len(changes.new_tasks))
        # From the first event's number to the write nobody may come between, or events would be told out of order.
        events = [
            Event(task.batch.submitted_at, task, 0, task.state, None, "submitted", None) for task in tasks
        ]
        changes.events = [rows.event_row(event, core.next_event()) for event in events]
        await core.writer.write(changes, firm=False)
        notices = [] if core.bus.idle else [Notice(event_of_row(row)) for row in changes.events]
        effects = reactor.on_submit(core.cluster, tasks)
        core.tell(effects, notices)
        if effects.batches:
            await core.apply(effects)
        self._keys.note(tasks[0])  # A VPS is alone in its batch.

    async def _first_answer(self, row: BatchRow, digest: str) -> SubmitResponse:
        _check_same(row.request_digest, digest)
        ids = await asyncio.to_thread(self._core.repository.task_ids, row.batch_id)
        failed = [FailedTarget.model_validate(target) for target in json.loads(row.failed_targets)]
        return SubmitResponse(
            message=_message(len(ids), failed), batch_id=row.batch_id, task_ids=ids, failed_targets=failed
        )

    def _resolved(self, request: SubmitRequest) -> SubmitRequest:
        """The request with the configured defaults where it says nothing, and without its targets."""
        settings = self._core.settings.docker
        updates: dict[str, Any] = {"targets": [], "required_gpus": []}
        if request.container_name is None:
            updates["container_name"] = settings.default_container_name
        if request.privileged is None:
            in_container = (request.container_name or settings.default_container_name) != NO_CONTAINER
            updates["privileged"] = settings.tasks_privileged and in_container
        if request.additional_mounts is None:
            updates["additional_mounts"] = settings.additional_mounts
        return request.model_copy(update=updates)

    async def _batch(self, spec: SubmitRequest, principal: Principal) -> Batch:
        reference = spec.container_name if spec.container_name not in {None, NO_CONTAINER} else None
        if reference and is_private(parse_reference(reference).name) and not principal.is_admin:
            await self._check_snapshot(reference, principal)
        return Batch(
            batch_id=self._core.ids.next(),
            owner=principal.name,
            submitted_at=self._core.now().wall,
            spec=spec,
            environment=parse_reference(reference).name if reference else None,
            environment_version=await self._pins.version(reference) if reference else None,
            default_user=self._access.uid_of(principal.name),
        )

    async def _check_snapshot(self, reference: str, principal: Principal) -> None:
        """That snapshots are the caller's own.

        Raises:
            DeniedError: they are another's.
        """
        name, version = parse_reference(reference).name, int(await self._pins.version(reference))

        def author() -> str:
            manifest = Catalog(self._core.settings.container_dir).manifest(name, version)
            return manifest.author if manifest else ""

        principal.check_owns(await self._core.share.call(author), f"the snapshot {reference}")

    def _sort_targets(
        self, spec: SubmitRequest, targets: list[str | None], requests: Mapping[str | None, Request]
    ) -> tuple[list[str | None], list[FailedTarget]]:
        """Targets that can be served, and those that never can; all of the latter is an error."""
        failed = []
        good: list[str | None] = []
        for target in targets:
            reason = "" if spec.hold_for_node else self._impossible(requests[target])
            if reason:
                failed.append(FailedTarget(target=target or "", reason=reason))
            else:
                good.append(target)
        if not good:
            _refuse(failed)
        return good, failed

    def _impossible(self, wanted: Request) -> str:
        nodes = self._core.cluster.nodes
        if wanted.node is not None:
            node = nodes.get(wanted.node)
            return impossible(node, wanted) if node else f"no node is named {wanted.node}"
        if not nodes or any(not impossible(node, wanted) for node in nodes.values()):
            return ""
        nearest = nearest_to(wanted, nodes.values())
        return f"no node can ever run it; {nearest.name}: {impossible(nearest, wanted)}"

    def _check_limits(self, requests: Mapping[str | None, Request], owner: str) -> None:
        for request in requests.values():
            if reason := self._forbidden(request, owner):
                raise ImpossibleError(
                    reason, "ask for less, or ask an admin: limits stand under [scheduling]"
                )

    def _forbidden(self, request: Request, owner: str) -> str:
        """Why its owner may never have it; one that is to have a node for itself, on any of those that could run it."""
        limits, nodes = self._core.cluster.limits, self._core.cluster.nodes.values()
        able = [node for node in nodes if not impossible(node, request)] if request.exclusive else []
        reasons = [limits.forbids(request, owner, node) for node in able]
        return limits.forbids(request, owner) or (reasons[0] if reasons and all(reasons) else "")

    @contextlib.contextmanager
    def _coming_in(self, owner: str, number: int) -> Iterator[None]:
        """Checks that so many more of a user's tasks may wait, and counts them until they do."""
        cluster = self._core.cluster

        def waiting(user: str) -> int:
            return cluster.queue.number_of(user) + self._coming[user]

        if reason := cluster.limits.too_many(owner, number, waiting):
            raise ConflictError(reason, "wait until some have started, or submit fewer")
        self._coming[owner] += number
        try:
            yield
        finally:
            self._coming[owner] -= number

    async def _waits(
        self, spec: SubmitRequest, principal: Principal, watched: contextlib.ExitStack
    ) -> tuple[Dependency, ...]:
        """What the tasks have to wait for; how each of these ends is kept while `watched` is open.

        Raises:
            NotFoundError: there is no such task or batch.
            DeniedError: it is another's.
            ConflictError: it has ended in another way than is waited for.
        """
        waits: dict[Dependency, None] = {}
        for wanted in dict.fromkeys(map(parse_dependency, spec.after)):
            named = await self._tasks_named(wanted.task_id, principal)
            watched.enter_context(watching(self._core.cluster, named))
            for task_id in await self._not_ended(named, wanted.outcome):
                waits[Dependency(task_id, wanted.outcome)] = None
            if len(waits) > MAX_AFTER:
                raise UsageError(
                    f"{len(waits)} tasks would be waited for, and {MAX_AFTER} can be",
                    "wait for one task that runs after them",
                )
        return tuple(waits)

    async def _tasks_named(self, number: int, principal: Principal) -> list[int]:
        """The task of this id, or the tasks of this batch, which the caller may wait for."""
        core = self._core
        live = core.cluster.tasks.get(number)
        if live is not None:
            principal.check_owns(live.batch.owner, f"task {number}")
            return [number]
        found = await asyncio.to_thread(core.repository.task, number)
        ids = [number] if found else await asyncio.to_thread(core.repository.task_ids, number)
        if found is None and ids:
            found = await asyncio.to_thread(core.repository.task, ids[0])
        if found is None:
            raise NotFoundError(f"there is no task or batch {number}", "list them with `hakuriver task list`")
        principal.check_owns(found[0].owner, f"{'task' if ids == [number] else 'batch'} {number}")
        return ids

    async def _not_ended(self, task_ids: list[int], wanted: Outcome) -> list[int]:
        """Those that are yet to end."""
        core, going, left = self._core, list[int](), task_ids
        for _ in range(_LOOKS):
            going += [task_id for task_id in left if awaited(core.cluster, task_id)]
            left = [task_id for task_id in left if not awaited(core.cluster, task_id)]
            if not left:
                break
            if core.writer.behind:  # With the end of one, perhaps.
                await core.writer.write(Changes(), firm=False)
            ends = await asyncio.to_thread(core.repository.outcomes, left)
            for task_id, state in ends.items():
                if not wanted.admits(state):
                    raise ConflictError(
                        f"task {task_id} is {state}, so that nothing can run after it as :{wanted}",
                        "`hakuriver task retry` makes it anew; :any waits for its end alone",
                    )
            left = [task_id for task_id in left if task_id not in ends]
        if left:
            raise ConflictError(f"task {left[0]} changes just now", "try again in a moment")
        return going

    async def _make_tasks(
        self, batch: Batch, places: Sequence[Place], requests: Mapping[str | None, Request]
    ) -> list[Task]:
        tasks: list[Task] = []
        spec = batch.spec
        not_before = spec.not_before.timestamp() if spec.not_before else None
        if quota := rows.quota_of(batch.batch_id, spec):
            requests = {target: replace(request, quota=quota) for target, request in requests.items()}
        for index, target in places:
            task = Task(self._core.ids.next(), batch, index, target, requests[target])
            task.priority, task.held = spec.priority, spec.hold
            task.not_before = not_before
            tasks.append(task)
            await _let_others_in(len(tasks))
        return tasks


def check_priority(priority: int, principal: Principal) -> None:
    """Everybody may step back; before others, one goes by an admin's word.

    Raises:
        DeniedError: it is above 0, and the caller is no admin.
    """
    if priority > 0 and not principal.is_admin:
        raise DeniedError(
            f"a priority of {priority} is an admin's to give", "give 0 or less, or ask an admin"
        )


def _check_same(first: str, digest: str) -> None:
    if first != digest:
        raise ConflictError(
            "this idempotency key was used for another submission", "use a new key for a new submission"
        )


async def _let_others_in(done: int) -> None:
    """Lets the loop turn after each so many tasks of a large submission."""
    if done % _AT_ONCE == 0:
        await asyncio.sleep(0)


def _places(spec: SubmitRequest, targets: Sequence[str | None], again: Again | None) -> list[Place]:
    """The tasks to be made, without those for targets that can never be served."""
    if again is not None:
        good = set(targets)
        return [place for place in again.places if place[1] in good]
    number = runs_of(spec) if spec.sweep else spec.count
    return [*enumerate(target for target in targets for _ in range(number))]


def _check_sweep(request: SubmitRequest) -> None:
    if request.count != 1:
        raise UsageError(
            f"{request.count} tasks are asked for, and a sweep makes one for each combination of its values",
            "leave the count out",
        )
    if len(request.targets) > 1:
        raise UsageError(
            "a sweep goes to one target at most", "leave the targets out: the Host spreads it over the nodes"
        )
    runs_of(request)


def _check(request: SubmitRequest) -> None:
    if request.task_type == "vps":
        _check_vps(request)
    elif request.idle_stop_seconds is not None:
        raise UsageError("a command is not stopped when it is idle", "give it a --time-limit")
    elif request.required_cores == 0:
        raise UsageError(
            "a command holds at least 1 core", "leave out --cores, or give the cores that it uses"
        )
    if reserved := sorted(request.env_vars.keys() & RESERVED_VARIABLES):
        raise UsageError(
            f"{', '.join(reserved)} cannot be set: the Runner tells it to every task",
            "use another name for a variable of your own",
        )
    if request.sweep:
        _check_sweep(request)
    size = (
        len(request.command)
        + sum(map(len, request.arguments))
        + sum(len(k) + len(v) for k, v in request.env_vars.items())
    )
    if size > MAX_ARGV_BYTES:
        raise UsageError(
            f"command and environment hold {size} bytes; the kernel takes about 2 MB",
            "pass a file under /shared instead",
        )
    if request.count * max(1, len(request.targets)) > MAX_COUNT:
        raise UsageError(f"one submission makes at most {MAX_COUNT} tasks", "split it")
    if (request.gpu_model or request.gpu_memory_bytes) and not request.gpus:
        raise UsageError("a GPU's model or memory is asked for, and no GPU is", "say how many: --gpus 1")
    if request.share_gpus and not (request.gpus or request.required_gpus or _names_gpus(request.targets)):
        raise UsageError("GPUs are to be shared, and none is asked for", "say how many: --gpus 1")
    if request.required_gpus and len(request.required_gpus) != len(request.targets):
        raise UsageError(
            "required_gpus must have one list for each target", "name the GPUs in the targets: node::0,1"
        )
    if request.container_name == NO_CONTAINER and request.privileged:
        raise UsageError(
            "a task without container cannot be privileged", "leave out --privileged, or name a container"
        )


def _names_gpus(targets: Iterable[str]) -> bool:
    return any("::" in target for target in targets)


def _check_vps(request: SubmitRequest) -> None:
    if request.preemptible:
        raise UsageError(
            "a VPS does not make room for others", "leave out preemptible; it can be stopped by hand"
        )
    if request.container_name == NO_CONTAINER:
        raise UsageError("a VPS is a container", "name an environment with --container, or leave it out")
    if request.count != 1 or len(request.targets) > 1:
        raise UsageError(
            "one submission makes one VPS", "submit it again for another; give one --target at most"
        )
    if request.sweep or request.max_running:
        raise UsageError("a VPS is one task alone", "submit a command, for a sweep or several tasks")
    if request.arguments:
        raise UsageError("a VPS takes no arguments", "log in to it, and run there what is to run")
    if request.max_retries:
        raise UsageError("a VPS is not retried: its data is on its node", "leave out --retries")
    try:
        if request.command != OWN_KEYS and not parse_public_keys(request.command):
            raise ValueError("no public key is given")  # noqa: TRY301 - as one that is malformed
        if request.name is not None:
            check_vps_name(request.name)
    except ValueError as error:
        hint = (
            "a key is a line of a file such as ~/.ssh/id_ed25519.pub"
            if "key" in str(error)
            else "choose another"
        )
        raise UsageError(f"{error}", hint) from None


def _targets(request: SubmitRequest) -> list[str | None]:
    if not request.targets:
        return [None]
    gpus = request.required_gpus or [[] for _ in request.targets]
    joined = []
    for text, numbers in zip(request.targets, gpus, strict=True):
        target = parse_target(text)
        if numbers and target.gpus:
            raise UsageError(
                f"GPUs for {text} are named twice", "name them in the target or in required_gpus"
            )
        if request.gpus and (numbers or target.gpus):
            raise UsageError(
                f"{text} names its GPUs, and {request.gpus} are asked for beside", "leave one of the two out"
            )
        joined.append(str(Target(target.node, target.numa, tuple(map(str, numbers)) or target.gpus)))
    return list(joined)


def _refuse(failed: list[FailedTarget]) -> None:
    reasons = "; ".join(
        f"{target.target}: {target.reason}" if target.target else target.reason for target in failed[:5]
    )
    hint = "see `hakuriver node list`; --hold-for-node queues it for a node that is yet to join"
    if all(target.reason.startswith("no node is named") for target in failed):
        raise NotFoundError(reasons, hint)
    raise ImpossibleError(reasons, hint)


def _message(count: int, failed: list[FailedTarget]) -> str:
    text = "1 task is queued" if count == 1 else f"{count} tasks are queued"
    return f"{text}; {len(failed)} of the targets can never run it" if failed else text
