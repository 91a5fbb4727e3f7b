"""Users, tokens and keys."""

from __future__ import annotations

from hakuriver.errors import ConflictError, NotFoundError, StorageError, UnauthenticatedError
from hakuriver.models.access import TokenCreate, TokenCreated, TokenInfo, UserCreate, UserInfo, WhoAmI
from hakuriver.models.tasks import Message
from hakuriver.models.vps import KeyCreate, KeyInfo
from hakuriver_host.api.endpoint import Call, Endpoint
from hakuriver_host.services.access import Access, Permission
from hakuriver_host.services.doors import Doors
from hakuriver_host.services.environments.versions import VersionService, counted
from hakuriver_host.services.keys import Keys
from hakuriver_host.ssh.gateway import Gateway


def access_endpoints(
    access: Access, keys: Keys, doors: Doors, gateway: Gateway, versions: VersionService
) -> list[Endpoint]:
    async def whoami(call: Call) -> WhoAmI:
        role = call.principal.role
        if role is None:
            raise UnauthenticatedError("the token is not a user's", "use a user's token")
        return WhoAmI(name=call.principal.name, role=role)

    async def list_users(call: Call) -> list[UserInfo]:
        del call
        return access.users()

    async def create_user(call: Call) -> UserInfo:
        return await access.create_user(call.body, versions.check_nothing_left)

    async def delete_user(call: Call) -> Message:
        name = call.path["name"]
        async with keys.striking(name) as strike:
            await access.delete_user(name, strike)
        doors.shut_out_everywhere(name)
        gateway.look_again()
        left = access.still_has(name)
        live_on = f"; {left} of theirs live on: `hakuriver task list --owner {name}`" if left else ""
        return Message(message=f"user {name} is removed{live_on}{await _kept(versions, name)}")

    async def list_tokens(call: Call) -> list[TokenInfo]:
        return access.tokens(call.principal)

    async def create_token(call: Call) -> TokenCreated:
        return await access.create_token(call.body, call.principal)

    async def delete_token(call: Call) -> Message:
        await access.delete_token(call.path["token_id"], call.principal)
        return Message(message=f"token {call.path['token_id']} is revoked")

    async def list_keys(call: Call) -> list[KeyInfo]:
        return keys.seen_by(call.principal)

    async def create_key(call: Call) -> KeyInfo:
        return await keys.create(call.body, call.principal)

    async def delete_key(call: Call) -> Message:
        await keys.delete(call.path["key_id"], call.principal)
        gateway.look_again()
        return Message(message=f"key {call.path['key_id']} is removed")

    gone = (NotFoundError, StorageError)
    return [
        Endpoint("GET", "/api/whoami", whoami, Permission.SEE, "Say whose token this is", WhoAmI),
        Endpoint("GET", "/api/users", list_users, Permission.MANAGE, "List users", list[UserInfo]),
        Endpoint(
            "POST",
            "/api/users",
            create_user,
            Permission.MANAGE,
            "Make a user",
            UserInfo,
            body=UserCreate,
            status=201,
            errors=(ConflictError, StorageError),
        ),
        Endpoint(
            "DELETE",
            "/api/users/{name}",
            delete_user,
            Permission.MANAGE,
            "Remove a user",
            Message,
            errors=(*gone, ConflictError),
        ),
        Endpoint("GET", "/api/tokens", list_tokens, Permission.SEE, "List tokens", list[TokenInfo]),
        Endpoint(
            "POST",
            "/api/tokens",
            create_token,
            Permission.SEE,
            "Make a token",
            TokenCreated,
            body=TokenCreate,
            status=201,
            errors=(NotFoundError,),
        ),
        Endpoint(
            "DELETE",
            "/api/tokens/{token_id}",
            delete_token,
            Permission.SEE,
            "Revoke a token",
            Message,
            errors=gone,
        ),
        Endpoint("GET", "/api/keys", list_keys, Permission.OWN, "List public keys", list[KeyInfo]),
        Endpoint(
            "POST",
            "/api/keys",
            create_key,
            Permission.OWN,
            "Register a public key of one's own",
            KeyInfo,
            body=KeyCreate,
            status=201,
            errors=(ConflictError,),
        ),
        Endpoint(
            "DELETE",
            "/api/keys/{key_id}",
            delete_key,
            Permission.OWN,
            "Remove a public key",
            Message,
            errors=gone,
        ),
    ]


async def _kept(versions: VersionService, name: str) -> str:
    """What is said of the snapshots of a user who is removed; that they cannot be counted holds up nothing."""
    try:
        left = await versions.snapshots_by(name)
    except StorageError as error:
        return f"; whether snapshots of VPS are left is not known: {error.message}"
    return f"; {counted(left)} of theirs in the store: `hakuriver env list`" if left else ""
