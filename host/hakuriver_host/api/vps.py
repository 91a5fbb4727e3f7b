"""VPS: list, look, and how they are reached. They are submitted and controlled as tasks are."""

from __future__ import annotations

from hakuriver.errors import ConflictError, NotFoundError
from hakuriver.models.vps import GatewayInfo, VpsSummary
from hakuriver_host.api.endpoint import Call, Endpoint
from hakuriver_host.services.access import Permission
from hakuriver_host.ssh.vps import VpsDesk


def vps_endpoints(desk: VpsDesk) -> list[Endpoint]:
    async def every(call: Call) -> list[VpsSummary]:
        return await desk.all(call.principal, active=False)

    async def active(call: Call) -> list[VpsSummary]:
        return await desk.all(call.principal, active=True)

    async def one(call: Call) -> VpsSummary:
        return await desk.find(call.path["vps"], call.principal)

    async def gateway(call: Call) -> GatewayInfo:
        del call
        return desk.gateway()

    return [
        Endpoint("GET", "/api/vps", every, Permission.SEE, "List all VPS, newest first", list[VpsSummary]),
        Endpoint(
            "GET",
            "/api/vps/status",
            active,
            Permission.SEE,
            "List the VPS that have not ended",
            list[VpsSummary],
        ),
        Endpoint(
            "GET",
            "/api/vps/{vps}",
            one,
            Permission.SEE,
            "Show the VPS of an id, or the live one of a name",
            VpsSummary,
            errors=(NotFoundError,),
        ),
        Endpoint(
            "GET",
            "/api/ssh",
            gateway,
            Permission.SEE,
            "Say how the SSH gateway is reached",
            GatewayInfo,
            errors=(ConflictError,),
        ),
    ]
