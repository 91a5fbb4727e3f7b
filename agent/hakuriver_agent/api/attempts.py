"""Starting, stopping and listing attempts."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hakuriver.models.runner import (
    ActionResponse,
    AttemptList,
    AttemptsRequest,
    LimitsRequest,
    StartRequest,
    StartResponse,
)
from hakuriver_agent.api.edge import answer, read
from hakuriver_agent.supervisor import Supervisor


def routes(supervisor: Supervisor) -> list[Route]:
    """`POST /api/start|kill|pause|resume|stop|limit` and `GET /api/attempts`."""

    async def start(request: Request) -> Response:
        body = await read(request, StartRequest)
        return answer(StartResponse(results=await supervisor.start(body.attempts)))

    async def kill(request: Request) -> Response:
        body = await read(request, AttemptsRequest)
        return answer(ActionResponse(results=await supervisor.kill(body.attempts)))

    async def pause(request: Request) -> Response:
        body = await read(request, AttemptsRequest)
        return answer(ActionResponse(results=await supervisor.pause(body.attempts)))

    async def resume(request: Request) -> Response:
        body = await read(request, AttemptsRequest)
        return answer(ActionResponse(results=await supervisor.resume(body.attempts)))

    async def stop(request: Request) -> Response:
        body = await read(request, AttemptsRequest)
        return answer(ActionResponse(results=await supervisor.stop(body.attempts)))

    async def limit(request: Request) -> Response:
        body = await read(request, LimitsRequest)
        return answer(ActionResponse(results=await supervisor.limit(body.attempts)))

    async def attempts(_: Request) -> Response:
        return answer(AttemptList(attempts=supervisor.reports()))

    return [
        Route("/api/start", start, methods=["POST"]),
        Route("/api/kill", kill, methods=["POST"]),
        Route("/api/pause", pause, methods=["POST"]),
        Route("/api/resume", resume, methods=["POST"]),
        Route("/api/stop", stop, methods=["POST"]),
        Route("/api/limit", limit, methods=["POST"]),
        Route("/api/attempts", attempts, methods=["GET"]),
    ]
