"""The output of attempts, from an offset and as it grows."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from hakuriver.errors import NotFoundError, StorageError, UsageError
from hakuriver.models.runner import AttemptSpec
from hakuriver.states import HOLDING
from hakuriver.threads import in_thread
from hakuriver_agent.folders import Folders
from hakuriver_agent.supervisor import Supervisor

PIECE = 1 << 18
FIRST_LOOK_SECONDS, LONGEST_LOOK_SECONDS = 0.1, 0.5
"""Between looks at a file that somebody follows: the writer may be the shim, or an engine's thread. Each look takes a
thread, so that they become fewer while nothing comes, and quick again once something does."""
SHARE_SECONDS = 20.0


def routes(supervisor: Supervisor, folders: Folders) -> list[Route]:
    """`GET /api/logs/{task_id}/{attempt}/{stdout|stderr}`."""

    async def logs(request: Request) -> Response:
        key = (request.path_params["task_id"], request.path_params["attempt"])
        spec = supervisor.spec(key)
        if spec is None:
            raise NotFoundError(
                f"attempt {key[1]} of task {key[0]} is not on this node", "read its log on the share"
            )
        path = _path(folders, spec, request.path_params["stream"])
        offset = _offset(request.query_params.get("offset", "0"))
        following = request.query_params.get("follow", "").lower() in {"1", "true", "yes"}

        def over() -> bool:
            report = supervisor.report(key)
            return not following or report is None or report.status not in HOLDING

        return StreamingResponse(_pieces(path, offset, over), media_type="application/octet-stream")

    return [Route("/api/logs/{task_id:int}/{attempt:int}/{stream}", logs, methods=["GET"])]


async def _pieces(path: Path, offset: int, over: Callable[[], bool]) -> AsyncIterator[bytes]:
    """What the file holds from `offset` on, until its attempt is over and all is sent."""
    pause = FIRST_LOOK_SECONDS
    while True:
        last = over()
        data = await _read(path, offset)
        if data:
            offset += len(data)
            pause = FIRST_LOOK_SECONDS
            yield data
        elif last:
            return
        else:
            await _until(over, pause)
            pause = min(LONGEST_LOOK_SECONDS, pause * 1.5)


async def _until(over: Callable[[], bool], seconds: float) -> None:
    """Waits, and no longer than until it is over: an end is told at once."""
    for _ in range(max(1, round(seconds / FIRST_LOOK_SECONDS))):
        await asyncio.sleep(FIRST_LOOK_SECONDS)
        if over():
            return


async def _read(path: Path, offset: int) -> bytes:
    def work() -> bytes:
        try:
            with path.open("rb") as file:
                file.seek(offset, os.SEEK_SET)
                return file.read(PIECE)
        except FileNotFoundError:
            return b""

    try:
        return await in_thread(work, SHARE_SECONDS)
    except TimeoutError:
        raise StorageError(
            "the share does not answer on this node", "check the mount of paths.shared_dir"
        ) from None


def _path(folders: Folders, spec: AttemptSpec, stream: str) -> Path:
    if stream not in {"stdout", "stderr"}:
        raise NotFoundError(f"there is no stream {stream!r}", "ask for stdout or stderr")
    return folders.log_file(spec.stdout_path if stream == "stdout" else spec.stderr_path)


def _offset(text: str) -> int:
    if not text.isdecimal():
        raise UsageError(f"offset {text!r} is not a number of bytes", "give 0 or more")
    return int(text)
