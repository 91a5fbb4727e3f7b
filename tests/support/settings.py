"""Writes configuration files for clusters of the tests' own: short intervals, own folders, free ports."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import tomlkit

from hakuriver.config import Timing

Sections = Mapping[str, Mapping[str, object]]

QUICK: Sections = {
    "timing": {
        "heartbeat_interval": 0.5,
        "heartbeat_timeout_factor": 6,
        "cleanup_check_interval": 0.2,
        "resource_check_interval": 0.5,
        "terminal_wait": 3,
    },
    "runner": {"kill_grace_seconds": 1.0, "allow_any_user": True},
}
"""A node is offline after 3 seconds of silence, a task that ignores SIGTERM lives one more second, and a terminal whose
client was killed three. Tasks without container run as whoever runs the tests, as with `hakuriver up`."""

AS_SHIPPED: Sections = {"timing": Timing().model_dump()}
"""The intervals that users have, for what is measured: ten times as many heartbeats would be measured with it."""


def merged(*layers: Sections) -> dict[str, dict[str, object]]:
    """The sections of all layers; a later one goes before an earlier one."""
    result: dict[str, dict[str, object]] = {}
    for layer in layers:
        for section, values in layer.items():
            result.setdefault(section, {}).update(values)
    return result


def write(path: Path, sections: Sections) -> Path:
    """Writes them as TOML. Paths become text."""
    plain = {
        section: {key: str(value) if isinstance(value, Path) else value for key, value in values.items()}
        for section, values in sections.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(tomlkit.dumps(plain), "utf-8")
    return path
