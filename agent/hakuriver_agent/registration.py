"""Joins the cluster, registers, and sends heartbeats, for ever.

Nothing here gives up: a Host that is away, a wrong token or a node that the Host cannot call back are told in the log
and tried again. Each step is entered again when the Host asks for it: 404 for a new registration, 401 for joining.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from hakuriver.errors import (
    DeniedError,
    HakuRiverError,
    NotFoundError,
    UnauthenticatedError,
    UnreachableError,
    UsageError,
    VersionError,
)
from hakuriver.models.runner import (
    HeartbeatRequest,
    RegisterRequest,
    RegisterResponse,
    Verdict,
)
from hakuriver_agent.host import HostClient
from hakuriver_agent.tokens import Tokens

JOIN_TOKEN_VARIABLE = "HAKURIVER_JOIN_TOKEN"  # noqa: S105 - the name of a variable
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
REFUSED_PAUSE = 10.0
"""After a wrong token or version: a person must do something first."""
_PERSON = (UnauthenticatedError, DeniedError, VersionError, UsageError)

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Hooks:
    """What the registrar asks the rest of the Runner for."""

    register_request: Callable[[], Awaitable[RegisterRequest]]
    heartbeat_request: Callable[[], HeartbeatRequest]
    registered: Callable[[Sequence[Verdict]], Awaitable[None]]
    """The Host has decided on what it was told of; work may come."""
    answered: Callable[[], None]
    """The Host answers: what waits for it may go on."""
    accepted: Callable[[], None]
    """The Host found nothing wrong in what was registered."""
    changed: Callable[[], Awaitable[bool]]
    """Whether something is otherwise than it was registered."""


class Registrar:
    """The loop that keeps the Host informed."""

    def __init__(
        self,
        host: HostClient,
        tokens: Tokens,
        hooks: Hooks,
        runner_url: str,
        join_token_file: Path | None,
        heartbeat_interval: float,
    ) -> None:
        self._host = host
        self._tokens = tokens
        self._hooks = hooks
        self._runner_url = runner_url
        self._join_token_file = join_token_file
        self._interval = heartbeat_interval
        self._problem: str | None = None
        """Why the Host gives this node no work; looked at again with each heartbeat."""
        self._again = asyncio.Event()
        self._last_complaint = ""

    def ask(self) -> None:
        """Something in the Host's answers calls for a new registration."""
        self._again.set()

    async def run(self) -> None:
        """Never returns."""
        pause = FIRST_PAUSE
        while True:
            try:
                if not self._tokens.joined:
                    await self._join()
                await self._register()
                pause = FIRST_PAUSE
                await self._heartbeats()
            except HakuRiverError as error:
                self._complain(error)
                if isinstance(error, UnauthenticatedError) and self._tokens.joined:
                    self._tokens.drop()
                    continue
                wait = REFUSED_PAUSE if isinstance(error, _PERSON) else pause
                pause = min(LONGEST_PAUSE, pause * 2)
                await asyncio.sleep(wait * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load

    def _complain(self, error: HakuRiverError) -> None:
        """Says each problem once, not at every try."""
        if error.message != self._last_complaint:
            self._last_complaint = error.message
            log.warning(f"not registered: {error.message}", hint=error.hint or None)

    async def _join(self) -> None:
        token = self._join_token()
        response = await self._host.join(token, self._runner_url)
        self._tokens.keep(response)
        log.info("joined the cluster")

    def _join_token(self) -> str:
        if given := os.environ.get(JOIN_TOKEN_VARIABLE, "").strip():
            return given
        if self._join_token_file is None:
            raise UnreachableError(
                "this Runner has not joined a cluster yet, and has no join token",
                f"set runner.join_token_file or {JOIN_TOKEN_VARIABLE}; the Host keeps it as join.token",
            )
        try:
            return self._join_token_file.expanduser().read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UnreachableError(
                f"cannot read the join token in {self._join_token_file}: {error}",
                "set runner.join_token_file",
            ) from None

    async def _register(self) -> None:
        self._again.clear()
        request = await self._hooks.register_request()
        response = await self._host.register(self._tokens.node, request)
        self._interval = response.heartbeat_interval_seconds
        self._last_complaint = ""
        self._tell(response, request)
        self._problem = response.problem or (None if response.reachable else "the Host cannot reach it")
        if not self._problem:
            self._hooks.accepted()
        await self._hooks.registered(response.verdicts)
        self._hooks.answered()

    def _tell(self, response: RegisterResponse, request: RegisterRequest) -> None:
        if response.problem:
            if response.problem == self._problem:
                return
            if response.reachable:
                log.warning("registered, but this node gets no work", problem=response.problem)
            else:
                log.warning(
                    f"the Host cannot reach this Runner at {self._runner_url}: it gets no work",
                    problem=response.problem,
                    hint="check network.runner_address, runner_port and the firewall",
                )
        else:
            log.info(
                "registered",
                host=response.message,
                engines=request.engines,
                notes=request.engine_notes or None,
            )

    async def _heartbeats(self) -> None:
        """Until a new registration is called for."""
        pause, failing = FIRST_PAUSE, False
        wait = self._interval
        while not await self._asked_within(wait):
            try:
                await self._host.heartbeat(self._tokens.node, self._hooks.heartbeat_request())
            except NotFoundError:
                log.info("the Host asks for a new registration")
                return
            except UnreachableError as error:
                if not failing:
                    log.warning(error.message)
                failing, wait = True, min(pause, self._interval)
                pause = min(LONGEST_PAUSE, pause * 2)
                continue
            if failing:
                log.info("the Host answers again")
            pause, failing, wait = FIRST_PAUSE, False, self._interval
            self._hooks.answered()
            if self._problem or await self._hooks.changed():
                return

    async def _asked_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._again.wait(), seconds)
        except TimeoutError:
            return False
        return True
