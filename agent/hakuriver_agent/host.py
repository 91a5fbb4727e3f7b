"""The client to the Host: what a Runner says to it."""

from __future__ import annotations

import ssl
from types import TracebackType
from typing import Self, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from hakuriver.config import Settings
from hakuriver.errors import (
    HakuRiverError,
    InternalError,
    StorageError,
    UnreachableError,
    from_body,
)
from hakuriver.models.errors import ErrorBody
from hakuriver.models.runner import (
    AttemptReport,
    HeartbeatRequest,
    JoinRequest,
    JoinResponse,
    RegisterRequest,
    RegisterResponse,
    UpdateRequest,
    UpdateResponse,
)
from hakuriver.models.tasks import Message
from hakuriver.version import VERSION_HEADER, __version__

SECONDS = 15.0
REGISTER_SECONDS = 60.0
"""Registering includes the Host's call back to this Runner."""

Answer = TypeVar("Answer", bound=BaseModel)


class HostClient:
    """Every method raises a `HakuRiverError`: `UnreachableError`, or what the Host answered."""

    def __init__(
        self,
        url: str,
        hostname: str,
        verify: ssl.SSLContext | bool = True,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._hostname = hostname
        self._url = url
        self._client = httpx.AsyncClient(
            base_url=url,
            verify=verify,
            transport=transport,
            timeout=SECONDS,
            headers={VERSION_HEADER: __version__, "Content-Type": "application/json"},
            trust_env=False,
        )

    @classmethod
    def of(cls, settings: Settings) -> HostClient:
        return cls(settings.host_url, settings.runner.name, _verify(settings))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def join(self, join_token: str, runner_url: str) -> JoinResponse:
        request = JoinRequest(hostname=self._hostname, runner_url=runner_url)
        return await self._call("POST", "/api/join", request, join_token, JoinResponse)

    async def register(self, node_token: str, request: RegisterRequest) -> RegisterResponse:
        return await self._call(
            "POST", "/api/register", request, node_token, RegisterResponse, timeout=REGISTER_SECONDS
        )

    async def heartbeat(self, node_token: str, request: HeartbeatRequest) -> None:
        await self._call("PUT", f"/api/heartbeat/{self._hostname}", request, node_token, Message)

    async def update(self, node_token: str, reports: list[AttemptReport]) -> UpdateResponse:
        request = UpdateRequest(hostname=self._hostname, reports=reports)
        return await self._call("POST", "/api/update", request, node_token, UpdateResponse)

    async def _call(
        self,
        method: str,
        path: str,
        body: BaseModel,
        token: str,
        kind: type[Answer],
        timeout: float = SECONDS,
    ) -> Answer:
        try:
            response = await self._client.request(
                method,
                path,
                content=body.model_dump_json(),
                headers={"Authorization": f"Bearer {token}"},
                timeout=timeout,
            )
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise UnreachableError(
                f"the Host does not answer at {self._url}: {reason}",
                "check network.host_reachable_address and host_port, and that the Host runs",
            ) from None
        if response.is_success:
            try:
                return kind.model_validate_json(response.content)
            except ValidationError as error:
                raise InternalError(f"the Host's answer to {path} is not understood: {error}") from None
        raise _error(response)


def _error(response: httpx.Response) -> HakuRiverError:
    try:
        return from_body(ErrorBody.model_validate_json(response.content))
    except ValidationError:
        return InternalError(f"the Host answered {response.status_code} without saying why")


def _verify(settings: Settings) -> ssl.SSLContext | bool:
    if settings.tls.ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=str(settings.tls.ca_file.expanduser()))
    except OSError as error:
        raise StorageError(
            f"cannot read the certificates in {settings.tls.ca_file}: {error}",
            "set tls.ca_file to a PEM file",
        ) from None
