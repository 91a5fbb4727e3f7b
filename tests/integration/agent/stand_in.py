"""A Host of a few lines for the real Runner process: takes joins, registrations and reports, and gives orders."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hakuriver.models.runner import (
    ActionResponse,
    AttemptId,
    AttemptReport,
    AttemptSpec,
    AttemptsRequest,
    HeartbeatRequest,
    RegisterRequest,
    StartRequest,
    StartResponse,
    UpdateRequest,
)
from hakuriver.states import FINAL, TaskState
from hakuriver.version import __version__
from support import engine, settings, shares
from support.daemons import Daemon
from support.ports import free_port

WITHIN = 30.0
_ids = itertools.count(int(time.time() * 1000) << 20)


class StandInHost:
    """Keeps every report. `refusing` makes it answer 507, as a Host with a full disk does."""

    def __init__(self) -> None:
        self.port = free_port()
        self.refusing = False
        self.reports: list[AttemptReport] = []
        self.registrations: list[RegisterRequest] = []
        self.heartbeats: list[HeartbeatRequest] = []
        self._changed = threading.Condition()
        routes = [
            Route("/api/join", self._join, methods=["POST"]),
            Route("/api/register", self._register, methods=["POST"]),
            Route("/api/heartbeat/{hostname}", self._heartbeat, methods=["PUT"]),
            Route("/api/update", self._update, methods=["POST"]),
        ]
        config = uvicorn.Config(Starlette(routes=routes), port=self.port, log_config=None, access_log=False)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()

    def wait(self, probe: Callable[[], Any], what: str) -> Any:
        """The first true answer of `probe`, looked at whenever something came."""
        with self._changed:
            answer = self._changed.wait_for(probe, WITHIN)
        assert answer, f"after {WITHIN} s still not: {what}; there is {self.reports[-5:]}"
        return answer

    def of(self, spec: AttemptId) -> list[AttemptReport]:
        return [report for report in self.reports if report.key == spec.key]

    def final(self, spec: AttemptId) -> AttemptReport:
        """Its end, which must have been told with one content only."""

        def finals() -> list[AttemptReport]:
            return [report for report in self.of(spec) if report.status in FINAL]

        self.wait(finals, f"{spec.key} has ended")
        assert all(report == finals()[0] for report in finals()), finals()
        return finals()[0]

    def running(self, spec: AttemptId) -> None:
        self.wait(lambda: any(r.status is TaskState.RUNNING for r in self.of(spec)), f"{spec.key} runs")

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()

    async def _join(self, _: Request) -> Response:
        return JSONResponse({"node_token": "node", "control_token": "control"})

    async def _register(self, request: Request) -> Response:
        self.registrations.append(RegisterRequest.model_validate_json(await request.body()))
        self._tell()
        answer = {
            "message": "welcome",
            "version": __version__,
            "heartbeat_interval_seconds": 0.5,
            "reachable": True,
        }
        return JSONResponse(answer)

    async def _heartbeat(self, request: Request) -> Response:
        self.heartbeats.append(HeartbeatRequest.model_validate_json(await request.body()))
        self._tell()
        return JSONResponse({"message": "ok"})

    async def _update(self, request: Request) -> Response:
        if self.refusing:
            return JSONResponse({"error": "storage", "message": "the disk is full"}, 507)
        self.reports += UpdateRequest.model_validate_json(await request.body()).reports
        self._tell()
        return JSONResponse({"message": "ok"})


class RealRunner:
    """The Runner's process, over all its lives, and orders to it."""

    def __init__(self, folder: Path, host: StandInHost, sections: settings.Sections | None = None) -> None:
        self.folder = folder
        self.shared = folder / "shared"
        shares.make(self.shared)
        self.name = f"s{next(_ids):x}"
        self.port = free_port()
        own: settings.Sections = {
            "network": {"runner_bind_ip": "127.0.0.1", "runner_port": self.port, "host_port": host.port},
            "paths": {
                "shared_dir": self.shared,
                "state_dir": folder / "state",
                "local_temp_dir": folder / "temp",
            },
            "runner": {"name": self.name, "cores": 8, "join_token_file": folder / "join.token"},
        }
        (folder / "join.token").write_text("join")
        config = settings.write(folder / "runner.toml", settings.merged(settings.QUICK, own, sections or {}))
        self.daemon = Daemon("hakuriver_agent", config, folder / "runner.log")
        self._host = host
        self.http = httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}", headers={"Authorization": "Bearer control"}, timeout=30
        )

    def start(self) -> None:
        """Starts it, and waits until it has registered."""
        before = len(self._host.registrations)
        self.daemon.start()
        self._host.wait(lambda: len(self._host.registrations) > before, "the Runner registers")

    def restart(self) -> None:
        self.daemon.kill()
        self.start()

    def spec(self, command: str, *arguments: str, **changes: Any) -> AttemptSpec:
        task = next(_ids)
        fields: dict[str, Any] = {
            "task_id": task,
            "attempt": 1,
            "batch_id": task,
            "owner": "tester",
            "engine": "process",
            "command": command,
            "arguments": list(arguments),
            "environment": engine.ENVIRONMENT,
            "environment_version": str(engine.VERSION),
            "network": "none",
            "stdout_path": f"task_outputs/{task}.out",
            "stderr_path": f"task_errors/{task}.err",
        }
        return AttemptSpec.model_validate(fields | changes)

    def run(self, specs: Sequence[AttemptSpec]) -> StartResponse:
        body = StartRequest(attempts=list(specs)).model_dump_json()
        answer = self.http.post("/api/start", content=body)
        assert answer.is_success, answer.text
        return StartResponse.model_validate_json(answer.content)

    def order(self, verb: str, *specs: AttemptSpec) -> ActionResponse:
        named = [AttemptId(task_id=spec.task_id, attempt=spec.attempt) for spec in specs]
        answer = self.http.post(f"/api/{verb}", content=AttemptsRequest(attempts=named).model_dump_json())
        assert answer.is_success, answer.text
        return ActionResponse.model_validate_json(answer.content)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.http.get(path, **options)

    def out(self, spec: AttemptSpec) -> bytes:
        path = self.shared / spec.stdout_path
        return path.read_bytes() if path.exists() else b""


@contextmanager
def stand_in(
    folder: Path, sections: settings.Sections | None = None
) -> Iterator[tuple[StandInHost, RealRunner]]:
    """A Host of a few lines, and a real Runner that is not started yet."""
    host = StandInHost()
    host.start()
    runner = RealRunner(folder, host, sections)
    try:
        yield host, runner
    finally:
        runner.daemon.kill()
        host.stop()
        if engine.why_not() is None:
            engine.remove_containers_of(runner.name)
