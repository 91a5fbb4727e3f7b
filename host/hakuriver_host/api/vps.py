"""VPS: list, look, and how they are reached. They are submitted and controlled as tasks are."""

from __future__ import annotations

from hakuriver.errors import ConflictError, NotFoundError, StorageError, UnreachableError
from hakuriver.models.environments import PackRequest, PackResult, VersionInfo
from hakuriver.models.tasks import Message
from hakuriver.models.vps import GatewayInfo, VpsExtend, VpsRestore, VpsSummary
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

    async def stop(call: Call) -> Message:
        return await desk.stop(call.path["vps"], call.principal)

    async def start(call: Call) -> Message:
        return await desk.start_again(call.path["vps"], call.principal)

    async def extend(call: Call) -> Message:
        return await desk.extend(call.path["vps"], call.body.seconds, call.principal)

    async def snapshot(call: Call) -> PackResult:
        return await desk.snapshot(call.path["vps"], call.body.message, call.principal)

    async def snapshots(call: Call) -> list[VersionInfo]:
        return await desk.snapshots(call.path["vps"], call.principal)

    async def restore(call: Call) -> Message:
        return await desk.restore(call.path["vps"], call.body.version, call.principal)

    async def share(call: Call) -> Message:
        user = call.path["user"]
        task_id = await desk.share(call.path["vps"], user, call.principal)
        return Message(message=f"VPS {task_id} is shared with {user}")

    async def unshare(call: Call) -> Message:
        user = call.path["user"]
        task_id = await desk.unshare(call.path["vps"], user, call.principal)
        return Message(message=f"VPS {task_id} is not shared with {user}")

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
            "POST",
            "/api/vps/{vps}/stop",
            stop,
            Permission.OWN,
            "Stop a VPS and keep what is in it",
            Message,
            errors=(NotFoundError, ConflictError, UnreachableError),
        ),
        Endpoint(
            "POST",
            "/api/vps/{vps}/start",
            start,
            Permission.OWN,
            "Start a stopped VPS again",
            Message,
            errors=(NotFoundError, ConflictError),
        ),
        Endpoint(
            "POST",
            "/api/vps/{vps}/extend",
            extend,
            Permission.OWN,
            "Give a VPS with a time limit more time",
            Message,
            body=VpsExtend,
            errors=(NotFoundError, ConflictError, UnreachableError),
        ),
        Endpoint(
            "GET",
            "/api/vps/{vps}/snapshots",
            snapshots,
            Permission.OWN,
            "List the snapshots of a VPS, newest first",
            list[VersionInfo],
            errors=(NotFoundError, ConflictError),
        ),
        Endpoint(
            "POST",
            "/api/vps/{vps}/snapshots",
            snapshot,
            Permission.OWN,
            "Keep what is in a VPS now as a version of an environment",
            PackResult,
            body=PackRequest,
            errors=(NotFoundError, ConflictError, StorageError, UnreachableError),
        ),
        Endpoint(
            "POST",
            "/api/vps/{vps}/restore",
            restore,
            Permission.OWN,
            "Have a VPS begin anew from one of its snapshots",
            Message,
            body=VpsRestore,
            errors=(NotFoundError, ConflictError),
        ),
        Endpoint(
            "PUT",
            "/api/vps/{vps}/users/{user}",
            share,
            Permission.OWN,
            "Let another user into a VPS",
            Message,
            errors=(NotFoundError, ConflictError),
        ),
        Endpoint(
            "DELETE",
            "/api/vps/{vps}/users/{user}",
            unshare,
            Permission.OWN,
            "Let a user into a VPS no more, and end their connections",
            Message,
            errors=(NotFoundError, ConflictError),
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
