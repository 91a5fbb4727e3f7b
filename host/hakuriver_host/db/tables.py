"""The tables. Rows are not wire models: times are Unix milliseconds, lists and maps are JSON text.

Big integers throughout, so that SQLite and PostgreSQL hold the same.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Text, UniqueConstraint
from sqlalchemy import false as sa_false
from sqlmodel import Field, SQLModel


def _big(*, primary_key: bool = False, nullable: bool = False, index: bool = False) -> Column[int]:
    return Column(BigInteger, primary_key=primary_key, nullable=nullable, index=index, autoincrement=False)


class BatchRow(SQLModel, table=True):
    """One submission."""

    __tablename__ = "batch"
    __table_args__ = (UniqueConstraint("owner", "idempotency_key", name="uq_batch_key"),)

    batch_id: int = Field(sa_column=_big(primary_key=True))
    owner: str
    submitted_at: int = Field(sa_column=_big())
    spec: str = Field(sa_column=Column(Text, nullable=False))
    """The `SubmitRequest` as JSON, without its targets."""
    environment: str | None = None
    environment_version: str | None = None
    default_user: str | None = None
    awaits: str = Field(default="", sa_column=Column(Text, nullable=False, server_default=""))
    """What its tasks are to run after and has not ended, separated by commas."""
    failed_targets: str = Field(default="[]", sa_column=Column(Text, nullable=False))
    idempotency_key: str | None = None
    request_digest: str = ""
    """SHA-256 of the request, to tell a repeated one from another under the same key."""


class TaskRow(SQLModel, table=True):
    """One task."""

    __tablename__ = "task"
    __table_args__ = (Index("ix_task_state", "state", "task_id"), Index("ix_task_owner", "owner", "task_id"))

    task_id: int = Field(sa_column=_big(primary_key=True))
    batch_id: int = Field(sa_column=_big(index=True))
    owner: str
    name: str | None = None
    task_type: str = Field(default="command", sa_column_kwargs={"server_default": "command"})
    index: int = 0
    target: str | None = None
    state: str
    attempt: int = 0
    node: str | None = Field(default=None, index=True)
    gpus: str = Field(default="[]", sa_column=Column(Text, nullable=False, server_default="[]"))
    """Those that the latest attempt was given: UUID, number and model of each, as JSON."""
    cpus: str = Field(default="", sa_column=Column(Text, nullable=False, server_default=""))
    """The cores that the latest attempt was given, in the kernel's list format, such as `0-3,8`."""
    usage: str = Field(default="", sa_column=Column(Text, nullable=False, server_default=""))
    """What the latest attempt used, as JSON; empty while that is not known."""
    sequence: int = -1
    closed: bool = True
    run: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    retries: int = 0
    priority: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    held: bool = Field(default=False, sa_column_kwargs={"server_default": sa_false()})
    not_before: int | None = Field(default=None, sa_column=_big(nullable=True))
    kill_requested: bool = False
    preempting: bool = Field(default=False, sa_column_kwargs={"server_default": sa_false()})
    """Its attempt is being ended to make room, and it is to wait again."""
    excluded: str = ""
    """Nodes that refused it, separated by commas."""
    reason: str = Field(default="", sa_column=Column(Text, nullable=False))
    exit_code: int | None = Field(default=None, sa_column=_big(nullable=True))
    message: str | None = Field(default=None, sa_column=Column(Text))
    image: str | None = None
    unit_name: str | None = None
    submitted_at: int = Field(sa_column=_big())
    started_at: int | None = Field(default=None, sa_column=_big(nullable=True))
    completed_at: int | None = Field(default=None, sa_column=_big(nullable=True))


class EventRow(SQLModel, table=True):
    """One change of a task's state."""

    __tablename__ = "event"

    sequence: int = Field(sa_column=_big(primary_key=True))
    time: int = Field(sa_column=_big())
    task_id: int = Field(sa_column=_big(index=True))
    batch_id: int = Field(sa_column=_big(index=True))
    attempt: int
    state: str
    node: str | None = None
    cause: str = Field(default="", sa_column=Column(Text, nullable=False))
    exit_code: int | None = Field(default=None, sa_column=_big(nullable=True))


class NodeRow(SQLModel, table=True):
    """A node, as it last registered."""

    __tablename__ = "node"

    name: str = Field(primary_key=True)
    nonce: str
    """Of the node's control token; a new join makes a new one."""
    url: str = ""
    version: str = ""
    journal_id: str = ""
    capacity: str = "{}"
    engines: str = "[]"
    engine_notes: str = Field(default="{}", sa_column=Column(Text, nullable=False))
    numa_topology: str | None = Field(default=None, sa_column=Column(Text))
    gpu_info: str = Field(default="[]", sa_column=Column(Text, nullable=False))
    problem: str = Field(default="", sa_column=Column(Text, nullable=False))
    online: bool = False
    cordoned: bool = False
    draining: bool = False
    labels: str = Field(default="{}", sa_column=Column(Text, nullable=False, server_default="{}"))
    """Those that an admin gave or took (null), as JSON."""
    own_labels: str = Field(default="{}", sa_column=Column(Text, nullable=False, server_default="{}"))
    """Those that its Runner's configuration has."""
    last_heartbeat: int | None = Field(default=None, sa_column=_big(nullable=True))
    joined_at: int = Field(sa_column=_big())


class UserRow(SQLModel, table=True):
    """A person (or a program) that the Host knows."""

    __tablename__ = "user_account"

    name: str = Field(primary_key=True)
    role: str
    uid: int | None = Field(default=None, sa_column=_big(nullable=True))
    gid: int | None = Field(default=None, sa_column=_big(nullable=True))
    created_at: int = Field(sa_column=_big())


class TokenRow(SQLModel, table=True):
    """A token's hash, and whose it is."""

    __tablename__ = "token"

    token_id: str = Field(primary_key=True)
    token_hash: str = Field(unique=True)
    """SHA-256: the tokens are 256 random bits, so nothing slower is needed."""
    kind: str
    user_name: str | None = None
    node: str | None = None
    label: str = ""
    created_at: int = Field(sa_column=_big())
    expires_at: int | None = Field(default=None, sa_column=_big(nullable=True))


class PublicKeyRow(SQLModel, table=True):
    """A user's public key."""

    __tablename__ = "public_key"

    key_id: str = Field(primary_key=True)
    user_name: str
    public_key: str = Field(sa_column=Column(Text, nullable=False))
    """As `authorized_keys` has it."""
    label: str = ""
    created_at: int = Field(sa_column=_big())


class ShareRow(SQLModel, table=True):
    """A user who may enter another's VPS."""

    __tablename__ = "vps_share"

    task_id: int = Field(sa_column=_big(primary_key=True))
    user_name: str = Field(primary_key=True)


class MetaRow(SQLModel, table=True):
    """Single facts: the share's id."""

    __tablename__ = "meta"

    key: str = Field(primary_key=True)
    value: str
