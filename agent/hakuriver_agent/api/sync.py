"""Having a version of an environment in this node's engine ahead of the tasks that need it."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from hakuriver.errors import ConflictError
from hakuriver.models.environments import SyncRequest
from hakuriver_agent.api.edge import read
from hakuriver_agent.engines.docker import DockerEngine
from hakuriver_agent.environments import Environments


def routes(engine: DockerEngine, node: str) -> list[Route]:
    """`POST /api/sync`: one `SyncProgress` a line as it goes, the last one `ready` or `failed`."""

    async def sync(request: Request) -> Response:
        body = await read(request, SyncRequest)
        if problem := await engine.problem():
            raise ConflictError(
                f"the node {node} cannot hold environments: {problem}", "name nodes that have a Docker engine"
            )
        lines = _lines(engine.environments, body, node)
        return StreamingResponse(lines, media_type="application/x-ndjson")

    return [Route("/api/sync", sync, methods=["POST"])]


async def _lines(environments: Environments, body: SyncRequest, node: str) -> AsyncIterator[str]:
    async for progress in environments.sync(body.name, body.version):
        yield progress.model_copy(update={"node": node}).model_dump_json() + "\n"
