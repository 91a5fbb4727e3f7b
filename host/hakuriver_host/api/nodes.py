"""Nodes: what Runners say, and what people see of them."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.responses import Response

from hakuriver.errors import ConflictError, NotFoundError, StorageError
from hakuriver.models.nodes import (
    ClusterStatus,
    HealthHistory,
    LabelsRequest,
    NodeDuty,
    NodeInfo,
    NodeLabels,
)
from hakuriver.models.runner import (
    HeartbeatRequest,
    JoinRequest,
    JoinResponse,
    RegisterRequest,
    RegisterResponse,
    UpdateRequest,
    UpdateResponse,
)
from hakuriver.models.tasks import Message
from hakuriver_host.api.endpoint import Call, Endpoint
from hakuriver_host.services.access import Permission
from hakuriver_host.services.monitor import Monitor
from hakuriver_host.services.nodes import Nodes


class HealthQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    hostname: Annotated[str, StringConstraints(min_length=1, max_length=255)] | None = None


class RemoveQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    force: bool = Field(
        default=False, description="Also when it is online or holds attempts; these are given up as `lost`."
    )


def node_endpoints(nodes: Nodes, monitor: Monitor) -> list[Endpoint]:
    async def join(call: Call) -> JoinResponse:
        return await nodes.join(call.body)

    async def register(call: Call) -> RegisterResponse:
        return await nodes.register(call.body, call.principal)

    async def heartbeat(call: Call) -> Message:
        nodes.heartbeat(call.path["hostname"], call.body, call.principal)
        return Message(message="noted")

    async def update(call: Call) -> UpdateResponse:
        return await nodes.update(call.body, call.principal)

    async def list_nodes(call: Call) -> Response:
        del call
        return Response(nodes.list_json(), media_type="application/json")

    async def cordon(call: Call) -> NodeDuty:
        return await nodes.cordon(call.path["name"])

    async def uncordon(call: Call) -> NodeDuty:
        return await nodes.uncordon(call.path["name"])

    async def drain(call: Call) -> NodeDuty:
        return await nodes.cordon(call.path["name"], drain=True)

    async def label(call: Call) -> NodeLabels:
        return await nodes.label(call.path["name"], call.body.labels)

    async def remove_node(call: Call) -> Message:
        return await nodes.remove(call.path["name"], force=call.query.force)

    async def health(call: Call) -> HealthHistory:
        return monitor.health(call.query.hostname)

    async def cluster(call: Call) -> ClusterStatus:
        del call
        return await monitor.status()

    return [
        Endpoint(
            "PUT",
            "/api/heartbeat/{hostname}",
            heartbeat,
            Permission.NODE,
            "Send a sign of life",
            Message,
            body=HeartbeatRequest,
            errors=(NotFoundError,),
        ),
        Endpoint(
            "POST",
            "/api/update",
            update,
            Permission.NODE,
            "Report how attempts are",
            UpdateResponse,
            body=UpdateRequest,
            errors=(NotFoundError,),
        ),
        Endpoint(
            "POST",
            "/api/join",
            join,
            Permission.JOIN,
            "Get a node's own tokens",
            JoinResponse,
            body=JoinRequest,
            errors=(ConflictError,),
        ),
        Endpoint(
            "POST",
            "/api/register",
            register,
            Permission.NODE,
            "Register a Runner",
            RegisterResponse,
            body=RegisterRequest,
            errors=(NotFoundError,),
        ),
        Endpoint("GET", "/api/nodes", list_nodes, Permission.SEE, "List nodes", list[NodeInfo]),
        Endpoint(
            "POST",
            "/api/nodes/{name}/cordon",
            cordon,
            Permission.MANAGE,
            "Keep new attempts from a node",
            NodeDuty,
            errors=(NotFoundError, StorageError),
        ),
        Endpoint(
            "POST",
            "/api/nodes/{name}/uncordon",
            uncordon,
            Permission.MANAGE,
            "Let a node have work again",
            NodeDuty,
            errors=(NotFoundError, StorageError),
        ),
        Endpoint(
            "POST",
            "/api/nodes/{name}/drain",
            drain,
            Permission.MANAGE,
            "Cordon a node to empty it, and say what it still holds",
            NodeDuty,
            errors=(NotFoundError, StorageError),
        ),
        Endpoint(
            "POST",
            "/api/nodes/{name}/labels",
            label,
            Permission.MANAGE,
            "Change a node's labels",
            NodeLabels,
            body=LabelsRequest,
            errors=(NotFoundError, ConflictError, StorageError),
        ),
        Endpoint(
            "DELETE",
            "/api/nodes/{name}",
            remove_node,
            Permission.MANAGE,
            "Remove a node",
            Message,
            query=RemoveQuery,
            errors=(NotFoundError, ConflictError, StorageError),
        ),
        Endpoint(
            "GET",
            "/api/health",
            health,
            Permission.SEE,
            "Show the last minute of all nodes, or of one",
            HealthHistory,
            query=HealthQuery,
            errors=(NotFoundError,),
        ),
        Endpoint(
            "GET",
            "/api/cluster",
            cluster,
            Permission.SEE,
            "Show the cluster at a glance",
            ClusterStatus,
            errors=(StorageError,),
        ),
    ]
