"""Users, roles and tokens."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints, WithJsonSchema

from hakuriver.models.base import PeerModel, StrictModel, Timestamp
from hakuriver.roles import Role

USER_NAME = re.compile(r"[a-z_][a-z0-9_.-]{0,31}")


def _user_name(text: str) -> str:
    if not USER_NAME.fullmatch(text):
        raise ValueError(
            "must be 1 to 32 lower-case letters, digits, '_', '.' or '-', and begin with a letter or '_'"
        )
    return text


UserName = Annotated[
    str,
    AfterValidator(_user_name),
    WithJsonSchema({"type": "string", "pattern": f"^{USER_NAME.pattern}$"}),
]


class UserCreate(StrictModel):
    name: UserName
    role: Role = Role.USER
    uid: int | None = Field(default=None, ge=0, lt=2**32 - 1)
    """Numeric user id that the user's tasks run as, unless they ask for another in a container."""
    gid: int | None = Field(default=None, ge=0, lt=2**32 - 1)


class UserInfo(PeerModel):
    name: str
    role: Role
    uid: int | None = None
    gid: int | None = None
    created_at: Timestamp


class UserList(PeerModel):
    users: list[UserInfo]


class TokenCreate(StrictModel):
    kind: Literal["user", "join"] = "user"
    user: UserName | None = None
    """Whose it is; none is the caller's own."""
    label: Annotated[str, StringConstraints(max_length=128, pattern=r"^[^\x00-\x1f]*$")] = ""
    expires_in_seconds: int | None = Field(default=None, ge=1, le=10 * 365 * 86_400)


class TokenInfo(PeerModel):
    token_id: str
    kind: Literal["user", "join", "node"]
    user: str | None = None
    node: str | None = None
    label: str = ""
    created_at: Timestamp
    expires_at: Timestamp | None = None


class TokenCreated(TokenInfo):
    token: str
    """Shown this once; the Host keeps a hash of it."""


class TokenList(PeerModel):
    tokens: list[TokenInfo]


class WhoAmI(PeerModel):
    name: str
    role: Role
