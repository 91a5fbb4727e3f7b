"""How this Runner is."""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hakuriver.models.runner import RunnerHealth
from hakuriver_agent.api.edge import answer


def routes(health: Callable[[], RunnerHealth]) -> list[Route]:
    """`GET /api/health`."""

    async def get(_: Request) -> Response:
        return answer(health())

    return [Route("/api/health", get, methods=["GET"])]
