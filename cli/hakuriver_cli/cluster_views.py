"""What lists of nodes, environments, users and tokens show, and the state of the cluster."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from hakuriver.labels import as_text
from hakuriver.sizes import format_size
from hakuriver.states import NodeState
from hakuriver_cli.cells import degrees, number, percent, size, time
from hakuriver_cli.output import Column, View

if TYPE_CHECKING:
    from hakuriver.models.access import TokenCreated, TokenInfo, UserInfo, WhoAmI
    from hakuriver.models.nodes import ClusterStatus, NodeDuty, NodeInfo, NodeLabels, NodeSample
    from hakuriver.models.vps import KeyInfo
    from hakuriver_cli.records import EnvironmentRow, Told, VersionRow


_PROBLEM_WIDTH = 60


def _node_style(node: NodeInfo) -> str:
    if node.status is NodeState.OFFLINE:
        return "red"
    return "yellow" if node.problem or not node.schedulable else "green"


def _node_state(node: NodeInfo) -> str:
    if node.draining:
        return f"{node.status} ({'draining' if node.running_tasks else 'drained'})"
    if node.cordoned:
        return f"{node.status} (cordoned)"
    return str(node.status) if node.schedulable else f"{node.status} (gets no work)"


def _gpus(node: NodeInfo) -> str:
    return f"{len(node.gpu_tasks)}/{len(node.gpu_info)}" if node.gpu_info else "0"


NODES: View[NodeInfo] = View(
    name=lambda node: node.hostname,
    columns=[
        Column("NODE", lambda node: node.hostname),
        Column("STATE", _node_state, style=_node_style),
        Column("CORES", lambda node: f"{node.cores_in_use}/{node.total_cores}", right=True),
        Column(
            "MEMORY",
            lambda node: f"{format_size(node.memory_in_use_bytes)}/{format_size(node.total_memory_bytes)}",
            right=True,
        ),
        Column("TASKS", lambda node: str(node.running_tasks), right=True),
        Column("GPUS", _gpus, right=True),
        Column("CPU", lambda node: percent(node.cpu_percent), right=True),
        Column("RAM", lambda node: percent(node.memory_percent), right=True),
        Column("PROBLEM", lambda node: node.problem, limit=_PROBLEM_WIDTH),
        Column("URL", lambda node: node.url, wide=True),
        Column("VERSION", lambda node: node.version, wide=True),
        Column("ENGINES", lambda node: ",".join(node.engines), wide=True),
        Column("LABELS", lambda node: as_text(node.labels), wide=True),
        Column("NUMA", lambda node: str(len(node.numa_topology or {})), wide=True, right=True),
        Column("TEMPERATURE", lambda node: degrees(node.current_max_temp), wide=True, right=True),
        Column("LAST HEARTBEAT", lambda node: time(node.last_heartbeat), wide=True),
    ],
)

DUTIES: View[NodeDuty] = View(
    name=lambda duty: duty.hostname,
    columns=[
        Column("NODE", lambda duty: duty.hostname),
        Column("RESULT", lambda duty: duty.message),
        Column("HOLDS", lambda duty: " ".join(map(str, duty.held_tasks)), limit=_PROBLEM_WIDTH),
    ],
)

LABELS: View[NodeLabels] = View(
    name=lambda node: node.hostname,
    columns=[
        Column("NODE", lambda node: node.hostname),
        Column("LABELS", lambda node: as_text(node.labels)),
    ],
)

SAMPLES: View[NodeSample] = View(
    name=lambda sample: sample.hostname,
    columns=[
        Column("NODE", lambda sample: sample.hostname),
        Column("STATE", lambda sample: str(sample.status)),
        Column("CPU", lambda sample: percent(sample.cpu_percent), right=True),
        Column("RAM", lambda sample: percent(sample.memory_percent), right=True),
        Column("USED", lambda sample: size(sample.memory_used_bytes), right=True),
        Column("OF", lambda sample: size(sample.memory_total_bytes), right=True),
        Column("TEMPERATURE", lambda sample: degrees(sample.current_max_temp), right=True),
        Column("GPUS", lambda sample: str(len(sample.gpu_info)), right=True),
        Column("AT", lambda sample: time(sample.time)),
    ],
)

CLUSTER: View[ClusterStatus] = View(
    name=lambda cluster: cluster.version,
    columns=[
        Column("HOST VERSION", lambda cluster: cluster.version),
        Column("NODES", lambda cluster: f"{cluster.nodes_online} online of {cluster.nodes_total}"),
        Column("CORES", lambda cluster: f"{cluster.cores_in_use} of {cluster.cores_total} held"),
        Column(
            "MEMORY",
            lambda cluster: (
                f"{format_size(cluster.memory_in_use_bytes)} of"
                f" {format_size(cluster.memory_total_bytes)} held"
            ),
        ),
        Column(
            "TASKS",
            lambda cluster: (
                ", ".join(f"{count} {state}" for state, count in cluster.tasks.items() if count)
                or "none in the last 24 hours"
            ),
        ),
        Column(
            "ENVIRONMENT",
            lambda cluster: (
                cluster.default_environment
                + (" (ready)" if cluster.default_environment_ready else " (not there yet)")
            ),
        ),
        Column("PROBLEMS", lambda cluster: "\n".join(cluster.problems), wide=True, style=lambda _: "red"),
    ],
)


ENVIRONMENTS: View[EnvironmentRow] = View(
    name=lambda row: row.name,
    columns=[
        Column("ENVIRONMENT", lambda row: row.name),
        Column("VERSION", lambda row: str(row.timestamp)),
        Column("MADE", lambda row: time(datetime.fromtimestamp(row.timestamp, UTC))),
        Column("NEWEST", lambda row: "yes" if row.latest else ""),
        Column("ARCHIVE", lambda row: row.tarball),
    ],
)

USERS: View[UserInfo] = View(
    name=lambda user: user.name,
    columns=[
        Column("USER", lambda user: user.name),
        Column("ROLE", lambda user: str(user.role)),
        Column("UID", lambda user: number(user.uid), right=True),
        Column("GID", lambda user: number(user.gid), right=True),
        Column("SINCE", lambda user: time(user.created_at)),
    ],
)

TOKENS: View[TokenInfo] = View(
    name=lambda token: token.token_id,
    columns=[
        Column("TOKEN ID", lambda token: token.token_id),
        Column("KIND", lambda token: token.kind),
        Column("OF", lambda token: token.user or token.node or ""),
        Column("LABEL", lambda token: token.label),
        Column("MADE", lambda token: time(token.created_at)),
        Column("EXPIRES", lambda token: time(token.expires_at) if token.expires_at else "never"),
    ],
)

KEYS: View[KeyInfo] = View(
    name=lambda key: key.key_id,
    columns=[
        Column("KEY ID", lambda key: key.key_id),
        Column("OF", lambda key: key.user),
        Column("LABEL", lambda key: key.label),
        Column("FINGERPRINT", lambda key: key.fingerprint),
        Column("ADDED", lambda key: time(key.created_at)),
    ],
)

NEW_TOKEN: View[TokenCreated] = View(
    name=lambda token: token.token,
    columns=[
        Column("TOKEN", lambda token: token.token),
        Column("TOKEN ID", lambda token: token.token_id),
        Column("KIND", lambda token: token.kind),
        Column("OF", lambda token: token.user or ""),
        Column("EXPIRES", lambda token: time(token.expires_at) if token.expires_at else "never"),
    ],
)

TOLD: View[Told] = View(
    name=lambda told: told.name,
    columns=[Column("NAME", lambda told: told.name), Column("RESULT", lambda told: told.message)],
)

WHOAMI: View[WhoAmI] = View(
    name=lambda who: who.name,
    columns=[Column("USER", lambda who: who.name), Column("ROLE", lambda who: str(who.role))],
)

VERSION: View[VersionRow] = View(
    name=lambda row: row.client,
    columns=[
        Column("CLIENT", lambda row: row.client),
        Column("HOST", lambda row: row.host or "not reached"),
        Column("URL", lambda row: row.url),
    ],
)
