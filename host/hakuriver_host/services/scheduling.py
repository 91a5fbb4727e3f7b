"""From the settings to what the domain knows of users: their shares and their limits."""

from __future__ import annotations

from collections.abc import Iterable

from hakuriver.config import Scheduling, UserLimits
from hakuriver_host.db.repository import LoadedState
from hakuriver_host.domain.model import CORES, GPUS, MEMORY, TASKS
from hakuriver_host.domain.turns import NO_LIMIT, Limit, Limits, Shares
from hakuriver_host.services.core import clock

_DAY = 86_400.0


def shares_of(settings: Scheduling, loaded: LoadedState) -> Shares:
    shares = Shares(settings.fair_share_half_life_days * _DAY or None, settings.user_weights)
    now = clock()
    shares.resume(loaded.held, now.wall - loaded.held_at, now.mono)
    return shares


def limits_of(settings: Scheduling) -> Limits:
    most = {
        CORES: settings.max_cores_per_user,
        MEMORY: settings.max_memory_bytes_per_user,
        GPUS: settings.max_gpus_per_user,
        TASKS: settings.max_running_per_user,
    }
    of_each = Limit(
        {name: limit for name, limit in most.items() if limit is not None}, settings.max_waiting_per_user
    )
    users = {name: _limit(limits, name, of_each) for name, limits in settings.user_limits.items()}
    groups = tuple(
        _limit(limits, f"the group {name}", members=limits.members)
        for name, limits in settings.group_limits.items()
    )
    return Limits(of_each.held, of_each.waiting, users, groups)


def _limit(
    settings: UserLimits, whose: str, otherwise: Limit = NO_LIMIT, members: Iterable[str] = ()
) -> Limit:
    """What the settings say, and where they say nothing what is so otherwise."""
    said = {
        CORES: settings.cores,
        MEMORY: settings.memory_bytes,
        GPUS: settings.gpus,
        TASKS: settings.running,
    }
    held = {**otherwise.held, **{name: most for name, most in said.items() if most is not None}}
    waiting = otherwise.waiting if settings.waiting is None else settings.waiting
    return Limit(held, waiting, whose, frozenset(members))
