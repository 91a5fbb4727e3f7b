"""What is in an attempt's container, for the Host."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator, Mapping

from starlette.concurrency import iterate_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from hakuriver.errors import ConflictError
from hakuriver.models.runner import AttemptId, EngineName
from hakuriver.states import TaskState
from hakuriver.threads import start_thread
from hakuriver_agent.api.edge import read
from hakuriver_agent.engines.port import Engine
from hakuriver_agent.supervisor import Supervisor

_THERE = frozenset({TaskState.RUNNING, TaskState.PAUSED, TaskState.STOPPED})


def routes(supervisor: Supervisor, engines: Mapping[EngineName, Engine]) -> list[Route]:
    """`POST /api/snapshot`: an archive, cut off where it could not be read to its end."""

    async def snapshot(request: Request) -> Response:
        named = await read(request, AttemptId)
        spec, report = supervisor.spec(named.key), supervisor.report(named.key)
        if spec is None or report is None or report.status not in _THERE:
            raise ConflictError(f"task {named.task_id} is not there", "see `hakuriver task status`")
        archive = await engines[spec.engine].snapshot(named.key)
        return StreamingResponse(_pieces(archive), media_type="application/x-tar")

    return [Route("/api/snapshot", snapshot, methods=["POST"])]


async def _pieces(archive: Generator[bytes]) -> AsyncIterator[bytes]:
    """In threads; closed in one, too, when the Host goes away in the middle."""
    try:
        async for piece in iterate_in_threadpool(archive):
            yield piece
    finally:
        await asyncio.shield(start_thread(archive.close))
