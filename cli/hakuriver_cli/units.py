"""systemd units for Host and Runner, as text: pure, so that a test reads what would be installed.

The Runner's unit ends only its main process (`KillMode=process`): tasks outlive it. The Host is confined to its own
directories; the Runner is not, because tasks without container are its children and may need the machine.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Role = Literal["host", "runner"]

_MODULE = {"host": "hakuriver_host", "runner": "hakuriver_agent"}
_DESCRIPTION = {
    "host": "HakuRiver Host: the coordinator of a cluster",
    "runner": "HakuRiver Runner: runs the tasks of a cluster on this machine",
}
_CONFINED = (
    "ProtectSystem=strict",
    "ProtectHome=read-only",
    "PrivateDevices=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "ProtectControlGroups=yes",
    "ProtectClock=yes",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "LockPersonality=yes",
    "CapabilityBoundingSet=CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER",
)
_GROWN = ("KillMode=process", "Delegate=yes", "OOMPolicy=continue", "TasksMax=infinity")


@dataclass(frozen=True, slots=True)
class UnitPlan:
    """What a unit needs to know. `writes` are the folders that the daemon writes to."""

    role: Role
    python: str
    config: Path
    user: str
    group: str
    shared_dir: Path
    writes: tuple[Path, ...] = ()

    @property
    def file_name(self) -> str:
        return f"hakuriver-{self.role}.service"


def unit_text(plan: UnitPlan) -> str:
    return "\n".join(
        (
            "[Unit]",
            f"Description={_DESCRIPTION[plan.role]}",
            "Wants=network-online.target",
            "After=network-online.target docker.service",
            f"RequiresMountsFor={_quoted(plan.shared_dir)}",
            "StartLimitIntervalSec=0",
            "",
            "[Service]",
            "Type=notify",
            "NotifyAccess=main",
            f"User={plan.user}",
            f"Group={plan.group}",
            f"ExecStart={_quoted(plan.python)} -m {_MODULE[plan.role]} --config {_quoted(plan.config)}",
            "Restart=always",
            "RestartSec=2",
            "TimeoutStartSec=infinity",
            "LimitNOFILE=65536",
            *_role_lines(plan),
            "",
            "[Install]",
            "WantedBy=multi-user.target",
            "",
        )
    )


def _role_lines(plan: UnitPlan) -> Iterable[str]:
    if plan.role == "runner":
        return _GROWN
    return (
        "NoNewPrivileges=yes",
        *_CONFINED,
        *(() if any(_is_temporary(path) for path in plan.writes) else ("PrivateTmp=yes",)),
        *(f"ReadWritePaths=-{_quoted(path)}" for path in plan.writes),
    )


def _is_temporary(path: Path) -> bool:
    return any(path.is_relative_to(root) for root in ("/tmp", "/var/tmp"))  # noqa: S108  (read, not written)


def _quoted(value: Path | str) -> str:
    """As systemd reads it: quotes around blanks, and `%` doubled."""
    text = str(value).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{text}"' if any(char in text for char in " \t'\"") else text
