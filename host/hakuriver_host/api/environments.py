"""Environments: the reference's paths under `/api/docker`, and all that is new under `/api/environments`."""

from __future__ import annotations

from typing import Annotated, cast

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.responses import Response, StreamingResponse

from hakuriver.errors import ConflictError, NotFoundError, StorageError, UnreachableError, UsageError
from hakuriver.models.environments import (
    EnvironmentClone,
    EnvironmentContainer,
    EnvironmentCreate,
    EnvironmentInfo,
    GarbageReport,
    PackRequest,
    PackResult,
    PrefetchRequest,
    ReferenceCreate,
    ReferencePacked,
    RollbackRequest,
    SyncProgress,
    TagRequest,
    VersionDiff,
    VersionInfo,
)
from hakuriver.models.nodes import EnvironmentVersions
from hakuriver.models.tasks import Message
from hakuriver_host.api import sse
from hakuriver_host.api.endpoint import Call, Endpoint
from hakuriver_host.services.access import Permission
from hakuriver_host.services.environments import Environments
from hakuriver_host.services.environments.making import Source

TAR = "application/x-tar"
BYTES = "application/octet-stream"
"""Of bodies that come: tools that send what an OpenAPI document asks for know no tars."""
VERSION_NUMBER_HEADER = "X-Environment-Version"
_USUAL = (UsageError, NotFoundError, ConflictError, UnreachableError, StorageError)


class _Query(BaseModel):
    model_config = ConfigDict(extra="forbid")


class DeleteQuery(_Query):
    versions: bool = Field(default=False, description="All of its versions too.")
    version: int | None = Field(default=None, ge=0, description="That version alone; the container stays.")


class DiffQuery(_Query):
    before: int | None = Field(default=None, ge=0, description="The parent of `after` unless given.")
    after: int | None = Field(default=None, ge=0, description="The current version unless given.")


class VersionQuery(_Query):
    version: int | None = Field(default=None, ge=0, description="The current one unless given.")


class ImportQuery(_Query):
    message: Annotated[str, StringConstraints(max_length=1000)] = Field(default="", description="What it is.")


class CollectQuery(_Query):
    dry_run: bool = Field(default=False, description="Only tell what would be removed.")


class PathQuery(_Query):
    path: Annotated[str, StringConstraints(min_length=1, max_length=4096)] = Field(
        default="/", description="Absolute path in the container."
    )


def environment_endpoints(environments: Environments) -> list[Endpoint]:
    return [*_containers(environments), *_versions(environments), *_reference(environments)]


def _containers(environments: Environments) -> list[Endpoint]:
    preparing, versions = environments.preparing, environments.versions

    async def list_environments(call: Call) -> list[EnvironmentInfo]:
        return await versions.seen(call.principal)

    async def environment(call: Call) -> EnvironmentInfo:
        return await versions.seen_one(call.path["name"], call.principal)

    async def create_environment(call: Call) -> EnvironmentInfo:
        await preparing.create(call.body, call.principal)
        return await versions.one(call.body.name)

    async def upload_environment(call: Call) -> EnvironmentInfo:
        name, kind = call.path["name"], call.path["kind"]
        if kind not in {"archive", "rootfs", "dockerfile"}:
            raise UsageError(
                f"{kind!r} is nothing to make an environment of", "archive, rootfs or dockerfile"
            )
        await preparing.upload(name, cast("Source", kind), call.stream, call.principal)
        return await versions.one(name)

    async def clone_environment(call: Call) -> EnvironmentInfo:
        await preparing.clone(call.path["name"], call.body, call.principal)
        return await versions.one(call.body.name)

    async def start_environment(call: Call) -> Message:
        return await preparing.start(call.path["name"], call.principal)

    async def stop_environment(call: Call) -> Message:
        return await preparing.stop(call.path["name"], call.principal)

    async def delete_environment(call: Call) -> Message:
        return await versions.delete(
            call.path["name"], call.principal, versions=call.query.versions, version=call.query.version
        )

    async def get_files(call: Call) -> Response:
        pieces = await preparing.download(call.path["name"], call.query.path, call.principal)
        return StreamingResponse(pieces, media_type=TAR)

    async def put_files(call: Call) -> Message:
        return await preparing.put(call.path["name"], call.query.path, call.stream, call.principal)

    see, prepare = Permission.SEE, Permission.PREPARE
    base, one = "/api/environments", "/api/environments/{name}"
    return [
        Endpoint(
            "GET",
            base,
            list_environments,
            see,
            "List environments, their versions and containers",
            list[EnvironmentInfo],
            errors=(StorageError,),
        ),
        Endpoint("GET", one, environment, see, "Show one environment", EnvironmentInfo, errors=_USUAL),
        Endpoint(
            "POST",
            base,
            create_environment,
            prepare,
            "Make an environment's container",
            EnvironmentInfo,
            body=EnvironmentCreate,
            status=201,
            errors=_USUAL,
        ),
        Endpoint(
            "POST",
            f"{one}/upload/{{kind}}",
            upload_environment,
            prepare,
            "Make an environment's container from an archive of an image, a root file system, or a Dockerfile's folder",
            EnvironmentInfo,
            takes=BYTES,
            status=201,
            errors=_USUAL,
        ),
        Endpoint(
            "POST",
            f"{one}/clone",
            clone_environment,
            prepare,
            "Make a new environment of what is in another one now",
            EnvironmentInfo,
            body=EnvironmentClone,
            status=201,
            errors=_USUAL,
        ),
        Endpoint(
            "POST",
            f"{one}/start",
            start_environment,
            prepare,
            "Start an environment's container",
            Message,
            errors=_USUAL,
        ),
        Endpoint(
            "POST",
            f"{one}/stop",
            stop_environment,
            prepare,
            "Stop an environment's container",
            Message,
            errors=_USUAL,
        ),
        Endpoint(
            "DELETE",
            one,
            delete_environment,
            prepare,
            "Delete an environment's container, or versions",
            Message,
            query=DeleteQuery,
            errors=_USUAL,
        ),
        Endpoint(
            "GET",
            f"{one}/files",
            get_files,
            prepare,
            "Copy a path out of an environment's container",
            bytes,
            query=PathQuery,
            media_type=TAR,
            errors=_USUAL,
        ),
        Endpoint(
            "PUT",
            f"{one}/files",
            put_files,
            prepare,
            "Unpack a tar into a folder of an environment's container",
            Message,
            query=PathQuery,
            takes=BYTES,
            errors=_USUAL,
        ),
    ]


def _versions(environments: Environments) -> list[Endpoint]:
    versions, syncing = environments.versions, environments.syncing

    async def pack(call: Call) -> PackResult:
        return await versions.pack(call.path["name"], call.body, call.principal)

    async def import_version(call: Call) -> PackResult:
        return await versions.import_(call.path["name"], call.stream, call.query.message, call.principal)

    async def export_version(call: Call) -> Response:
        number, pieces = await versions.export(call.path["name"], call.query.version, call.principal)
        return StreamingResponse(pieces, media_type=TAR, headers={VERSION_NUMBER_HEADER: str(number)})

    async def diff(call: Call) -> VersionDiff:
        return await versions.diff(call.path["name"], call.query.before, call.query.after, call.principal)

    async def rollback(call: Call) -> VersionInfo:
        return await versions.rollback(call.path["name"], call.body, call.principal)

    async def tag(call: Call) -> VersionInfo:
        return await versions.tag(call.path["name"], call.body, call.principal)

    async def collect_garbage(call: Call) -> GarbageReport:
        return await versions.collect(dry_run=call.query.dry_run)

    async def prefetch(call: Call) -> Response:
        progress = await syncing.prefetch(call.path["name"], call.body, call.principal)
        return sse.response(sse.encode("progress", each) async for each in progress)

    see, prepare, one = Permission.SEE, Permission.PREPARE, "/api/environments/{name}"
    return [
        Endpoint(
            "POST",
            f"{one}/pack",
            pack,
            prepare,
            "Pack what is in an environment's container as its next version",
            PackResult,
            body=PackRequest,
            errors=_USUAL,
        ),
        Endpoint(
            "POST",
            f"{one}/import",
            import_version,
            prepare,
            "Make an archive of an image the next version",
            PackResult,
            query=ImportQuery,
            takes=BYTES,
            errors=_USUAL,
        ),
        Endpoint(
            "GET",
            f"{one}/export",
            export_version,
            see,
            "Get a version as one archive",
            bytes,
            query=VersionQuery,
            media_type=TAR,
            headers={VERSION_NUMBER_HEADER: "The version that it is."},
            errors=_USUAL,
        ),
        Endpoint(
            "GET",
            f"{one}/diff",
            diff,
            see,
            "Compare two versions",
            VersionDiff,
            query=DiffQuery,
            errors=_USUAL,
        ),
        Endpoint(
            "POST",
            f"{one}/rollback",
            rollback,
            prepare,
            "Make an older version the current one",
            VersionInfo,
            body=RollbackRequest,
            errors=_USUAL,
        ),
        Endpoint(
            "POST",
            f"{one}/tag",
            tag,
            prepare,
            "Name a version, or take the name away",
            VersionInfo,
            body=TagRequest,
            errors=_USUAL,
        ),
        Endpoint(
            "POST",
            f"{one}/prefetch",
            prefetch,
            Permission.SUBMIT,
            "Have nodes load a version ahead of time",
            SyncProgress,
            body=PrefetchRequest,
            media_type=sse.MEDIA_TYPE,
            errors=_USUAL,
        ),
        Endpoint(
            "POST",
            "/api/garbage",
            collect_garbage,
            Permission.MANAGE,
            "Remove versions past retention, and layers that none has",
            GarbageReport,
            query=CollectQuery,
            errors=(ConflictError, StorageError),
        ),
    ]


def _reference(environments: Environments) -> list[Endpoint]:
    preparing, versions = environments.preparing, environments.versions

    async def list_tarballs(call: Call) -> dict[str, EnvironmentVersions]:
        del call
        return await versions.tarballs()

    async def list_containers(call: Call) -> list[EnvironmentContainer]:
        del call
        return [
            EnvironmentContainer(
                id=each.id, name=each.environment, image=each.image_name, status=each.state, owner=each.owner
            )
            for each in await preparing.containers()
        ]

    async def create_container(call: Call) -> Message:
        request = EnvironmentCreate(name=call.body.container_name, image=call.body.image_name)
        return await preparing.create(request, call.principal)

    async def delete_container(call: Call) -> Message:
        return await versions.delete(call.path["name"], call.principal, versions=False, version=None)

    async def start_container(call: Call) -> Message:
        return await preparing.start(call.path["name"], call.principal)

    async def stop_container(call: Call) -> Message:
        return await preparing.stop(call.path["name"], call.principal)

    async def create_tar(call: Call) -> ReferencePacked:
        packed = await versions.pack(call.path["name"], PackRequest(), call.principal)
        return ReferencePacked(message=packed.message, tarball_path=packed.tarball_path)

    prepare, host = Permission.PREPARE, "/api/docker/host"
    return [
        Endpoint(
            "GET",
            "/api/docker/list",
            list_tarballs,
            Permission.SEE,
            "List the files of environments' versions",
            dict[str, EnvironmentVersions],
            errors=(StorageError,),
        ),
        Endpoint(
            "GET",
            f"{host}/containers",
            list_containers,
            Permission.SEE,
            "List environments' containers",
            list[EnvironmentContainer],
            errors=(UnreachableError,),
        ),
        Endpoint(
            "POST",
            f"{host}/create",
            create_container,
            prepare,
            "Make an environment's container from an image",
            Message,
            body=ReferenceCreate,
            status=201,
            errors=_USUAL,
        ),
        Endpoint(
            "POST",
            f"{host}/delete/{{name}}",
            delete_container,
            prepare,
            "Delete an environment's container; its versions stay",
            Message,
            errors=_USUAL,
        ),
        Endpoint(
            "POST",
            f"{host}/start/{{name}}",
            start_container,
            prepare,
            "Start a container",
            Message,
            errors=_USUAL,
        ),
        Endpoint(
            "POST",
            f"{host}/stop/{{name}}",
            stop_container,
            prepare,
            "Stop a container",
            Message,
            errors=_USUAL,
        ),
        Endpoint(
            "POST",
            "/api/docker/create_tar/{name}",
            create_tar,
            prepare,
            "Pack an environment",
            ReferencePacked,
            errors=_USUAL,
        ),
    ]
