"""Batches: list, look, and what is done to all tasks of one."""

from __future__ import annotations

from pydantic import Field
from starlette.responses import Response

from hakuriver.errors import ConflictError, ImpossibleError, NotFoundError, StorageError
from hakuriver.models.batches import BatchDetail, BatchSummary
from hakuriver.models.submission import SubmitResponse
from hakuriver.models.tasks import Message, PriorityRequest
from hakuriver_host.api.endpoint import Call, Endpoint
from hakuriver_host.api.tasks import TaskQuery, page
from hakuriver_host.services.access import Permission
from hakuriver_host.services.batches import Batches


class BatchQuery(TaskQuery):
    """Which tasks count, as in the list of tasks."""

    min_tasks: int = Field(
        default=1, ge=1, le=100_000, description="Only batches of which so many tasks count."
    )


def batch_endpoints(batches: Batches) -> list[Endpoint]:
    async def list_batches(call: Call) -> Response:
        query: BatchQuery = call.query
        found = await batches.list(query.filter(), query.min_tasks, call.principal)
        return page(found, found[-1].batch_id if len(found) == query.limit else None)

    async def status(call: Call) -> BatchDetail:
        return await batches.detail(call.batch_id, call.principal)

    async def kill(call: Call) -> Message:
        return await batches.kill(call.batch_id, call.principal)

    async def hold(call: Call) -> Message:
        return await batches.move(call.batch_id, "hold", call.principal)

    async def release(call: Call) -> Message:
        return await batches.move(call.batch_id, "release", call.principal)

    async def reprioritize(call: Call) -> Message:
        return await batches.reprioritize(call.batch_id, call.body.priority, call.principal)

    async def retry(call: Call) -> SubmitResponse:
        return await batches.retry(call.batch_id, call.principal, call.idempotency_key)

    changed = (NotFoundError, ConflictError)
    return [
        Endpoint(
            "GET",
            "/api/batches",
            list_batches,
            Permission.SEE,
            "List batches, newest first, with how many of their tasks are in which state",
            list[BatchSummary],
            query=BatchQuery,
            headers={"X-Next-Cursor": "Give it as `cursor` for the next page; absent on the last."},
        ),
        Endpoint(
            "GET",
            "/api/batches/{batch_id}",
            status,
            Permission.SEE,
            "Show one batch",
            BatchDetail,
            errors=(NotFoundError,),
        ),
        Endpoint(
            "POST",
            "/api/batches/{batch_id}/kill",
            kill,
            Permission.OWN,
            "Kill all tasks of a batch",
            Message,
            status=202,
            errors=changed,
        ),
        Endpoint(
            "POST",
            "/api/batches/{batch_id}/hold",
            hold,
            Permission.OWN,
            "Hold all tasks of a batch that wait",
            Message,
            errors=changed,
        ),
        Endpoint(
            "POST",
            "/api/batches/{batch_id}/release",
            release,
            Permission.OWN,
            "Release all tasks of a batch that wait",
            Message,
            errors=changed,
        ),
        Endpoint(
            "POST",
            "/api/batches/{batch_id}/priority",
            reprioritize,
            Permission.OWN,
            "Give all tasks of a batch that wait another place in the queue",
            Message,
            body=PriorityRequest,
            errors=changed,
        ),
        Endpoint(
            "POST",
            "/api/batches/{batch_id}/retry",
            retry,
            Permission.SUBMIT,
            "Submit the tasks of a batch again that have ended and not completed",
            SubmitResponse,
            status=202,
            errors=(NotFoundError, ConflictError, ImpossibleError, StorageError),
            idempotent_by_key=True,
        ),
    ]
