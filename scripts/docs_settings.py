"""The table of settings, from their model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from docs_tables import row
from pydantic import BaseModel

from hakuriver.config import Settings

USED_BY = {
    "network.host_bind_ip": "Host",
    "network.host_port": "Host, Runner, client",
    "network.host_ssh_proxy_port": "Host",
    "network.host_reachable_address": "Runner, client",
    "network.runner_bind_ip": "Runner",
    "network.runner_address": "Runner (it tells the Host)",
    "network.runner_port": "Runner",
    "tls.cert_file": "Host, Runner",
    "tls.key_file": "Host, Runner",
    "tls.ca_file": "Host, Runner, client",
    "paths.shared_dir": "Host, Runner",
    "paths.local_temp_dir": "Runner",
    "paths.state_dir": "Host, Runner, client (on the Host's machine)",
    "paths.numactl_path": "Runner",
    "paths.host_log_file": "Host",
    "paths.runner_log_file": "Runner",
    "database.db_file": "Host",
    "database.url": "Host",
    "timing.heartbeat_interval": "Host (it tells the Runners), Runner",
    "timing.heartbeat_timeout_factor": "Host",
    "timing.cleanup_check_interval": "Host",
    "timing.resource_check_interval": "Runner",
    "timing.lost_after": "Host",
    "timing.terminal_wait": "Host (of env containers), Runner (of tasks)",
    "environment.runner_user": "Runner",
    "docker.container_dir": "Host, Runner",
    "docker.default_container_name": "Host",
    "docker.initial_base_image": "Host",
    "docker.tasks_privileged": "Host",
    "docker.additional_mounts": "Host",
    "docker.socket": "Host, Runner",
    "docker.keep_versions": "Host",
    "docker.keep_days": "Host",
    "host.max_request_bytes": "Host",
    "host.final_task_days": "Host",
    "scheduling.placement": "Host",
    "scheduling.pin_cores": "Host",
    "scheduling.fair_share_half_life_days": "Host",
    "scheduling.user_weights": "Host",
    "scheduling.max_cores_per_user": "Host",
    "scheduling.max_memory_bytes_per_user": "Host",
    "scheduling.max_gpus_per_user": "Host",
    "scheduling.max_running_per_user": "Host",
    "scheduling.max_waiting_per_user": "Host",
    "scheduling.user_limits": "Host",
    "scheduling.group_limits": "Host",
    "runner.name": "Runner",
    "runner.cores": "Runner",
    "runner.memory_bytes": "Runner",
    "runner.allow_privileged": "Runner",
    "runner.allowed_mount_roots": "Runner",
    "runner.gpu_access": "Runner",
    "runner.tasks_per_gpu": "Runner",
    "runner.network": "Runner",
    "runner.allowed_networks": "Runner",
    "runner.run_as_owner": "Runner",
    "runner.allow_any_user": "Runner",
    "runner.log_max_bytes": "Runner",
    "runner.kill_grace_seconds": "Runner",
    "runner.labels": "Runner",
    "runner.join_token_file": "Runner",
    "runner.environment_cache_bytes": "Runner",
    "runner.parallel_starts": "Runner",
    "client.url": "client, Runner",
    "client.token_file": "client",
    "client.timeout": "client",
}
"""Which part reads each setting. A new setting stands here before the page can be made."""

_DEFAULTS = {
    "paths.state_dir": "`hakuriver` in the user's state directory (`~/.local/state`)",
    "runner.name": "the machine's host name",
}
"""Defaults that differ from machine to machine."""


def settings() -> str:
    lines = []
    for section, field in Settings.model_fields.items():
        model: type[BaseModel] = field.annotation  # type: ignore[assignment]
        lines += [
            f"## [{section}]",
            "",
            "| setting | type | default | used by | meaning |",
            "|---|---|---|---|---|",
        ]
        lines += [_setting(f"{section}.{key}", info) for key, info in model.model_fields.items()]
        lines.append("")
    return "\n".join(lines)


def _setting(name: str, info: Any) -> str:
    default = _DEFAULTS.get(name) or _default(info)
    cells = (f"`{name}`", _setting_type(info), default, USED_BY[name], info.description)
    return row(cells)


def _setting_type(info: Any) -> str:
    limits = " ".join(_limit(part) for part in info.metadata if _limit(part))
    return f"{_type(info.annotation)}{f', {limits}' if limits else ''}"


def _limit(part: Any) -> str:
    for attribute, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<")):
        if hasattr(part, attribute):
            return f"{sign} {getattr(part, attribute):g}"
    return ""


def _type(kind: Any) -> str:
    names = {
        str: "text",
        int: "number",
        float: "number",
        bool: "true or false",
        Path: "path",
        type(None): "none",
    }
    if kind in names:
        return names[kind]
    arguments = get_args(kind)
    if getattr(kind, "__origin__", None) is list:
        return f"list of {_type(arguments[0])}"
    if get_origin(kind) is Annotated:
        return _type(arguments[0])
    if getattr(kind, "__origin__", None) is dict:
        return f"table of {_type(arguments[1])}"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "tables"
    if arguments and all(isinstance(argument, str) for argument in arguments):
        return ", ".join(f"`{argument}`" for argument in arguments)
    return " or ".join(_type(argument) for argument in arguments)


def _default(info: Any) -> str:
    value = info.get_default(call_default_factory=True)
    if value is None:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if value in ("", []):
        return "empty"
    if isinstance(value, list):
        return "`[" + ", ".join(f'"{item}"' for item in value) + "]`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"
