"""Every request to the Host as a value: what to send, and how to read the answer.

Nothing here sends. `Client` and `AsyncClient` send these calls, so they differ in nothing else, and a test compares
values. A call that is `repeatable` may be sent again after a lost connection without doing anything twice.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar, cast
from urllib.parse import quote

from pydantic import BaseModel, TypeAdapter, ValidationError

from hakuriver import models
from hakuriver.errors import InternalError, NotFoundError, UsageError
from hakuriver.names import WORDS
from hakuriver.problems import said

if TYPE_CHECKING:
    from hakuriver.models.access import (
        TokenCreate,
        TokenCreated,
        TokenInfo,
        UserCreate,
        UserInfo,
        WhoAmI,
    )
    from hakuriver.models.batches import BatchDetail, BatchList
    from hakuriver.models.environments import (
        EnvironmentClone,
        EnvironmentContainer,
        EnvironmentCreate,
        EnvironmentInfo,
        GarbageReport,
        PackRequest,
        PackResult,
        PrefetchRequest,
        RollbackRequest,
        TagRequest,
        VersionDiff,
        VersionInfo,
    )
    from hakuriver.models.nodes import (
        ClusterStatus,
        EnvironmentVersions,
        HealthHistory,
        NodeDuty,
        NodeInfo,
        NodeLabels,
    )
    from hakuriver.models.submission import SubmitRequest, SubmitResponse
    from hakuriver.models.tasks import (
        Message,
        PriorityRequest,
        QueuedTask,
        TaskDetail,
        TaskExplanation,
        TaskList,
    )
    from hakuriver.models.vps import GatewayInfo, KeyCreate, KeyInfo, VpsSummary


T = TypeVar("T")
Request = TypeVar("Request", bound=BaseModel)
Params = tuple[tuple[str, str], ...]
Stream = Literal["stdout", "stderr"]

_NO_NAMES: Mapping[str, str] = {}
_SHOWN_LENGTH = 60

IDEMPOTENCY_HEADER = "Idempotency-Key"
CURSOR_HEADER = "X-Next-Cursor"
OFFSET_HEADER = "X-Next-Offset"
ATTEMPT_HEADER = "X-Attempt"


class Answer(Protocol):
    """What a call reads of a response; httpx's own fits."""

    @property
    def content(self) -> bytes: ...
    @property
    def headers(self) -> Mapping[str, str]: ...


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    method: str
    path: str
    read: Callable[[Answer], T]
    params: Params = ()
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = False
    long: bool = False
    """It may take as long as it takes: only connecting has a limit of time."""


@dataclass(frozen=True, slots=True)
class LogPart:
    """A piece of a log: its bytes, the offset of what follows it, and the attempt that wrote it."""

    data: bytes
    next_offset: int
    attempt: int | None = None


def submit_request(fields: Mapping[str, Any], names: Mapping[str, str] = _NO_NAMES) -> SubmitRequest:
    """The request of keyword arguments. `names` are what the caller calls the fields, where that differs.

    Raises:
        UsageError: a field is unknown or its value is wrong; the message names it.
    """
    try:
        return models.submission.SubmitRequest(**fields)
    except ValidationError as error:
        raise UsageError(f"cannot submit: {describe(error, names)}", "correct it and submit again") from None


def made(kind: type[Request], what: str, **fields: Any) -> Request:
    """A request of keyword arguments.

    Raises:
        UsageError: a value is wrong; the message names it.
    """
    try:
        return kind(**fields)
    except ValidationError as error:
        raise UsageError(f"cannot {what}: {describe(error)}", "correct it and try again") from None


def describe(error: ValidationError, names: Mapping[str, str] = _NO_NAMES) -> str:
    """What a validation found, in one line: where, the value if it is short, and what is wrong with it."""
    parts = []
    for problem in error.errors(include_url=False):
        first, *rest = [str(part) for part in problem["loc"]] or [""]
        where = names.get(first) or ".".join((first, *rest))
        value = problem["input"]
        shown = f" {value}" if isinstance(value, int | str) and len(str(value)) <= _SHOWN_LENGTH else ""
        what = said(problem)
        parts.append(f"{where}{shown}: {what}" if where else what)
    return "; ".join(parts)


def submit(request: SubmitRequest, idempotency_key: str) -> Call[SubmitResponse]:
    return Call(
        "POST",
        "/api/submit",
        _model(models.submission.SubmitResponse),
        body=_body(request),
        headers={IDEMPOTENCY_HEADER: idempotency_key},
        repeatable=True,
    )


def tasks(
    *,
    status: Iterable[str] = (),
    node: str | None = None,
    owner: str | None = None,
    batch_id: int | None = None,
    name: str | None = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> Call[TaskList]:
    wanted = tuple(("status", str(state)) for state in status)
    others = _params(node=node, owner=owner, batch_id=batch_id, name=name, limit=limit, cursor=cursor)
    return Call("GET", "/api/tasks", _task_list, params=wanted + others, repeatable=True)


def task(task_id: int) -> Call[TaskDetail]:
    return _get(f"/api/status/{task_id}", models.tasks.TaskDetail)


def explain(task_id: int) -> Call[TaskExplanation]:
    return _get(f"/api/explain/{task_id}", models.tasks.TaskExplanation)


def kill(task_id: int) -> Call[Message]:
    return Call("POST", f"/api/kill/{task_id}", _model(models.tasks.Message), repeatable=True)


def pause(task_id: int) -> Call[Message]:
    return Call("POST", f"/api/command/{task_id}/pause", _model(models.tasks.Message))


def resume(task_id: int) -> Call[Message]:
    return Call("POST", f"/api/command/{task_id}/resume", _model(models.tasks.Message))


def hold(task_id: int) -> Call[Message]:
    return Call("POST", f"/api/command/{task_id}/hold", _model(models.tasks.Message), repeatable=True)


def release(task_id: int) -> Call[Message]:
    return Call("POST", f"/api/command/{task_id}/release", _model(models.tasks.Message))


def reprioritize(task_id: int, request: PriorityRequest) -> Call[Message]:
    return Call(
        "POST", f"/api/priority/{task_id}", _model(models.tasks.Message), body=_body(request), repeatable=True
    )


def queue(*, owner: str | None = None, limit: int | None = None) -> Call[list[QueuedTask]]:
    params = _params(owner=owner, limit=limit)
    return Call("GET", "/api/queue", _model(list[models.tasks.QueuedTask]), params=params, repeatable=True)


def retry(task_id: int, idempotency_key: str) -> Call[SubmitResponse]:
    return Call(
        "POST",
        f"/api/retry/{task_id}",
        _model(models.submission.SubmitResponse),
        headers={IDEMPOTENCY_HEADER: idempotency_key},
        repeatable=True,
    )


def batches(
    *,
    status: Iterable[str] = (),
    node: str | None = None,
    owner: str | None = None,
    batch_id: int | None = None,
    name: str | None = None,
    min_tasks: int | None = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> Call[BatchList]:
    wanted = tuple(("status", str(state)) for state in status)
    others = _params(
        node=node, owner=owner, batch_id=batch_id, name=name, min_tasks=min_tasks, limit=limit, cursor=cursor
    )
    return Call("GET", "/api/batches", _batch_list, params=wanted + others, repeatable=True)


def batch(batch_id: int) -> Call[BatchDetail]:
    return _get(f"/api/batches/{batch_id}", models.batches.BatchDetail)


def kill_batch(batch_id: int) -> Call[Message]:
    return Call("POST", f"/api/batches/{batch_id}/kill", _model(models.tasks.Message), repeatable=True)


def hold_batch(batch_id: int) -> Call[Message]:
    return Call("POST", f"/api/batches/{batch_id}/hold", _model(models.tasks.Message), repeatable=True)


def release_batch(batch_id: int) -> Call[Message]:
    return Call("POST", f"/api/batches/{batch_id}/release", _model(models.tasks.Message))


def reprioritize_batch(batch_id: int, request: PriorityRequest) -> Call[Message]:
    path = f"/api/batches/{batch_id}/priority"
    return Call("POST", path, _model(models.tasks.Message), body=_body(request), repeatable=True)


def retry_batch(batch_id: int, idempotency_key: str) -> Call[SubmitResponse]:
    return Call(
        "POST",
        f"/api/batches/{batch_id}/retry",
        _model(models.submission.SubmitResponse),
        headers={IDEMPOTENCY_HEADER: idempotency_key},
        repeatable=True,
    )


def log(
    task_id: int, stream: Stream, *, offset: int = 0, limit: int | None = None, attempt: int | None = None
) -> Call[LogPart]:
    params = _params(offset=offset, limit=limit, attempt=attempt)
    return Call("GET", f"/api/task/{task_id}/{stream}", _log_part(offset), params=params, repeatable=True)


def nodes() -> Call[list[NodeInfo]]:
    return _get("/api/nodes", list[models.nodes.NodeInfo])


def cordon(name: str) -> Call[NodeDuty]:
    return Call("POST", f"{_node(name)}/cordon", _model(models.nodes.NodeDuty), repeatable=True)


def uncordon(name: str) -> Call[NodeDuty]:
    return Call("POST", f"{_node(name)}/uncordon", _model(models.nodes.NodeDuty), repeatable=True)


def label(name: str, changes: Mapping[str, str | None]) -> Call[NodeLabels]:
    request = made(models.nodes.LabelsRequest, "label the node", labels=dict(changes))
    return Call(
        "POST", f"{_node(name)}/labels", _model(models.nodes.NodeLabels), body=_body(request), repeatable=True
    )


def drain(name: str) -> Call[NodeDuty]:
    return Call("POST", f"{_node(name)}/drain", _model(models.nodes.NodeDuty), repeatable=True)


def remove_node(name: str, *, force: bool = False) -> Call[Message]:
    params = _params(force="true" if force else None)
    return Call("DELETE", _node(name), _model(models.tasks.Message), params=params)


def _node(name: str) -> str:
    return f"/api/nodes/{quote(name, safe='')}"


def health(hostname: str | None = None) -> Call[HealthHistory]:
    return Call(
        "GET",
        "/api/health",
        _model(models.nodes.HealthHistory),
        params=_params(hostname=hostname),
        repeatable=True,
    )


def cluster() -> Call[ClusterStatus]:
    return _get("/api/cluster", models.nodes.ClusterStatus)


def environments() -> Call[dict[str, EnvironmentVersions]]:
    return _get("/api/docker/list", dict[str, models.nodes.EnvironmentVersions])


def environment_list() -> Call[list[EnvironmentInfo]]:
    return _get("/api/environments", list[models.environments.EnvironmentInfo])


def environment(name: str) -> Call[EnvironmentInfo]:
    return _get(_environment(name), models.environments.EnvironmentInfo)


def create_environment(request: EnvironmentCreate) -> Call[EnvironmentInfo]:
    return Call(
        "POST",
        "/api/environments",
        _model(models.environments.EnvironmentInfo),
        body=_body(request),
        long=True,
    )


def upload_environment(name: str, kind: str) -> Call[EnvironmentInfo]:
    """Sent with a tar as its body."""
    return Call(
        "POST", f"{_environment(name)}/upload/{kind}", _model(models.environments.EnvironmentInfo), long=True
    )


def clone_environment(name: str, request: EnvironmentClone) -> Call[EnvironmentInfo]:
    return Call(
        "POST",
        f"{_environment(name)}/clone",
        _model(models.environments.EnvironmentInfo),
        body=_body(request),
        long=True,
    )


def start_environment(name: str) -> Call[Message]:
    return Call("POST", f"{_environment(name)}/start", _model(models.tasks.Message), repeatable=True)


def stop_environment(name: str) -> Call[Message]:
    return Call(
        "POST", f"{_environment(name)}/stop", _model(models.tasks.Message), repeatable=True, long=True
    )


def delete_environment(name: str, *, versions: bool = False, version: int | None = None) -> Call[Message]:
    params = _params(versions="true" if versions else None, version=version)
    return Call("DELETE", _environment(name), _model(models.tasks.Message), params=params, long=True)


def pack_environment(name: str, request: PackRequest) -> Call[PackResult]:
    return Call(
        "POST",
        f"{_environment(name)}/pack",
        _model(models.environments.PackResult),
        body=_body(request),
        long=True,
    )


def import_environment(name: str, message: str = "") -> Call[PackResult]:
    """Sent with an archive of an image as its body."""
    params = _params(message=message or None)
    return Call(
        "POST",
        f"{_environment(name)}/import",
        _model(models.environments.PackResult),
        params=params,
        long=True,
    )


def export_environment(name: str, version: int | None = None) -> Call[None]:
    return Call("GET", f"{_environment(name)}/export", _nothing, params=_params(version=version), long=True)


def diff_environment(name: str, before: int | None, after: int | None) -> Call[VersionDiff]:
    params = _params(before=before, after=after)
    return Call(
        "GET",
        f"{_environment(name)}/diff",
        _model(models.environments.VersionDiff),
        params=params,
        repeatable=True,
    )


def rollback_environment(name: str, request: RollbackRequest) -> Call[VersionInfo]:
    return Call(
        "POST", f"{_environment(name)}/rollback", _model(models.environments.VersionInfo), body=_body(request)
    )


def tag_environment(name: str, request: TagRequest) -> Call[VersionInfo]:
    return Call(
        "POST",
        f"{_environment(name)}/tag",
        _model(models.environments.VersionInfo),
        body=_body(request),
        repeatable=True,
    )


def collect_garbage(*, dry_run: bool = False) -> Call[GarbageReport]:
    params = _params(dry_run="true" if dry_run else None)
    return Call("POST", "/api/garbage", _model(models.environments.GarbageReport), params=params, long=True)


def prefetch_environment(name: str, request: PrefetchRequest) -> Call[None]:
    return Call("POST", f"{_environment(name)}/prefetch", _nothing, body=_body(request), headers=_SSE)


def get_files(name: str, path: str) -> Call[None]:
    params = _params(path=path)
    return Call("GET", f"{_environment(name)}/files", _nothing, params=params, long=True)


def put_files(name: str, path: str) -> Call[Message]:
    """Sent with a tar as its body."""
    params = _params(path=path)
    return Call("PUT", f"{_environment(name)}/files", _model(models.tasks.Message), params=params, long=True)


def environment_containers() -> Call[list[EnvironmentContainer]]:
    return _get("/api/docker/host/containers", list[models.environments.EnvironmentContainer])


def _environment(name: str) -> str:
    return f"/api/environments/{quote(name, safe='')}"


def users() -> Call[list[UserInfo]]:
    return _get("/api/users", list[models.access.UserInfo])


def create_user(request: UserCreate) -> Call[UserInfo]:
    return Call("POST", "/api/users", _model(models.access.UserInfo), body=_body(request))


def remove_user(name: str) -> Call[Message]:
    return Call("DELETE", f"/api/users/{quote(name, safe='')}", _model(models.tasks.Message))


def tokens() -> Call[list[TokenInfo]]:
    return _get("/api/tokens", list[models.access.TokenInfo])


def create_token(request: TokenCreate) -> Call[TokenCreated]:
    return Call("POST", "/api/tokens", _model(models.access.TokenCreated), body=_body(request))


def revoke_token(token_id: str) -> Call[Message]:
    return Call("DELETE", f"/api/tokens/{quote(token_id, safe='')}", _model(models.tasks.Message))


def keys() -> Call[list[KeyInfo]]:
    return _get("/api/keys", list[models.vps.KeyInfo])


def add_key(request: KeyCreate) -> Call[KeyInfo]:
    return Call("POST", "/api/keys", _model(models.vps.KeyInfo), body=_body(request))


def remove_key(key_id: str) -> Call[Message]:
    return Call("DELETE", f"/api/keys/{quote(key_id, safe='')}", _model(models.tasks.Message))


def every_vps(*, active: bool = True) -> Call[list[VpsSummary]]:
    return _get("/api/vps/status" if active else "/api/vps", list[models.vps.VpsSummary])


def vps(reference: str) -> Call[VpsSummary]:
    if reference in WORDS:  # Older Hosts let a VPS have such a name.
        raise NotFoundError(
            f"no VPS is found by the name `{reference}`", "name it by its id: `hakuriver vps list`"
        )
    return _get(f"/api/vps/{quote(reference, safe='')}", models.vps.VpsSummary)


def stop_vps(reference: str) -> Call[Message]:
    return Call("POST", _of_vps(reference, "stop"), _model(models.tasks.Message), repeatable=True)


def start_vps(reference: str) -> Call[Message]:
    return Call("POST", _of_vps(reference, "start"), _model(models.tasks.Message), repeatable=True)


def extend_vps(reference: str, seconds: int) -> Call[Message]:
    more = models.vps.VpsExtend(seconds=seconds)
    return Call("POST", _of_vps(reference, "extend"), _model(models.tasks.Message), body=_body(more))


def snapshot_vps(reference: str, message: str) -> Call[PackResult]:
    request = models.environments.PackRequest(message=message)
    return Call(
        "POST",
        _of_vps(reference, "snapshots"),
        _model(models.environments.PackResult),
        body=_body(request),
        long=True,
    )


def vps_snapshots(reference: str) -> Call[list[VersionInfo]]:
    return _get(_of_vps(reference, "snapshots"), list[models.environments.VersionInfo])


def restore_vps(reference: str, version: int | None) -> Call[Message]:
    body = _body(models.vps.VpsRestore(version=version))
    return Call("POST", _of_vps(reference, "restore"), _model(models.tasks.Message), body=body, long=True)


def share_vps(reference: str, user: str) -> Call[Message]:
    return Call("PUT", _vps_user(reference, user), _model(models.tasks.Message), repeatable=True)


def unshare_vps(reference: str, user: str) -> Call[Message]:
    return Call("DELETE", _vps_user(reference, user), _model(models.tasks.Message), repeatable=True)


def _of_vps(reference: str, what: str) -> str:
    return f"/api/vps/{quote(reference, safe='')}/{what}"


def _vps_user(reference: str, user: str) -> str:
    return _of_vps(reference, f"users/{quote(user, safe='')}")


def gateway() -> Call[GatewayInfo]:
    return _get("/api/ssh", models.vps.GatewayInfo)


def whoami() -> Call[WhoAmI]:
    return _get("/api/whoami", models.access.WhoAmI)


def follow_log(
    task_id: int, stream: Stream, *, offset: int, attempt: int | None, seen: int | None = None
) -> Call[None]:
    """The log as server-sent events, from `offset` on: in `attempt` alone, or in `seen` and those after it."""
    params = _params(follow="true", offset=offset, attempt=attempt)
    headers = _SSE if seen is None else {**_SSE, "Last-Event-ID": f"{seen}:{offset}"}
    return Call("GET", f"/api/task/{task_id}/{stream}", _nothing, params=params, headers=headers)


def events(since: int | None, *, task_id: int | None = None, batch_id: int | None = None) -> Call[None]:
    """State changes as server-sent events, those after `since`; without it, from now on."""
    params = _params(since=since, task_id=task_id, batch_id=batch_id)
    headers = dict(_SSE) if not since else {**_SSE, "Last-Event-ID": str(since)}
    return Call("GET", "/api/events", _nothing, params=params, headers=headers)


_SSE: Mapping[str, str] = {"Accept": "text/event-stream"}


def _get(path: str, kind: type[T]) -> Call[T]:
    return Call("GET", path, _model(kind), repeatable=True)


def _params(**values: str | int | None) -> Params:
    return tuple((name, str(value)) for name, value in values.items() if value is not None)


def _body(request: BaseModel) -> bytes:
    """Defaults are left out, so that a Host one version older is not told of fields it does not know."""
    return request.model_dump_json(exclude_defaults=True).encode()


def _model(kind: type[T]) -> Callable[[Answer], T]:
    return lambda answer: read_json(kind, answer.content)


def read_json(kind: type[T], data: bytes | str) -> T:
    """Reads a peer's JSON.

    Raises:
        InternalError: it is not what this version expects.
    """
    try:
        return cast("T", _adapter(cast("Hashable", kind)).validate_json(data))
    except ValidationError as error:
        raise InternalError(
            f"the Host's answer is not understood: {describe(error)}",
            "compare `hakuriver version` with the Host's, and see that the URL is a HakuRiver Host's",
        ) from None


@cache
def _adapter(kind: Hashable) -> TypeAdapter[Any]:
    return TypeAdapter(cast("type[Any]", kind))


def _task_list(answer: Answer) -> TaskList:
    found = read_json(list[models.tasks.TaskSummary], answer.content)
    return models.tasks.TaskList(tasks=found, next_cursor=answer.headers.get(CURSOR_HEADER) or None)


def _batch_list(answer: Answer) -> BatchList:
    found = read_json(list[models.batches.BatchSummary], answer.content)
    return models.batches.BatchList(batches=found, next_cursor=answer.headers.get(CURSOR_HEADER) or None)


def _log_part(offset: int) -> Callable[[Answer], LogPart]:
    def read(answer: Answer) -> LogPart:
        following, attempt = answer.headers.get(OFFSET_HEADER, ""), answer.headers.get(ATTEMPT_HEADER, "")
        end = int(following) if following.isdecimal() else offset + len(answer.content)
        return LogPart(answer.content, end, int(attempt) if attempt.isdecimal() else None)

    return read


def _nothing(_answer: Answer) -> None:
    return None
