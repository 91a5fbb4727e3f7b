"""VPS: how they are reached by SSH, and the keys that open them."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from hakuriver.keys import parse_public_key
from hakuriver.models.base import PeerModel, StrictModel, Timestamp
from hakuriver.models.tasks import TaskSummary
from hakuriver.sizes import MAX_SECONDS


def _public_key(text: str) -> str:
    return parse_public_key(text).line


class KeyCreate(StrictModel):
    """Registers a public key of the caller's."""

    public_key: Annotated[str, AfterValidator(_public_key)]
    """A line of `authorized_keys`, without options."""
    label: Annotated[str, StringConstraints(max_length=128, pattern=r"^[^\x00-\x1f]*$")] = ""
    """What to call it; its comment unless given."""


class KeyInfo(PeerModel):
    """A public key that opens its user's VPS."""

    key_id: str
    user: str
    public_key: str
    fingerprint: str
    label: str = ""
    created_at: Timestamp


class GatewayInfo(PeerModel):
    """How the SSH gateway is reached, and known."""

    port: int
    host_key: str
    """Its public host key, as `known_hosts` has it."""


class VpsSummary(TaskSummary):
    """A VPS as a list shows it."""

    host_key: str
    """The public host key of its SSH server; the same for its whole life."""
    ends_at: Timestamp | None = None
    """When its time limit is over; none when it has none, or has not started."""
    shared_with: list[str] = []
    """Users who may enter it beside its owner."""


class VpsExtend(StrictModel):
    """Gives a VPS more time."""

    seconds: int = Field(ge=1, le=MAX_SECONDS)
    """By how much its time limit grows."""


class VpsRestore(StrictModel):
    """Has a VPS begin anew from one of its snapshots; what is in it now is gone."""

    version: int | None = Field(default=None, ge=0)
    """The number of the snapshot; none is the newest."""


class SshStart(PeerModel):
    """The first message to a Runner's door for SSH, as text; what follows are the connection's bytes."""

    host_key: str = Field(repr=False)
    """The VPS's private host key (PEM)."""
    authorized_keys: list[str]
    """The public keys that may log in now, without comments."""
